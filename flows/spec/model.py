"""What a pipeline spec holds. Every part has a default but the two models."""

from typing import Annotated, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from contrans.hashing import digest
from flows.spec.fields import Part, Text, distinct
from flows.spec.judging import Arm, Validate
from flows.spec.parts import Blocks, Compute, CorpusRows, MapSettings, Refine
from flows.spec.publishing import Publish, gate_arms

__all__ = ["Arm", "Blocks", "Compute", "CorpusRows", "MapSettings", "PipelineSpec", "Publish", "Refine", "Validate"]

MOMENT_ESTIMATORS = ("ridge", "lstsq", "pcr", "procrustes", "reduced_rank")
"""The keys of `contrans.maps.estimators.MOMENT_ESTIMATORS`, which is slow to import."""


class PipelineSpec(Part):
    """One pipeline: which concepts go from which model into which, and how that is judged.

    A spec file may have further keys, which make several pipelines of it or name its corpora; see `flows.spec.file`.

    Attributes:
        name: of the pipeline; letters, digits, ".", "_" and "-".
        preset: which settings stand where the spec has none of its own, see `flows.spec.presets`.
        source: the aligned model that holds the concepts, any reference of `contrans.models.resolve`.
        target: the model that they are put into.
        concepts: names of contrast sets, "family/*", or paths of YAML files.
        blocks: where they are read and put.
        refine: how vectors are refined.
        corpus: what the map is fitted on.
        map: how it is fitted.
        validate_: how the result is judged; `validate` in YAML.
        publish: which transplants are published, and where; none if null.
        compute: how it is computed.
        seed: of everything random.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "pipeline"
    preset: Literal["paper", "default", "strict"] = "default"
    source: Text
    target: Text
    concepts: Annotated[list[Text], AfterValidator(distinct)] = Field(default=["emotion/*"], min_length=1)
    blocks: Blocks = Blocks()
    refine: Refine = Refine()
    corpus: CorpusRows = CorpusRows()
    map: MapSettings = MapSettings()
    validate_: Validate = Field(default=Validate(), alias="validate")
    publish: Publish | None = None
    compute: Compute = Compute()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @model_validator(mode="after")
    def _what_all_tokens_need(self) -> Self:
        if self.corpus.tokens == "last":
            return self
        choices = {"blocks.source": self.blocks.source, "blocks.target": self.blocks.target}
        left = [key for key, at in choices.items() if at == "auto" or (isinstance(at, list) and len(at) > 1)]
        left += ["corpus.mixes"] if len(self.corpus.candidates) > 1 else []
        if left:
            raise ValueError(
                f"has corpus.tokens: all, whose states are not kept to choose by, but leaves a choice in "
                f"{' and '.join(left)}; name one block or mix there, or set corpus.tokens: last"
            )
        if self.map.estimator not in MOMENT_ESTIMATORS or self.map.lambda_select != "r2":
            raise ValueError(
                f"has corpus.tokens: all, which is mapped from moments alone; set map.estimator to one of "
                f"{', '.join(MOMENT_ESTIMATORS)} and map.lambda_select to r2, or set corpus.tokens: last"
            )
        return self

    @model_validator(mode="after")
    def _what_the_gate_needs(self) -> Self:
        arms = [arm for arm in gate_arms(self.publish and self.publish.if_) if arm not in self.validate_.arms]
        if arms:
            raise ValueError(
                f"has a publish.if about the arm {arms[0]}, which is not measured; put it into validate.arms, or leave "
                f"it out of the gate"
            )
        return self

    @property
    def hash(self) -> str:
        """SHA-256, in hex, over the canonical spec: equal specs have the same one."""
        return digest(self.canonical())
