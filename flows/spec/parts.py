"""The parts of a spec that say what is read, fitted and computed, and how."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from contrans.concepts.positions import usual_position
from flows.spec.fields import Count, Depth, Part, Positive, Text, distinct, token_position

Kind = Literal["wrapped", "spread", "truncated", "plain"]


class Blocks(Part):
    """Where the concept is read and where it is put.

    A number from 0 is a block, a number with a point a relative depth (0.9 of the blocks). A list, or "auto" for depths
    from the middle on, leaves the choice to the effect on dev.

    Attributes:
        source: block of the source.
        target: block of the target.
        tries: pairs of blocks whose effect is tried, those that held-out states speak for the most.
        tolerance: how far the two relative depths of a pair may lie apart; pairs named one by one are not judged by it.
        control_draws: random directions at each target block that is tried, at the price of the map. What counts of a
            map's effect is what lies above theirs; with 0 all of it does.
    """

    source: Depth = "auto"
    target: Depth = "auto"
    tries: Positive = 6
    tolerance: Annotated[float, Field(ge=0, le=1)] = 0.2
    control_draws: Count = 20

    @model_validator(mode="after")
    def _draws_spread(self) -> Self:
        if self.control_draws == 1:
            raise ValueError(
                "has one random draw, which does not say how far they spread; set control_draws to 0 or 2 up"
            )
        return self


class Refine(Part):
    """How vectors are refined.

    Attributes:
        estimator: a key of `contrans.concepts.estimators.ESTIMATORS`.
        position: the token that states are read at: "last", "last:K", "mean" (of all tokens), "answer" or "span:TEXT".
        source_position: the same for the source alone; `position` if null, but of an encoder "mean" for "last". A model
            that is read at "mean" reads the corpus so too.
        pairs: texts of each side at most, the first by their hashes; null for all.
    """

    estimator: Literal["mean_difference", "pca", "lda", "logistic"] = "mean_difference"
    position: Annotated[str, AfterValidator(token_position)] = "last"
    source_position: Annotated[str, AfterValidator(token_position)] | None = None
    pairs: Annotated[int, Field(ge=2)] | None = None

    def read_at(self, side: str, family: str) -> str:
        """The token position of "source" or "target", a model of some family (`model_type`)."""
        named = self.source_position if side == "source" else None
        if named is None and side == "source" and self.position == "last":
            return usual_position(family)
        return named or self.position


class CorpusRows(Part):
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
        tokens: "last" fits on the last token of each row; "all" on all tokens that end at the same character in both
            models. Both models then read the rows once more while the map is fitted, and nothing of it is kept, so one
            pair of blocks, one mix and one of `MOMENT_ESTIMATORS` must be named. The arms `shuffled_map` and `paper`
            keep to last tokens.
        per_document: with all tokens, most pairs of one document, in equal steps through its rows; null for every pair.
    """

    name: Text = "passages"
    wrapped: Count = 1300
    spread: Count = 0
    truncated: Count = 1300
    plain: Count = 0
    leave_out: Annotated[list[Text], AfterValidator(distinct)] = Field(default=[])
    mixes: list[Annotated[list[Kind], Field(min_length=1), AfterValidator(distinct)]] = Field(default=[])
    tokens: Literal["last", "all"] = "last"
    per_document: Positive | None = None

    @model_validator(mode="after")
    def _some_rows(self) -> Self:
        if not self.wrapped + self.spread + self.truncated + self.plain:
            raise ValueError("has no rows; set wrapped, spread, truncated or plain above 0")
        for mix in self.mixes:
            empty = next((kind for kind in mix if not getattr(self, kind)), None)
            if empty:
                raise ValueError(f"mixes {empty} rows, but there are none; set {empty} above 0")
        if self.per_document is not None and self.tokens == "last":
            raise ValueError("has a per_document, but a row has one last token; set tokens: all, or leave it out")
        return self

    @property
    def texts(self) -> dict[str, Any]:
        """What decides the rows' texts, as plain JSON: all but which of their tokens a map is fitted on."""
        return {key: value for key, value in self.canonical().items() if key not in ("tokens", "per_document")}

    @property
    def candidates(self) -> list[list[str]]:
        """The mixes to choose from, at least one."""
        if self.mixes:
            return [list(mix) for mix in self.mixes]
        every = [kind for kind in ("wrapped", "spread", "plain") if getattr(self, kind)]
        return [every or ["truncated"]]


class MapSettings(Part):
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


class Compute(Part):
    """How it is computed.

    Attributes:
        precision: of matrix products; "auto" is bfloat16 where the hardware has it.
        device: "auto", "cpu", "cuda", "cuda:1", …
        batch_tokens: most tokens in one batch.
        device_map: "auto", "balanced" or "sequential" spreads each model over all GPUs, and over the CPU's memory where
            they do not hold it, as accelerate does; `device` then only says which format its weights have.
        memory_gb: gigabytes that loaded models may take; those not used for longest go first. Null leaves it to the
            variable CONTRANS_MODELS_GB, or to a share of the machine's memory, see `flows.pool`.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    device: Annotated[str, Field(pattern=r"^(auto|cpu|mps|cuda(:\d+)?)$")] = "auto"
    batch_tokens: Annotated[int, Field(ge=16)] = 2048
    device_map: Literal["auto", "balanced", "sequential"] | None = None
    memory_gb: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
