"""What a spec file may say beside the settings of a pipeline: keys that make several of it, and corpora by name.

```yaml
sources: [org/a-instruct, org/b-instruct]     # instead of source; and targets instead of target
targets: [org/a-base, org/b-base, org/c-base]
concepts: ["emotion/*", civility]             # a cell for each pair of models and each family of concepts
directions: one                               # or both, all
include: [{target: "org/*-base"}]             # cells that are made: those that one of the rules matches
exclude: [{source: org/a-instruct, target: org/c-base, concepts: [emotion/fear]}]
corpora:
  news: {name: ./news.txt, wrapped: 500}      # settings of a corpus, taken over by its name
corpus: {name: news, spread: 0}
sweep: {refine.pairs: [10, 20]}               # every cell once for each of these
```
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from flows.spec.fields import Part, Text, Texts, distinct
from flows.spec.parts import CorpusRows

Models = Annotated[list[Text], Field(min_length=1), AfterValidator(distinct)]
MATRIX_KEYS = ("sources", "targets", "directions", "include", "exclude")
CORPORA = "corpora"


class Rule(Part):
    """Which cells of a matrix are meant: those whose models and concepts match all that the rule says.

    A pattern is compared with the model as the spec names it, and with its short name; "*" stands for anything.

    Attributes:
        source: pattern of the source.
        target: pattern of the target.
        concepts: patterns of the concepts that are meant; all if empty.
    """

    source: Text = "*"
    target: Text = "*"
    concepts: Texts = Field(default=[])


class MatrixKeys(Part):
    """The keys of a spec file that make a matrix of it.

    Attributes:
        sources: the aligned models, instead of `source`.
        targets: the models that concepts are put into, instead of `target`.
        directions: "one" leaves out a pair whose reverse stands before it and a model with itself, "both" only a model
            with itself, "all" nothing.
        include: rules for what is made; everything if empty.
        exclude: rules for what is not made all the same.
    """

    sources: Models | None = None
    targets: Models | None = None
    directions: Literal["one", "both", "all"] = "one"
    include: list[Rule] = Field(default=[])
    exclude: list[Rule] = Field(default=[])


class FileKeys(MatrixKeys):
    """All keys of a spec file beside those of one pipeline.

    Attributes:
        corpora: settings of corpora by the names that `corpus.name` may have.
        sweep: settings by their dotted keys, each with the list of its values; see `flows.spec.sweeps`.
    """

    corpora: dict[str, CorpusRows] = Field(default={})
    sweep: dict[str, list[Any]] | None = None
