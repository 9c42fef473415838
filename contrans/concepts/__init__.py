"""What direction is it? Contrast sets, the vectors refined from them, and how far to believe them."""

from contrans.concepts.contrast import ContrastSet, contrast_set, contrast_set_names, contrast_sets
from contrans.concepts.refinement import refine, refine_states
from contrans.concepts.vector import ConceptVector

__all__ = [
    "ConceptVector",
    "ContrastSet",
    "contrast_set",
    "contrast_set_names",
    "contrast_sets",
    "refine",
    "refine_states",
]
