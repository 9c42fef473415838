"""Keeping passwords and tokens out of what people read."""

import re

_USER_PART = re.compile(r"(?<=://)([^:/@\s]*):(\S*)@")
_PARAMETER = re.compile(r"((?:password|passwd|secret|token|key)=)([^&\s'\"]+)", re.IGNORECASE)
_BEARER = re.compile(r"(\bbearer\s+)[\w.~+/=-]+", re.IGNORECASE)
_HUB_TOKEN = re.compile(r"\bhf_[A-Za-z0-9]{8,}")


def masked(text: str) -> str:
    """Replaces passwords in URLs, in parameters such as `password=…`, and tokens by three stars."""
    for pattern, shown in ((_USER_PART, r"\1:***@"), (_PARAMETER, r"\1***"), (_BEARER, r"\1***"), (_HUB_TOKEN, "***")):
        text = pattern.sub(shown, text)
    return text
