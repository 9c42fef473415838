"""The steps of a pipeline: what each is made from, what it costs, and its content key.

A step's key is a hash over its kind's version, its settings and the keys of its inputs, and the first keys hold the
fingerprints of the models and the hashes of the texts. Equal keys mean equal output, on any machine that rounds alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from contrans.hashing import digest, text_hash
from contrans.validation.items import CURVE_DRAWS, n_scorings
from flows.choosing import choose, n_tried, ways
from flows.judging import Items, items
from flows.store import Store
from flows.study import ModelFacts, study

if TYPE_CHECKING:
    from contrans.models import Model, ModelRecord
    from flows.spec import PipelineSpec

STEP_VERSIONS = {
    "capture": 2,
    "refine": 2,
    "choose": 2,
    "map": 2,
    "transplant": 2,
    "calibrate": 2,
    "validate": 2,
    "cross": 1,
    "perplexity": 1,
    "samples": 1,
    "stability": 1,
    "capability": 1,
    "report": 2,
}
"""Raise a kind's version when its output changes for equal input: what depends on it is then made anew."""

_CHARACTERS_PER_TOKEN = 4.3
_SEARCH = 6
"""Measurements of KL that the search for one dose takes, about."""


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
    from flows.extras import INPUTS, extras

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
        blocks = s.blocks(side)
        share = (blocks[-1] + 1) / model.n_blocks
        for what, texts, position, answers in (
            ("concepts", prompts, spec.refine.position, s.refine_answers()),
            ("corpus", list(s.texts.texts), "last", None),
        ):
            add(
                f"capture {what} · {side}",
                "capture",
                work.capture_texts(s, side, texts, position=position, answers=answers),
                settings={
                    "model": model.fingerprint,
                    "blocks": blocks,
                    "texts": digest([text_hash(t) for t in texts]),
                    "position": position,
                    "precision": precision,
                },
                cost=Cost(side, len(texts), tokens_of(texts), share),
            )
        add(
            f"refine · {side}",
            "refine",
            work.refine_concepts(s, side),
            settings={
                "refine": spec.refine.canonical(),
                "sets": {c.name: s.refined_from(c).hash for c in s.contrasts},
                "model": model.fingerprint,
            },
            inputs=(f"capture concepts · {side}",),
        )
    v = spec.validate_
    dev, test = items(s, "dev"), items(s, "test")
    judged = {"protocol": v.protocol, "prompt": v.prompt, "classifier": v.classifier, "generic": s.generic.hash}
    fitted = {**spec.map.canonical(), "seed": spec.seed, "rows": spec.corpus.canonical(), "corpus": s.texts.hash}
    share_above = max(1 - (min(s.blocks("target")) + 1) / target.n_blocks, 1 / target.n_blocks)
    arms, n_concepts = list(v.arms), len(s.contrasts)
    generic = tokens_of(list(s.generic.texts))
    own_shifts = n_concepts * len(set(arms) - {"unsteered", "random", "prompt"})
    tried = n_tried(s)
    add(
        "choose",
        "choose",
        choose(s),
        settings={
            **fitted,
            **judged,
            "pairs": s.pairs,
            "tries": spec.blocks.tries,
            "ways": ways(s),
            "kl_budget": v.kl_budget if tried else None,
            "items": dev.key if tried else None,
            "precision": precision if tried else None,
            "target": target.fingerprint,
        },
        inputs=("refine · source", "capture corpus · source", "capture corpus · target"),
        cost=_scoring(dev, 3 * tried * n_concepts, share_above, _SEARCH * tried * n_concepts * generic)
        if tried
        else Cost(),
    )
    add(
        "fit maps",
        "map",
        work.fit_maps(s),
        settings={**fitted, "arms": work.map_arms(s)},
        inputs=("capture corpus · source", "capture corpus · target", "choose"),
    )
    add(
        "map vectors",
        "transplant",
        work.map_vectors(s),
        settings={"concepts": [c.name for c in s.contrasts]},
        inputs=("refine · source", "fit maps"),
    )
    curve_kl = v.select == "kl" or v.curve_kl
    n_doses = len(v.doses) if v.select == "effect" else _SEARCH
    searched = own_shifts * n_doses * (2 if v.select == "kl" else 1) if curve_kl else 0
    add(
        "calibrate dose",
        "calibrate",
        work.calibrate_dose(s),
        settings={
            **judged,
            "arms": arms,
            "seed": spec.seed,
            "precision": precision,
            "items": dev.key,
            "target": target.fingerprint,
            "select": v.select,
            "kl_budget": v.kl_budget if v.select == "kl" else None,
            "doses": sorted(v.doses) if v.select == "effect" else None,
            "curve_kl": curve_kl,
        },
        inputs=("map vectors", "refine · target", "fit maps", "choose"),
        cost=_scoring(dev, n_scorings(arms, n_concepts, n_doses, CURVE_DRAWS), share_above, searched * generic),
    )
    add(
        "validate",
        "validate",
        work.validate_arms(s),
        settings={
            **judged,
            "arms": arms,
            "seed": spec.seed,
            "precision": precision,
            "items": test.key,
            "target": target.fingerprint,
            "random_draws": v.random_draws,
        },
        inputs=("map vectors", "refine · target", "fit maps", "choose", "calibrate dose"),
        cost=_scoring(test, n_scorings(arms, n_concepts, 1, v.random_draws), share_above, (2 + own_shifts) * generic),
    )
    if v.cross_effects != "none":
        pairs = n_concepts * (n_concepts - 1) // 2 if v.cross_effects == "pairs" else 0
        add(
            "cross effects",
            "cross",
            work.cross(s),
            settings={
                **judged,
                "seed": spec.seed,
                "precision": precision,
                "items": test.key,
                "target": target.fingerprint,
                "cross_effects": v.cross_effects,
                "combine": v.combine if pairs else None,
            },
            inputs=("map vectors", "refine · target", "fit maps", "choose", "calibrate dose"),
            cost=_scoring(test, 1 + n_concepts + pairs, share_above, 0),
        )
    for extra in extras(s, target, share_above):
        add(extra.name, extra.name, extra.run, settings=extra.settings, inputs=INPUTS, cost=extra.cost)
    add(
        "figure",
        "report",
        work.draw(s, source.name, target.name),
        settings={"models": [source.name, target.name]},
        inputs=("calibrate dose", "validate"),
    )
    return list(steps.values())


def _scoring(scored: Items, n: int, share_above: float, generic: int) -> Cost:
    """Scoring items n times, each once below the block and then above it for every shift; and generic tokens beside."""
    once = tokens_of([scored.shared, *scored.texts])
    tokens = round((n + 1 / share_above) * once) + generic
    if scored.written:
        # generation runs every block for every token
        return Cost("target", len(scored.texts) * n, n * (once + scored.written) + generic, 1.0, scored.written * n)
    return Cost("target", len(scored.texts) * n, tokens, share_above, scored.head_rows * n + generic)


def tokens_of(texts: list[str]) -> int:
    """Tokens of some texts, estimated from their characters."""
    return round(sum(map(len, texts)) / _CHARACTERS_PER_TOKEN)
