"""The map behind an arm: from captured last tokens, or from all tokens that both models share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.capturing import read_states
from flows.step import Cost, tokens_of

if TYPE_CHECKING:
    from contrans.maps.affine import MapSet
    from contrans.maps.splits import SourceCache
    from flows.choosing import Choice
    from flows.step import StepContext
    from flows.study import ModelFacts, Study

MAP_ARMS = {"transplanted": None, "shuffled_map": "shuffled", "paper": "paper"}
"""Arms that are made by a map, and its estimator; the first one's is the spec's."""


def map_arms(study: Study) -> list[str]:
    """The arms of a spec that need a map, and that its corpus has rows for."""
    wanted = [a for a in MAP_ARMS if a == "transplanted" or a in study.spec.validate_.arms]
    return [a for a in wanted if a != "paper" or "truncated" in study.rows]


def maps_of(study: Study) -> list[str]:
    """A name for every map that is fitted: the arms, and further draws of the shuffled rows."""
    from contrans.validation.arms import draw_of

    draws = {"shuffled_map": study.spec.validate_.shuffled_draws}
    return [draw_of(arm, draw) for arm in map_arms(study) for draw in range(draws.get(arm, 1))]


def streams(study: Study, arm: str) -> bool:
    """Whether an arm's map is fitted on all tokens, while both models read."""
    return arm == "transplanted" and study.spec.corpus.tokens == "all"


def captured_rows(study: Study) -> list[int]:
    """The corpus rows whose last tokens the maps of the arms are fitted on: their states are captured."""
    if study.spec.corpus.tokens == "last":
        return list(range(len(study.texts)))  # of several mixes any may be chosen
    arms = [arm for arm in map_arms(study) if not streams(study, arm)]
    mix = study.spec.corpus.candidates[0]
    return sorted({row for arm in arms for row in study.rows_of(_mix(arm, mix))})


def fit_arm(
    study: Study, context: StepContext, choice: Choice, name: str, *, spectra: dict[int, SourceCache] | None = None
) -> MapSet:
    """One of `maps_of`, from one source block to one target block; every draw shuffles by a seed of its own.

    Args:
        study: the study.
        context: the running step's.
        choice: blocks, rows, estimator and how λ is chosen.
        name: of the map.
        spectra: what an earlier map of this name from the same source block and mix left, and this one adds to.
    """
    from contrans.maps.fit import fit_states

    arm, _, draw = name.partition(".")
    spec, mix = context.spec, _mix(arm, choice.mix)
    estimator = MAP_ARMS[arm] or choice.estimator
    rows = study.rows_of(mix)
    kinds = [study.texts.kinds[i] for i in rows]
    settings: dict[str, Any] = {
        "estimator": estimator,
        "share": _share(study, kinds),
        "center": spec.map.center,
        "held_out": spec.map.held_out,
        "seed": spec.seed + int(draw or 0),
    }
    info = {"corpus": study.texts.name, "texts": study.texts.hash, "kinds": list(mix)}
    if streams(study, arm):
        return _fit_all_tokens(study, context, choice, settings, info)
    at = {row: i for i, row in enumerate(captured_rows(study))}
    places = [at[row] for row in rows]
    states = [
        read_states(context, f"capture corpus · {side}", block)[places]
        for side, block in zip(("source", "target"), choice.pair, strict=True)
    ]
    return fit_states(
        {choice.source_block: states[0]},
        {choice.target_block: states[1]},
        documents=[study.texts.documents[i] for i in rows],
        source=context.models.record("source"),
        target=context.models.record("target"),
        kinds=kinds,
        lambda_select=choice.lambda_select if estimator == "ridge" else "r2",
        info=info,
        spectra=spectra,
        **settings,
    )


def streaming_cost(study: Study, source: ModelFacts, target: ModelFacts) -> Cost:
    """What fitting on all tokens asks of the machine: both models read the rows that tokens are taken from."""
    if not streams(study, "transplanted"):
        return Cost()
    rows = study.rows_of(study.spec.corpus.candidates[0])
    most = study.spec.corpus.per_document
    if most is not None:
        # each pair may be taken from a row of its own
        seen: dict[str, int] = {}
        for row in rows:
            document = study.texts.documents[row]
            seen[document] = seen.get(document, 0) + 1
        n = sum(min(most, count) for count in seen.values())
    else:
        n = len(rows)
    tokens = round(tokens_of([study.texts.texts[row] for row in rows]) * n / max(1, len(rows)))
    sides = [
        Cost(side, n, tokens, (study.blocks(side)[-1] + 1) / model.n_blocks)
        for side, model in (("source", source), ("target", target))
    ]
    return replace(sides[0], beside=sides[1])


def _fit_all_tokens(
    study: Study, context: StepContext, choice: Choice, settings: dict[str, Any], info: dict[str, Any]
) -> MapSet:
    from contrans.maps.affine import MapSet
    from contrans.maps.fit import fit_map
    from flows.pool import precision_here

    rows, texts, spec = study.rows_of(choice.mix), study.texts, context.spec
    fitted = fit_map(
        context.models.get("source"),
        context.models.get("target"),
        replace(
            texts,
            texts=tuple(texts.texts[i] for i in rows),
            documents=tuple(texts.documents[i] for i in rows),
            kinds=tuple(texts.kinds[i] for i in rows),
        ),
        source_blocks=[choice.source_block],
        target_blocks=[choice.target_block],
        tokens="all",
        per_document=spec.corpus.per_document,
        precision=precision_here(spec.compute),
        batch_tokens=spec.compute.batch_tokens,
        progress=context.progress,
        **settings,
    )
    # the corpus and rows are named as those of the other maps are
    maps = {pair: replace(made, info={**made.info, **info}) for pair, made in fitted.maps.items()}
    return MapSet(fitted.source, fitted.target, maps)


def _mix(arm: str, mix: Any) -> tuple[str, ...]:
    # the paper fits on truncated sentences alone
    return ("truncated",) if arm == "paper" else tuple(mix)


def _share(study: Study, kinds: list[str]) -> dict[str, float]:
    """Share of the fit's weight by kind, where wrapped rows stand beside others and are to have one."""
    share = study.spec.map.wrapped_share
    wrapped = sorted({kind for kind in kinds if kind.partition("/")[0] == "wrapped"})
    if share is None or len(set(kinds)) == len(wrapped):
        return {}
    return dict.fromkeys(wrapped, share / len(wrapped)) if wrapped else {}
