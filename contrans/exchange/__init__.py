"""Who else can use it? Exports into the formats of other tools, and directions read from theirs."""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from contrans.exchange.baked import export_baked
    from contrans.exchange.foreign import Foreign
    from contrans.exchange.formats import FORMATS, READABLE, parse_foreign, read_foreign
    from contrans.exchange.importing import concept_vector_of
    from contrans.exchange.shift import Shift, exported_shift
    from contrans.exchange.writing import write_content

__all__ = [
    "FORMATS",
    "READABLE",
    "Foreign",
    "Shift",
    "concept_vector_of",
    "export_baked",
    "exported_shift",
    "parse_foreign",
    "read_foreign",
    "write_content",
]

_HOMES = {
    "baked": ("export_baked",),
    "foreign": ("Foreign",),
    "formats": ("FORMATS", "READABLE", "parse_foreign", "read_foreign"),
    "importing": ("concept_vector_of",),
    "shift": ("Shift", "exported_shift"),
    "writing": ("write_content",),
}

__getattr__, __dir__ = lazy(__name__, {name: home for home, names in _HOMES.items() for name in names})
