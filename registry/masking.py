"""Keeping passwords out of what people read."""

import re

_USER_PART = re.compile(r"(?<=://)([^:/@\s]*):(\S*)@")
_PARAMETER = re.compile(r"((?:password|passwd|secret|token|key)=)([^&\s'\"]+)", re.IGNORECASE)


def masked(text: str) -> str:
    """Replaces passwords in URLs, and in parameters such as `password=…`, by three stars."""
    return _PARAMETER.sub(r"\1***", _USER_PART.sub(r"\1:***@", text))
