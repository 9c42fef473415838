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

from contrans.errors import ContransError
from contrans.hashing import digest

Arm = Literal[
    "unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "opposite", "prompt", "paper"
]
Beside = Literal["perplexity", "samples", "stability", "capability"]
Kind = Literal["wrapped", "spread", "truncated", "plain"]
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


def _one_or_many(value: Any) -> Any:
    if value == "auto":
        return value
    if isinstance(value, list):
        if not value:
            raise ValueError("is an empty list; name blocks or depths, or auto")
        return [_depth_or_block(v) for v in value]
    return _depth_or_block(value)


def _position(value: str) -> str:
    from contrans.concepts.positions import TokenPosition

    try:
        TokenPosition.parse(value)
    except ContransError as error:
        raise ValueError(f"is not understood: {error}") from error
    return value


Depth = Annotated[Any, BeforeValidator(_one_or_many)]
Dose = Annotated[float, AfterValidator(_possible_dose)]
Doses = Annotated[list[Dose], Field(min_length=1), AfterValidator(_distinct)]
Texts = Annotated[list[Text], AfterValidator(_distinct)]
Arms = Annotated[list[Arm], Field(min_length=1), AfterValidator(_distinct)]


class _Part(BaseModel):
    # Strict: YAML has types of its own, and "1600" for 1600 is a mistake that should be seen.
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def canonical(self) -> dict[str, Any]:
        """The part as plain JSON with every default filled in."""
        return self.model_dump(mode="json", by_alias=True)


class Blocks(_Part):
    """Where the concept is read and where it is put.

    A number from 0 is a block, a number with a point a relative depth (0.9 of the blocks). A list, or "auto" for depths
    from the middle on, leaves the choice to the effect on dev.

    Attributes:
        source: block of the source.
        target: block of the target.
        tries: pairs of blocks whose effect is tried, those that held-out states speak for the most.
        tolerance: how far the two relative depths of a pair may lie apart; pairs named one by one are not judged by it.
    """

    source: Depth = "auto"
    target: Depth = "auto"
    tries: Positive = 6
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.2


class Refine(_Part):
    """How vectors are refined.

    Attributes:
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        position: the token that states are read at: "last", "last:K", "answer" or "span:TEXT".
        pairs: texts of each side at most, the first by their hashes; null for all.
    """

    estimator: Literal["mean_difference", "pca", "lda", "logistic"] = "mean_difference"
    position: Annotated[str, AfterValidator(_position)] = "last"
    pairs: Annotated[int, Field(ge=2)] | None = None


class CorpusRows(_Part):
    """The texts that the map is fitted on, by how they are put before the models.

    Attributes:
        name: "passages", or the path of a .txt or .jsonl file.
        wrapped: rows in the concepts' prompt templates.
        spread: rows spread over many templates that have nothing to do with the concepts.
        truncated: rows without their last words, which the paper's map is fitted on.
        plain: rows as they are.
        leave_out: groups of the many templates to leave out, see `contrans.corpus_templates`.
        mixes: kinds of rows that one map is fitted on together; of several mixes dev chooses. All but truncated if
            empty.
    """

    name: Text = "passages"
    wrapped: Count = 1300
    spread: Count = 0
    truncated: Count = 1300
    plain: Count = 0
    leave_out: Annotated[list[Text], AfterValidator(_distinct)] = []
    mixes: Annotated[list[Annotated[list[Kind], Field(min_length=1), AfterValidator(_distinct)]], Field()] = []

    @model_validator(mode="after")
    def _some_rows(self) -> Self:
        if not self.wrapped + self.spread + self.truncated + self.plain:
            raise ValueError("has no rows; set wrapped, spread, truncated or plain above 0")
        for mix in self.mixes:
            empty = next((kind for kind in mix if not getattr(self, kind)), None)
            if empty:
                raise ValueError(f"mixes {empty} rows, but there are none; set {empty} above 0")
        return self

    @property
    def candidates(self) -> list[list[str]]:
        """The mixes to choose from, at least one."""
        if self.mixes:
            return [list(mix) for mix in self.mixes]
        every = [kind for kind in ("wrapped", "spread", "plain") if getattr(self, kind)]
        return [every or ["truncated"]]


