"""How does a concept cross over? Affine maps from one model's hidden space into another's."""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from contrans.maps.affine import AffineMap, MapSet
    from contrans.maps.corpora import Corpus, corpus, corpus_templates
    from contrans.maps.fit import fit_map, fit_states

__all__ = ["AffineMap", "Corpus", "MapSet", "corpus", "corpus_templates", "fit_map", "fit_states"]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "AffineMap": "affine",
        "Corpus": "corpora",
        "MapSet": "affine",
        "corpus": "corpora",
        "corpus_templates": "corpora",
        "fit_map": "fit",
        "fit_states": "fit",
    },
)
