"""The registry, opened so that a command which only looks cannot change what is registered."""

import os

from flows.runs import open_registry
from registry.browse.reading import Reader
from registry.database import Database


def open_reader() -> Reader:
    """The registry for reading only; made where there is none and brought up to date first, as by every command.

    Raises:
        RegistryError: It cannot be opened.
    """
    open_registry().close()
    return Reader.open(_place())


def reader_if_any() -> Reader | None:
    """The registry for reading only, or None where there is none; nothing is made.

    Raises:
        RegistryError: It cannot be read, or its tables are of an older version.
    """
    database = Database(_place())
    missing = database.is_missing()
    database.close()
    return None if missing else Reader.open(_place())


def _place() -> str | None:
    return os.environ.get("CONTRANS_REGISTRY") or None
