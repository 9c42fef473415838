"""The steps of a pipeline: what each is made from, what it costs, and its content key.

A step's key is a hash over its kind's version, its settings and the keys of its inputs, and the first keys hold the
fingerprints of the models and the hashes of the texts. Equal keys mean equal output, on any machine that rounds alike.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from contrans.hashing import digest
from contrans.validation.items import CURVE_DRAWS, FACTORS, n_scorings
from flows.capturing import TextCapture
from flows.choosing import choose, n_drawn, n_tried, ways
from flows.fitting import captured_rows, maps_of, streaming_cost
from flows.judging import Items, items
from flows.step import Cost, Step, StepContext, spared, tokens_of, writing
from flows.store import Store
from flows.study import ModelFacts, study

if TYPE_CHECKING:
    from flows.spec import PipelineSpec

__all__ = ["STEP_VERSIONS", "Cost", "Step", "StepContext", "build_steps", "spared", "tokens_of", "writing"]

STEP_VERSIONS = {
    "capture": 2,
    "refine": 2,
    "choose": 4,
    "map": 3,
    "transplant": 2,
    "calibrate": 5,
    "validate": 8,
    "cross": 1,
    "perplexity": 1,
    "samples": 1,
    "stability": 1,
    "capability": 1,
    "report": 2,
}
"""Raise a kind's version when its output changes for equal input: what depends on it is then made anew."""

