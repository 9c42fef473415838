"""What direction is it? Contrast sets, the vectors refined from them, and how far to believe them."""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from contrans.concepts.chat import as_chat
    from contrans.concepts.contrast import contrast_set, contrast_set_names, contrast_sets
    from contrans.concepts.examples import ContrastSet
    from contrans.concepts.refinement import refine, refine_states
    from contrans.concepts.vector import ConceptVector

__all__ = [
    "ConceptVector",
    "ContrastSet",
    "as_chat",
    "contrast_set",
    "contrast_set_names",
    "contrast_sets",
    "refine",
    "refine_states",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "ConceptVector": "vector",
        "ContrastSet": "examples",
        "as_chat": "chat",
        "contrast_set": "contrast",
        "contrast_set_names": "contrast",
        "contrast_sets": "contrast",
        "refine": "refinement",
        "refine_states": "refinement",
    },
)
