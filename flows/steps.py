"""The steps of a pipeline: what each is made from, what it costs, and its content key.

A step's key is a hash over its kind's version, its settings and the keys of its inputs, and the first keys hold the
fingerprints of the models and the hashes of the texts. Equal keys mean equal output, on any machine that rounds alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from contrans.hashing import digest, text_hash
from contrans.validation.items import CURVE_DRAWS, few_shot_prefix, n_scorings
from flows.store import Store
from flows.study import ModelFacts, study

if TYPE_CHECKING:
    from contrans.models import Model, ModelRecord
    from flows.spec import PipelineSpec

STEP_VERSIONS = {
    "capture": 1,
    "refine": 1,
    "map": 1,
    "transplant": 1,
    "calibrate": 1,
    "validate": 1,
    "report": 1,
}
"""Raise a kind's version when its output changes for equal input: what depends on it is then made anew."""

_CHARACTERS_PER_TOKEN = 4.3


@dataclass(frozen=True)
class Cost:
    """What a step asks of the machine.

    Attributes:
        model: "source", "target" or None.
        texts: texts that go through the model.
        tokens: their tokens, estimated from their characters.
        share: share of the model's blocks that run for each token.
        head_rows: rows that go through the language-model head.
    """

    model: str | None = None
    texts: int = 0
    tokens: int = 0
    share: float = 0.0
    head_rows: int = 0


class ModelPool(Protocol):
    """Loads each model once."""

    def get(self, side: str) -> Model:
        """The model of a side."""
        ...

    def record(self, side: str) -> ModelRecord:
        """The identity of a side's model."""
        ...


@dataclass
class StepContext:
    """What a running step may use."""

    spec: PipelineSpec
    store: Store
    steps: dict[str, Step]
    models: ModelPool
    progress: Callable[[int], None] = field(default=lambda _: None)

    def read(self, step: str, *names: str) -> dict[str, bytes]:
        """Files of a step that is done."""
        return self.store.read(self.steps[step].key, *names)


@dataclass(frozen=True)
class Step:
    """One coarse piece of work.

    Attributes:
        name: what people see.
        kind: a key of `STEP_VERSIONS`.
        key: SHA-256 over all that decides the output.
        inputs: names of the steps it needs.
        cost: what it asks of the machine.
        run: makes the output, a file content per file name.
    """

    name: str
    kind: str
    key: str
    inputs: tuple[str, ...]
    cost: Cost
    run: Callable[[StepContext], dict[str, bytes]]


def build_steps(spec: PipelineSpec, source: ModelFacts, target: ModelFacts) -> list[Step]:
    """The steps of a pipeline in an order in which they may run; nothing is run or loaded.

    Args:
        spec: what to do.
        source: the aligned model.
        target: the model to change.

    Raises:
        ContransError: the texts or blocks that the spec names cannot be used.
    """
    from flows import work

    s = study(spec, source, target)
    models = {"source": source, "target": target}
    precision = spec.compute.precision
    steps: dict[str, Step] = {}

    def add(
        name: str,
        kind: str,
        run: Callable[[StepContext], dict[str, bytes]],
        *,
        settings: Any,
        inputs: tuple[str, ...] = (),
        cost: Cost | None = None,
    ) -> None:
        key = digest(
            {
                "kind": kind,
                "version": STEP_VERSIONS[kind],
                "settings": settings,
                "inputs": [steps[i].key for i in inputs],
            }
        )
        steps[name] = Step(name, kind, key, inputs, cost or Cost(), run)

    prompts = s.refine_prompts()
    for side, model in models.items():
        block = s.block(side)
        share = (block + 1) / model.n_blocks
        for what, texts in (("concepts", prompts), ("corpus", list(s.texts.texts))):
            add(
                f"capture {what} · {side}",
                "capture",
                work.capture_texts(side, block, texts),
                settings={
                    "model": model.fingerprint,
                    "block": block,
                    "texts": digest([text_hash(t) for t in texts]),
                    "precision": precision,
                },
                cost=Cost(side, len(texts), _tokens(texts), share),
            )
        add(
            f"refine · {side}",
            "refine",
            work.refine_concepts(s, side),
            settings={
                "estimator": spec.refine.estimator,
                "sets": {c.name: c.hash for c in s.contrasts},
                "model": model.fingerprint,
            },
            inputs=(f"capture concepts · {side}",),
        )
    add(
        "fit maps",
        "map",
        work.fit_maps(s),
        settings={
            "estimator": spec.map.estimator,
            "held_out": spec.map.held_out,
            "seed": spec.seed,
            "rows": spec.corpus.canonical(),
            "corpus": s.texts.hash,
        },
        inputs=("capture corpus · source", "capture corpus · target"),
    )
    add(
        "map vectors",
        "transplant",
        work.map_vectors(s),
        settings={"concepts": [c.name for c in s.contrasts]},
        inputs=("refine · source", "fit maps"),
    )
    v = spec.validate_
    share_above = max(1 - (s.target_block + 1) / target.n_blocks, 1 / target.n_blocks)
    arms = list(v.arms)
    priced = 1 + len(s.contrasts) * len(set(arms) - {"unsteered", "random", "wrong_concept"})
    shots = _tokens([few_shot_prefix(s.family)])
    for name, kind, split, per_label, n in (
        (
            "calibrate dose",
            "calibrate",
            "dev",
            v.dev_per_label,
            n_scorings(arms, len(s.contrasts), len(v.doses), CURVE_DRAWS),
        ),
        (
            "validate",
            "validate",
            "test",
            v.test_per_label,
            n_scorings(arms, len(s.contrasts), 1, v.random_draws),
        ),
    ):
        items = [e.prompt for c in s.family for e in c.split(split).positives[:per_label]]
        # once below the block, then above it for every shift
        tokens = round((n + 1 / share_above) * (shots + _tokens(items)))
        generic = 0 if kind == "calibrate" else priced * _tokens(list(s.generic.texts))
        settings: dict[str, Any] = {
            "protocol": v.protocol,
            "arms": arms,
            "per_label": per_label,
            "seed": spec.seed,
            "precision": precision,
            "texts": {c.name: [c.split(part).hash for part in ("refine", split)] for c in s.family},
            "target": target.fingerprint,
        }
        inputs: tuple[str, ...] = ("map vectors", "refine · target", "fit maps")
        if kind == "calibrate":
            run = work.calibrate_dose(s)
            settings["doses"] = sorted(v.doses)
        else:
            run = work.validate_arms(s)
            settings |= {"random_draws": v.random_draws, "generic": s.generic.hash}
            inputs += ("calibrate dose",)
        add(
            name,
            kind,
            run,
            settings=settings,
            inputs=inputs,
            cost=Cost("target", len(items) * n, tokens + generic, share_above, len(items) * n + generic),
        )
    add(
        "figure",
        "report",
        work.draw(s, source.name, target.name),
        settings={"models": [source.name, target.name]},
        inputs=("calibrate dose", "validate"),
    )
    return list(steps.values())


def _tokens(texts: list[str]) -> int:
    return round(sum(map(len, texts)) / _CHARACTERS_PER_TOKEN)
