"""What a pipeline spec holds. Every part has a default but the two models."""

import math
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    field_validator,
    model_validator,
)

from contrans.hashing import digest

Arm = Literal["unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "paper"]
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Text = Annotated[str, Field(min_length=1)]


def _depth_or_block(value: Any) -> Any:
    # A union of types would report the failure of each; one sentence says more.
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("must be a block number such as 14 or a relative depth such as 0.9")
    if isinstance(value, float) and not 0.0 <= value <= 1.0:
        raise ValueError("must lie between 0.0 and 1.0 as a depth; write a block number without a point")
    if value < 0:
        raise ValueError("must not be negative; blocks count from 0")
    return value


def _distinct(values: list[Any]) -> list[Any]:
    twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
    if twice is not None:
        raise ValueError(f"names {twice} twice; keep it once")
    return values


def _possible_dose(value: float) -> float:
    if not (math.isfinite(value) and value > 0):
        raise ValueError("must be a number above 0")
    return value


Depth = Annotated[int | float, BeforeValidator(_depth_or_block)]
Dose = Annotated[float, AfterValidator(_possible_dose)]
Doses = Annotated[list[Dose], Field(min_length=1), AfterValidator(_distinct)]
Arms = Annotated[list[Arm], Field(min_length=1), AfterValidator(_distinct)]


class _Part(BaseModel):
    # Strict: YAML has types of its own, and "1600" for 1600 is a mistake that should be seen.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def canonical(self) -> dict[str, Any]:
        """The part as plain JSON with every default filled in."""
        return self.model_dump(mode="json", by_alias=True)


class Blocks(_Part):
    """Where the concept is read and where it is put.

    Attributes:
        source: block of the source, as a number from 0 or as a relative depth (0.9 of the blocks).
        target: block of the target.
    """

    source: Depth = 0.9
    target: Depth = 0.78


class Refine(_Part):
    """How vectors are refined.

    Attributes:
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
    """

    estimator: Literal["mean_difference"] = "mean_difference"


class CorpusRows(_Part):
    """The texts that the map is fitted on, by how they are put before the models.

    Attributes:
        name: "passages", or the path of a .txt or .jsonl file.
        wrapped: rows in the concepts' prompt templates.
        truncated: rows without their last words, which the paper's map is fitted on; no other arm uses them.
        plain: rows as they are.
    """

    name: Text = "passages"
    wrapped: Count = 1300
    truncated: Count = 1300
    plain: Count = 0

    @model_validator(mode="after")
    def _some_rows(self) -> Self:
        if not self.wrapped + self.truncated + self.plain:
            raise ValueError("has no rows; set wrapped, truncated or plain above 0")
        return self


class MapSettings(_Part):
    """How the map is fitted.

    Attributes:
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`.
        held_out: share of the documents that λ and R² are judged on.
    """

    estimator: Literal["ridge", "paper", "shuffled", "identity"] = "ridge"
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2


class Validate(_Part):
    """What the transplant is compared with, and on how many items.

    Attributes:
        protocol: "emotion".
        arms: directions that are compared; "unsteered" and "transplanted" always are.
        doses: candidate shifts, in median residual norms; dev chooses.
        random_draws: random directions of the arm "random".
        dev_per_label: scenarios of each label on dev; null for all.
        test_per_label: scenarios of each label on test; null for all.
        generic_texts: texts that KL and perplexity are measured on.
    """

    protocol: Literal["emotion"] = "emotion"
    arms: Arms = [
        "unsteered",
        "transplanted",
        "own",
        "random",
        "shuffled_map",
        "wrong_concept",
        "paper",
    ]
    doses: Doses = [0.1, 0.15, 0.2, 0.3]
    random_draws: Positive = 20
    dev_per_label: Positive | None = 8
    test_per_label: Positive | None = 25
    generic_texts: Positive = 8

    @field_validator("arms")
    @classmethod
    def _needed_arms(cls, arms: list[str]) -> list[str]:
        missing = [arm for arm in ("unsteered", "transplanted") if arm not in arms]
        if missing:
            raise ValueError(f"must contain {missing[0]}: without it there is nothing to compare")
        return arms


class Compute(_Part):
    """How it is computed.

    Attributes:
        precision: of matrix products; "auto" is bfloat16 where the hardware has it.
        device: "auto", "cpu", "cuda", "cuda:1", …
        batch_tokens: most tokens in one batch.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    batch_tokens: Annotated[int, Field(ge=16)] = 2048


class PipelineSpec(_Part):
    """One pipeline: which concepts go from which model into which, and how that is judged.

    Attributes:
        name: of the pipeline; letters, digits, ".", "_" and "-".
        source: the aligned model that holds the concepts, any reference of `contrans.models.resolve`.
        target: the model that they are put into.
        concepts: names of contrast sets, "family/*", or paths of YAML files.
        blocks: where they are read and put.
        refine: how vectors are refined.
        corpus: what the map is fitted on.
        map: how it is fitted.
        validate_: how the result is judged; `validate` in YAML.
        compute: how it is computed.
        seed: of everything random.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "pipeline"
    source: Text
    target: Text
    concepts: Annotated[list[Text], Field(min_length=1), AfterValidator(_distinct)] = ["emotion/*"]
    blocks: Blocks = Blocks()
    refine: Refine = Refine()
    corpus: CorpusRows = CorpusRows()
    map: MapSettings = MapSettings()
    validate_: Validate = Field(default=Validate(), alias="validate")
    compute: Compute = Compute()
    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0

    @property
    def hash(self) -> str:
        """SHA-256, in hex, over the canonical spec: equal specs have the same one."""
        return digest(self.canonical())
