"""Which model is this: references, loading, blocks and fingerprints.

Names are loaded on first use, so that resolving a reference needs neither torch nor transformers.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from contrans.models import catalogue
    from contrans.models.blocks import BlockLayout, find_blocks
    from contrans.models.loading import load_model
    from contrans.models.model import Model
    from contrans.models.record import ModelRecord
    from contrans.models.reference import ModelReference, resolve

__all__ = [
    "BlockLayout",
    "Model",
    "ModelRecord",
    "ModelReference",
    "catalogue",
    "find_blocks",
    "load_model",
    "resolve",
]

_HOMES = {
    "BlockLayout": "blocks",
    "Model": "model",
    "ModelRecord": "record",
    "ModelReference": "reference",
    "find_blocks": "blocks",
    "load_model": "loading",
    "resolve": "reference",
}


def __getattr__(name: str) -> Any:
    if name == "catalogue":
        return import_module("contrans.models.catalogue")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
