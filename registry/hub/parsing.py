"""Reading a manifest that need not be trusted: it is whole and of a known format, or refused with a sentence."""

import json
import math
import re
from typing import Any

from pydantic import ValidationError

from contrans.errors import ArtifactError
from registry.hub.manifest import FORMAT_VERSION, MANIFEST, MAX_MANIFEST, Manifest, content_hash
from registry.names import MAX_NESTING

_RELEASE = re.compile(r"[0-9]+(\.[0-9]+){0,3}([a-z]+[0-9]+)?")


class NewerFormatError(ArtifactError):
    """What was published is of a format that a later version of contrans reads."""


def read_manifest(data: bytes, *, what: str) -> Manifest:
    """Reads a manifest from a source that need not be trusted.

    Args:
        data: the file's content.
        what: where it comes from, for messages.

    Raises:
        ArtifactError: it is too large, damaged, malformed, or of a newer format.
    """
    if len(data) > MAX_MANIFEST:
        raise ArtifactError(f"The manifest of {what} is larger than {MAX_MANIFEST // 2**20} MiB; do not use it.")
    try:
        found = json.loads(data, parse_constant=_no_constant, parse_float=_finite)
        _shallow(found)
        _check_format(found, what)
        manifest = Manifest.model_validate(found)
        # Over what was read, not what was understood: a later version may have written further keys.
        whole = content_hash(found) == manifest.content
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part)[:40] for part in first["loc"]) or "manifest"
        said = first["msg"].removeprefix("Value error, ")
        raise ArtifactError(f"{MANIFEST} of {what} is malformed ({where}: {said}); ask its publisher.") from None
    except (ValueError, RecursionError) as error:
        raise ArtifactError(f"{MANIFEST} of {what} is not valid JSON ({str(error)[:80]}); ask its publisher.") from None
    if not whole:
        raise ArtifactError(f"{MANIFEST} of {what} was altered: its hash does not fit its content; do not use it.")
    return manifest


def _check_format(found: Any, what: str) -> None:
    version = found.get("format_version") if isinstance(found, dict) else None
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise ArtifactError(f"{MANIFEST} of {what} gives no format version, so it is no manifest of contrans.")
    if version > FORMAT_VERSION:
        needs = found.get("needs_contrans")
        known = isinstance(needs, str) and len(needs) < 30 and _RELEASE.fullmatch(needs)
        least = f"needs contrans ≥ {needs}" if known else "needs a newer contrans"
        raise NewerFormatError(
            f"{what} has format {version} and {least}; this one reads up to {FORMAT_VERSION}: "
            "upgrade with `pip install -U contrans`."
        )


def _no_constant(text: str) -> None:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text[:20]} is too large")
    return value


def _shallow(found: Any) -> None:
    level, depth = [found], 0
    while level:
        depth += 1
        if depth > MAX_NESTING:
            raise ValueError(f"nested deeper than {MAX_NESTING} levels")
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
