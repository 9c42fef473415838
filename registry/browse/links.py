"""The addresses of pages, every one of which may be kept and sent."""

from urllib.parse import quote, urlencode

from registry.records import Version


def version_url(version: Version) -> str:
    """The page of a version."""
    return f"/version/{version.kind}/{quote(version.ref, safe='/@')}"


def lineage_url(version: Version) -> str:
    """The lineage around a version."""
    return f"/lineage/{version.kind}/{quote(version.ref, safe='/@')}"


def report_url(version: Version) -> str:
    """The page of a version as one file."""
    return f"/report/{version.kind}/{quote(version.ref, safe='/@')}"


def query_url(path: str, **values: object) -> str:
    """An address with a query of what is not empty."""
    kept = [(key, str(value)) for key, value in values.items() if value not in ("", None, False)]
    return f"{path}?{urlencode(kept)}" if kept else path
