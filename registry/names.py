"""What may be written down: names, aliases, file names, roles and plain JSON; everything else is refused."""

import json
import math
import re
from collections.abc import Iterable, Mapping
from typing import Any

from contrans.errors import RegistryError
from contrans.hashing import canonical_json

KINDS = ("model", "text_set", "vector", "map", "transplant", "validation")
MAX_NAME = 200  # characters
MAX_MANIFEST = 2**20  # bytes
MAX_NESTING = 64

_SEGMENT = re.compile(r"[A-Za-z0-9._-]+")
_ALIAS = re.compile(r"[A-Za-z][A-Za-z0-9._-]*")


def check_kind(kind: str) -> str:
    """Gives back a kind of version, or names the ones there are."""
    if kind not in KINDS:
        raise RegistryError(f"There is no kind {kind!r}; the kinds are {', '.join(KINDS)}.")
    return kind


def check_name(name: str, what: str = "name") -> str:
    """Gives back a path-like name (letters, digits, '.', '_', '-', in segments parted by '/').

    Args:
        name: The name to check.
        what: What is named, for the message: "name", "file name", "role".

    Raises:
        RegistryError: If the name is empty, too long, holds another sign or a segment '.' or '..'.
    """
    segments = name.split("/")
    if "@" in name or ":" in name:
        reason = "'@' and ':' part a name from its kind and version"
    elif len(name) > MAX_NAME:
        reason = f"it is longer than {MAX_NAME} characters"
    elif any(segment in {".", ".."} for segment in segments):
        reason = "'.' and '..' are not segments"
    elif not all(_SEGMENT.fullmatch(segment) for segment in segments):
        reason = "it must not be empty anywhere or hold other signs"
    else:
        return name
    raise RegistryError(
        f"{name[:MAX_NAME]!r} is not a valid {what}: {reason}; "
        "use letters, digits, '.', '_' and '-', in parts joined by '/'."
    )


def check_alias(alias: str) -> str:
    """Gives back an alias: a letter, then letters, digits, '.', '_' and '-'."""
    if len(alias) > MAX_NAME or not _ALIAS.fullmatch(alias):
        raise RegistryError(
            f"{alias[:MAX_NAME]!r} is not a valid alias; use a letter, then letters, "
            "digits, '.', '_' and '-', such as 'production'."
        )
    return alias


def check_tag(tag: str) -> str:
    """Gives back a tag: letters, digits, '.', '_' and '-', in segments parted by '/'."""
    return check_name(tag, "tag")


def plain_json(value: Mapping[str, Any], what: str) -> dict[str, Any]:
    """Gives back an own copy of a JSON object, with its keys sorted.

    Args:
        value: The object; `tuple` counts as an array.
        what: What it is, for the message: "manifest", "spec".

    Raises:
        RegistryError: If something inside is not JSON (NaN and infinities included), or if it is
            larger than 1 MiB or nested too deep.
    """
    if not isinstance(value, Mapping):
        raise RegistryError(f"A {what} is a JSON object, not {type(value).__name__}.")
    text = canonical_json(_plain(value, what, MAX_NESTING))
    if len(text.encode()) > MAX_MANIFEST:
        raise RegistryError(
            f"The {what} is larger than {MAX_MANIFEST // 2**20} MiB; put large content into a file of the version."
        )
    return json.loads(text)


def plain_text(text: str, where: str) -> str:
    """Gives back a text that every database stores: no NUL, no half of a surrogate pair."""
    if "\0" in text or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise RegistryError(f"{where} holds a NUL or a broken Unicode character; remove it.")
    return text


def plain_number(value: float, where: str) -> float:
    """Gives back a finite number as a float (and never −0.0, which equals 0.0 but prints otherwise)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise RegistryError(f"{where} is {value!r}, not a finite number; leave it out where nothing was measured.")
    return float(value) + 0.0


def listed(names: Iterable[str], *, most: int = 8) -> str:
    """Joins names for a message, cutting off after the first few."""
    found = list(names)
    rest = f" and {len(found) - most} more" if len(found) > most else ""
    return ", ".join(found[:most]) + rest


def _plain(value: Any, where: str, depth: int) -> Any:
    if depth == 0:
        raise RegistryError(f"{where[:80]}… is nested deeper than {MAX_NESTING} levels; make it flatter.")
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return plain_text(str(value), where)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise RegistryError(f"{where} is a whole number of more than 64 bits; write it as text.")
        return int(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            raise RegistryError(f"{where} is {value}, which JSON cannot hold; use null instead.")
        return float(value)
    if isinstance(value, Mapping):
        for key in value:
            if not isinstance(key, str):
                raise RegistryError(f"{where} has the key {key!r}; keys in JSON are strings.")
            plain_text(key, f"A key of {where}")
        return {key: _plain(item, f"{where}.{key}", depth - 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]", depth - 1) for i, item in enumerate(value)]
    raise RegistryError(f"{where} is a {type(value).__name__}, which is not JSON; turn it into text or numbers.")