class MapSettings(_Part):
    """How the map is fitted.

    Attributes:
        estimator: a key of `contrans.maps.estimators.MAP_ESTIMATORS`, or "auto" for what dev says.
        lambda_select: what ridge chooses λ by: "r2", "direction", or "auto" for what dev says; see
            `contrans.maps.estimators.ridge`.
        center: "kind" or "all", see `contrans.fit_map`.
        wrapped_share: share of the fit's weight that wrapped rows get beside others; by their number if null.
        rescale: length of a mapped vector, see `contrans.AffineMap.map_direction`.
        held_out: share of the documents that λ and R² are judged on.
    """

    estimator: Literal[
        "ridge", "paper", "lstsq", "pcr", "procrustes", "reduced_rank", "whitened", "shuffled", "identity", "auto"
    ] = "ridge"
    lambda_select: Literal["r2", "direction", "auto"] = "r2"
    center: Literal["kind", "all"] = "kind"
    wrapped_share: Annotated[float, Field(gt=0, lt=1)] | None = None
    rescale: Literal["source-relative", "unit", "none"] = "source-relative"
    held_out: Annotated[float, Field(gt=0, le=0.5)] = 0.2

    @model_validator(mode="after")
    def _lambda_is_ridges(self) -> Self:
        if self.lambda_select != "r2" and self.estimator not in ("ridge", "auto"):
            raise ValueError("has a lambda_select, which only the ridge estimator knows; leave it out")
        return self


class Validate(_Part):
    """What the transplant is compared with, and on how many items.

    Attributes:
        protocol: "emotion" (which of a family's labels does the model name?), "truthfulqa" or "toxicity".
        data: the protocol's data set: TruthfulQA's CSV, Toxigen's folder or CSV.
        prompt: of TruthfulQA: "qa_primer" or "paper".
        classifier: of toxicity: a folder or Hub id of a text-classification model.
        arms: directions that are compared; "unsteered" and "transplanted" always are.
        select: how doses are chosen: "effect" on dev, or "kl": the same price for every arm.
        kl_budget: that price, in nats per token on generic text.
        doses: candidate shifts of "effect", in median residual norms.
        curve_kl: whether KL is measured along the curves of "effect" too.
        random_draws: random directions of the arm "random"; 99 or more give a p-value.
        dev_per_label: items of each label (or group) on dev; null for all.
        test_per_label: items of each label (or group) on test; null for all.
        generic_texts: texts that KL and perplexity are measured on.
        cross_effects: what every concept's transplant does to every other's effect: "none", "singly", or "pairs" for
            two concepts at once too.
        combine: how two concepts are put in at once: a key of `contrans.transplants.compose.COMBINATIONS`.
        also: what is measured beside the protocol at the chosen doses: "perplexity", "samples", "stability",
            "capability"; see `flows.extras` for what each costs.
        prompts: what samples and stability continue; short neutral ones of our own if empty.
        new_tokens: most tokens of a sample.
        long_tokens: most tokens of a text of stability.
        tasks: of capability: tasks, groups or tags of lm-evaluation-harness.
        task_dir: of capability: a folder with task files of your own.
        task_limit: of capability: items of each task at most; null for all.
    """

    protocol: Literal["emotion", "truthfulqa", "toxicity"] = "emotion"
    data: Text | None = None
    prompt: Literal["qa_primer", "paper"] = "qa_primer"
    classifier: Text | None = None
    arms: Arms = [
        "unsteered",
        "transplanted",
        "own",
        "random",
        "shuffled_map",
        "wrong_concept",
        "paper",
    ]
    select: Literal["effect", "kl"] = "effect"
    kl_budget: Dose = 0.1
    doses: Doses = [0.1, 0.15, 0.2, 0.3]
    curve_kl: bool = False
    random_draws: Positive = 20
    dev_per_label: Positive | None = 8
    test_per_label: Positive | None = 25
    generic_texts: Positive = 8
    cross_effects: Literal["none", "singly", "pairs"] = "none"
    combine: Literal["sum", "loewdin", "gram_schmidt", "solve"] = "sum"
    also: Annotated[list[Beside], AfterValidator(_distinct)] = []
    prompts: Texts = []
    new_tokens: Positive = 40
    long_tokens: Positive = 512
    tasks: Texts = []
    task_dir: Text | None = None
    task_limit: Positive | None = None

    @field_validator("arms")
    @classmethod
    def _needed_arms(cls, arms: list[str]) -> list[str]:
        missing = [arm for arm in ("unsteered", "transplanted") if arm not in arms]
        if missing:
            raise ValueError(f"must contain {missing[0]}: without it there is nothing to compare")
        return arms

    @model_validator(mode="after")
    def _what_the_protocol_needs(self) -> Self:
        if self.protocol != "emotion" and self.data is None:
            raise ValueError(f"needs the data of {self.protocol}; set data to its file or folder")
        if self.protocol == "toxicity" and self.classifier is None:
            raise ValueError("needs a classifier for toxicity; name a text-classification model")
        if "capability" in self.also and not self.tasks:
            raise ValueError("needs tasks for capability; name at least one, such as tasks: [arc_easy]")
        return self


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

    A spec file may have a key `sweep` beside these, which makes several pipelines of it; see `flows.spec.sweeps`.

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
        compute: how it is computed.
        seed: of everything random.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)] = "pipeline"
    preset: Literal["paper", "default", "strict"] = "default"
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
