"""A tool that is not there: its proofs are skipped, or fail where all are due (`make interop`)."""

import importlib
import os
from typing import Any, NoReturn

import pytest


def missing(reason: str) -> NoReturn:
    """Skips the test; with CONTRANS_INTEROP=required fails it, so that no proof goes missing without a word."""
    if os.environ.get("CONTRANS_INTEROP") == "required":
        pytest.fail(f"{reason}, and CONTRANS_INTEROP=required", pytrace=False)
    pytest.skip(reason)


def package(name: str) -> Any:
    """An imported package."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        missing(f"needs {name} ({error})")
