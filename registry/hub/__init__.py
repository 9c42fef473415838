"""Concepts on the Hugging Face Hub: publish a transplant with its evidence, pull one with every hash checked."""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from registry.hub.client import HubError
    from registry.hub.manifest import Manifest
    from registry.hub.publishing import publish
    from registry.hub.pulling import Pulled, fetch, pull
    from registry.hub.recording import Publication, publications
    from registry.hub.searching import Found, search

__all__ = [
    "Found",
    "HubError",
    "Manifest",
    "Publication",
    "Pulled",
    "fetch",
    "publications",
    "publish",
    "pull",
    "search",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "Found": "searching",
        "HubError": "client",
        "Manifest": "manifest",
        "Publication": "recording",
        "Pulled": "pulling",
        "fetch": "pulling",
        "publications": "recording",
        "publish": "publishing",
        "pull": "pulling",
        "search": "searching",
    },
)