_SEARCH = 6
"""Measurements of KL that the search for one dose takes, about."""
_SEARCH_OF_DRAW = 2
"""The same for one draw of a control, which starts from the dose of the others."""
_WRITTEN_AT_ONCE = 16
"""Texts that a protocol has continued in one batch."""


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
        left: Callable[[Store], Cost] | None = None,
    ) -> None:
        key = digest(
            {
                "kind": kind,
                "version": STEP_VERSIONS[kind],
                "settings": settings,
                "inputs": [steps[i].key for i in inputs],
            }
        )
        steps[name] = Step(name, kind, key, inputs, cost or Cost(), run, left)

    of_corpus = [s.texts.texts[row] for row in captured_rows(s)]
    for side, model in models.items():
        blocks, read_at = s.blocks(side), spec.refine.read_at(side, model.family)
        read = {"concepts": (s.refine_prompts(), s.refine_answers(), read_at)}
        if of_corpus:
            # few positions stand for something in any text
            read["corpus"] = (of_corpus, [""] * len(of_corpus), "mean" if read_at == "mean" else "last")
        for what, (texts, answers, position) in read.items():
            share = (blocks[-1] + 1) / model.n_blocks
            capture = TextCapture(
                side, model.fingerprint, texts, answers, position, blocks, share, spec.compute, STEP_VERSIONS["capture"]
            )
            add(
                f"capture {what} · {side}",
                "capture",
                capture.run,
                settings={
                    "model": model.fingerprint,
                    "blocks": blocks,
                    "texts": digest(texts),
                    "position": position,
                    "precision": precision,
                },
                cost=capture.cost,
                left=capture.left,
            )
        add(
            f"refine · {side}",
            "refine",
            work.refine_concepts(s, side),
            settings={
                "refine": {**spec.refine.canonical(), "position": read_at, "source_position": None},
                "sets": {c.name: s.refined_from(c).hash for c in s.contrasts},
                "model": model.fingerprint,
            },
            inputs=(f"capture concepts · {side}",),
        )
    v = spec.validate_
    dev, test = items(s, "dev"), items(s, "test")
    judged = {"protocol": v.protocol, "prompt": v.prompt, "classifier": v.classifier, "generic": s.generic.hash}
    if v.protocol == "emotion":
        judged["effect"] = v.effect
    fitted = {**spec.map.canonical(), "seed": spec.seed, "rows": spec.corpus.texts, "corpus": s.texts.hash}
    captures = tuple(f"capture corpus · {side}" for side in models if of_corpus)
    # a map from all tokens is made by the models themselves, while they read
    fingerprints = [source.fingerprint, target.fingerprint]
    streamed = {"per_document": spec.corpus.per_document, "models": fingerprints, "precision": precision}
    share_above = max(1 - (min(s.blocks("target")) + 1) / target.n_blocks, 1 / target.n_blocks)
    arms, n_concepts = list(v.arms), len(s.contrasts)
    generic = tokens_of(list(s.generic.texts))
    own_shifts = n_concepts * len(set(arms) - {"unsteered", "random", "prompt"})
    tried, drawn_at_blocks = n_tried(s), n_drawn(s)
    # a pair of labels is read from what the unsteered model gives to either, at each block that is tried
    read_from = len(s.blocks("target")) if v.protocol == "emotion" and len(s.family) == 2 else 0
    add(
        "choose",
        "choose",
        choose(s),
        settings={
            **fitted,
            **judged,
            "pairs": s.pairs,
            "tries": spec.blocks.tries,
            "random_draws": drawn_at_blocks,
            "ways": ways(s),
            "kl_budget": v.kl_budget if tried else None,
            "items": dev.key if tried else None,
            "precision": precision if tried else None,
            "target": target.fingerprint,
        },
        inputs=("refine · source", *captures),
        cost=_scoring(
            dev,
            3 * tried * n_concepts + drawn_at_blocks + read_from,
            share_above,
            (_SEARCH * tried * n_concepts + _SEARCH_OF_DRAW * drawn_at_blocks) * generic,
        )
        if tried
        else Cost(),
    )
    add(
        "fit maps",
        "map",
        work.fit_maps(s),
        settings={**fitted, "arms": maps_of(s), **({"all tokens": streamed} if spec.corpus.tokens == "all" else {})},
        inputs=(*captures, "choose"),
        cost=streaming_cost(s, source, target),
    )
    add(
        "map vectors",
        "transplant",
        work.map_vectors(s),
        settings={"concepts": [c.name for c in s.contrasts]},
        inputs=("refine · source", "fit maps"),
    )
    curve_kl = v.select == "kl" or v.curve_kl
    n_doses = len(v.doses) if v.select == "effect" else len(FACTORS)
    shuffles = min(v.shuffled_draws, CURVE_DRAWS)
    priced = n_concepts * len({"transplanted", "own", "shuffled_map", "paper"} & set(arms))
    priced += CURVE_DRAWS if "random" in arms else 0
    along_curves = n_doses * (priced + n_concepts * ("opposite" in arms)) if curve_kl else 0
    drawn = v.random_draws * ("random" in arms) if v.random_draws > 1 else 0
    drawn += v.shuffled_draws * n_concepts * ("shuffled_map" in arms) if v.shuffled_draws > 1 else 0
    searched = along_curves + (_SEARCH * priced + _SEARCH_OF_DRAW * drawn if v.select == "kl" else 0)
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
            "random_draws": v.random_draws if v.select == "kl" else None,
            "doses": sorted(v.doses) if v.select == "effect" else None,
            "curve_kl": curve_kl,
        },
        inputs=("map vectors", "refine · target", "fit maps", "choose"),
        cost=_scoring(
            dev, n_scorings(arms, n_concepts, n_doses, CURVE_DRAWS, shuffles), share_above, searched * generic
        ),
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
        cost=_scoring(
            test,
            n_scorings(arms, n_concepts, 1, v.random_draws, v.shuffled_draws),
            share_above,
            (1 + min(CURVE_DRAWS, v.random_draws) * ("random" in arms) + own_shifts) * generic,
        ),
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
        each = scored.written // len(scored.texts)
        written = writing(len(scored.texts), once, each, times=n, at_once=_WRITTEN_AT_ONCE)
        return replace(written, tokens=written.tokens + generic, head_rows=written.head_rows + generic)
    return Cost("target", len(scored.texts) * n, tokens, share_above, scored.head_rows * n + generic)
