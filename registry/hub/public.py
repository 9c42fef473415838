"""What may leave the machine: no places on this disk, no tokens, and under which licence the rest goes."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePath, PureWindowsPath
from typing import Any

from contrans.errors import RegistryError
from contrans.models import catalogue

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
_PLACE = re.compile(r"(/|~[/\\]|[A-Za-z]:[/\\]|\\\\)[^\n]*[^\n/\\][/\\]*")
_SECRETS = (
    re.compile(rb"\bhf_[A-Za-z0-9]{20,}"),
    re.compile(rb"\bgh[pousr]_[A-Za-z0-9]{30,}"),
    re.compile(rb"\bAKIA[0-9A-Z]{16}\b"),
    re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    re.compile(rb"://[^/\s:@\"]+:[^/\s@\"]+@"),
)
_LICENCES = {"gemma terms of use": "gemma", "apache 2.0": "apache-2.0", "mit license": "mit"}
_HUB_LICENCES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "gpl-3.0", "lgpl-3.0", "agpl-3.0", "openrail"),
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "bigscience-bloom-rail-1.0"),
    *("gemma", "llama2", "llama3", "llama3.1", "llama3.2", "llama3.3", "other", "unknown"),
)


def base_model(reference: str, revision: str | None) -> str | None:
    """The Hub's id of a model, which a card names as its base; none for a model that only lies on this disk.

    Args:
        reference: what the user named.
        revision: the revision that was loaded: a model of the Hub has a commit.
    """
    if reference.startswith("pypi:"):
        entry = catalogue.MODELS.get(reference.removeprefix("pypi:"))
        return None if entry is None else entry.base_model
    identifier = reference.partition("@")[0]
    return identifier if revision and _HUB_ID.fullmatch(identifier) else None


def local_names(models: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """For each model that lies only on this disk what is published in place of its reference: its short name."""
    return {
        str(model["reference"]): str(model["name"])
        for model in models
        if not str(model["reference"]).startswith("pypi:")
        and base_model(str(model["reference"]), model.get("revision")) is None
    }


def cleaned(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value without places on this disk.

    Args:
        value: the value; not changed.
        names: what is to stand in place of certain texts, see `local_names`.

    Returns:
        The value, with absolute paths cut to their last part.
    """
    if isinstance(value, Mapping):
        return {key: cleaned(inner, names) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [cleaned(inner, names) for inner in value]
    if isinstance(value, str):
        if value in names:
            return names[value]
        if _PLACE.fullmatch(value):
            return (PurePath(value) if value.startswith(("/", "~/")) else PureWindowsPath(value)).name or "path"
    return value


def refuse_secrets(files: Mapping[str, bytes], token: str | None) -> None:
    """Refuses files that hold the user's token, or what looks like a token, key or password.

    Raises:
        RegistryError: one does; the message does not show it.
    """
    for path, data in files.items():
        if (token and token.encode() in data) or any(secret.search(data) for secret in _SECRETS):
            raise RegistryError(
                f"{path} would hold what looks like a token, key or password, so nothing was published; take it out "
                "of the spec, the texts or the names, and register the version anew."
            )


def licence_fields(licences: Iterable[str | None], chosen: str | None) -> dict[str, str]:
    """The licence fields of the card.

    Args:
        licences: of the models and texts that went in; None where unknown.
        chosen: the user's choice, an identifier of the Hub.

    Returns:
        The one licence that all share, where the Hub has a name for it; else "other".

    Raises:
        RegistryError: the Hub does not know the licence that was chosen.
    """
    if chosen is not None:
        if chosen.lower() not in _HUB_LICENCES:
            raise RegistryError(
                f"The Hub has no licence {chosen[:40]!r}; give one such as apache-2.0, mit or cc-by-4.0, or other."
            )
        return {"license": chosen.lower()}
    known = {None if name is None else _LICENCES.get(name.lower(), name.lower()) for name in licences}
    only = known.pop() if len(known) == 1 else None
    if only in _HUB_LICENCES:
        return {"license": str(only)}
    return {"license": "other", "license_name": "licences-of-its-parts", "license_link": "README.md#licence"}
