"""What each kind of step does: functions that return the work of one step, to be run later.

Files are safetensors and JSON; a step reads its inputs from the store alone, so that it can run in any process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from flows.capturing import FACTS, read_states
from flows.choosing import Choice, read_choice
from flows.fitting import fit_arm, maps_of

if TYPE_CHECKING:
    from contrans.concepts.vector import ConceptVector
    from contrans.maps.affine import MapSet
    from contrans.validation.arms import Directions
    from contrans.validation.fluency import FluencyMeter
    from contrans.validation.protocol import ItemProtocol
    from flows.step import StepContext
    from flows.study import Study

Work = Callable[["StepContext"], dict[str, bytes]]


def precision_of(context: StepContext, side: str) -> str:
    """The number format that products of a side's model run in."""
    from contrans.states.precision import resolve_precision

    return resolve_precision(context.spec.compute.precision, context.models.get(side).device)


def refine_concepts(study: Study, side: str) -> Work:
    """One concept vector per concept, with a direction for every block that may be chosen."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.concepts.refinement import refine_states

        step, spec = f"capture concepts · {side}", context.spec
        states = {b: read_states(context, step, b) for b in study.blocks(side)}
        row = {prompt: i for i, prompt in enumerate(study.refine_prompts())}
        precision = json.loads(context.read(step, FACTS)[FACTS])["precision"]
        files: dict[str, bytes] = {}
        for contrast in study.contrasts:
            part = study.refined_from(contrast)
            positive, negative = ([row[e.prompt] for e in examples] for examples in (part.positives, part.negatives))
            vector = refine_states(
                {b: (s[positive], s[negative]) for b, s in states.items()},
                concept=contrast.concept,
                model=context.models.record(side),
                estimator=spec.refine.estimator,
                paired=part.paired,
                provenance={
                    "contrast_set": contrast.name,
                    "texts": part.hash,
                    "split": "refine",
                    "template": part.template,
                    "position": spec.refine.read_at(side, context.models.record(side).family),
                    "chat": "none",
                    "precision": precision,
                },
            )
            files |= _prefixed(contrast.concept, vector.to_files())
        return files

    return run


def _prefixed(name: str, files: dict[str, bytes]) -> dict[str, bytes]:
    return {f"{name}.{k}": v for k, v in files.items()}


def read_vector(context: StepContext, step: str, name: str) -> ConceptVector:
    """A concept vector that a step left under a name."""
    from contrans.concepts.vector import ConceptVector

    names = [f"{name}.concept_vector.safetensors", f"{name}.concept_vector.json"]
    return ConceptVector.from_files({k.removeprefix(f"{name}."): v for k, v in context.read(step, *names).items()})


def read_maps(context: StepContext, arm: str) -> MapSet:
    """The map behind an arm."""
    from contrans.maps.affine import MapSet

    names = [f"{arm}.affine_map.safetensors", f"{arm}.affine_map.json"]
    return MapSet.from_files({k.removeprefix(f"{arm}."): v for k, v in context.read("fit maps", *names).items()})


def chosen(context: StepContext) -> Choice:
    """What the step "choose" decided."""
    return read_choice(context.read("choose", "choice.json")["choice.json"])


def fit_maps(study: Study) -> Work:
    """The map of every arm that has one, and `facts.json` with the match rate of the tokenizers."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.states.pairing import match_rate

        files: dict[str, bytes] = {}
        for arm in maps_of(study):
            files |= _prefixed(arm, fit_arm(study, context, chosen(context), arm).to_files())
        sample = list(study.texts.texts[:200])
        rate = match_rate(context.models.get("source"), context.models.get("target"), sample)
        return {**files, FACTS: json.dumps({"match_rate": rate}).encode()}

    return run


def map_vectors(study: Study) -> Work:
    """Every concept through every arm's map, in files `concept.arm.concept_vector.…`."""

    def run(context: StepContext) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for arm in maps_of(study):
            maps = read_maps(context, arm)
            rescale = "none" if arm == "paper" else context.spec.map.rescale
            for contrast in study.contrasts:
                vector = read_vector(context, "refine · source", contrast.concept)
                files |= _prefixed(f"{contrast.concept}.{arm}", maps.map_direction(vector, rescale=rescale).to_files())
        return files

    return run


def directions(study: Study, context: StepContext) -> Directions:
    """The directions of every arm at the target's block, with one unit of dose for all of them."""
    from contrans.validation.arms import Directions

    source_block, block = chosen(context).pair
    by_arm: dict[str, dict[str, Any]] = {}
    for arm in maps_of(study):
        by_arm[arm] = {
            c.concept: read_vector(context, "map vectors", f"{c.concept}.{arm}").direction(block)
            for c in study.contrasts
        }
    if "own" in study.spec.validate_.arms:
        by_arm["own"] = {
            c.concept: read_vector(context, "refine · target", c.concept).direction(block) for c in study.contrasts
        }
    norm = read_maps(context, "transplanted")[source_block, block].target_norm
    return Directions(by_arm, norm, study.spec.seed)


def doses_of(context: StepContext) -> dict[str, float]:
    """The dose of each arm that the step "calibrate dose" chose."""
    return _calibrated(context)["doses"]


def _calibrated(context: StepContext) -> dict[str, Any]:
    return json.loads(context.read("calibrate dose", "calibration.json")["calibration.json"])


def _protocol(study: Study, context: StepContext, split: str) -> ItemProtocol:
    from flows.judging import protocol

    block = chosen(context).target_block
    return protocol(study, context.models.get("target"), split, block, precision_of(context, "target"))


def _meter(study: Study, context: StepContext) -> FluencyMeter:
    from contrans.validation.fluency import FluencyMeter

    return FluencyMeter(
        context.models.get("target"),
        chosen(context).target_block,
        study.generic.texts,
        precision=precision_of(context, "target"),
    )


def calibrate_dose(study: Study) -> Work:
    """`calibration.json`: the dose of each arm, and the dev curves."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.dosing import calibrate

        v = context.spec.validate_
        found = calibrate(
            _protocol(study, context, "dev"),
            directions(study, context),
            arms=v.arms,
            doses=v.doses,
            select=v.select,
            meter=_meter(study, context) if v.select == "kl" or v.curve_kl else None,
            kl_budget=v.kl_budget,
            random_draws=v.random_draws,
            tick=context.progress,
        )
        rows = [r.to_json() for r in found.rows]
        return {"calibration.json": to_json({"doses": found.doses, "draw_doses": found.draw_doses, "rows": rows})}

    return run


def validate_arms(study: Study) -> Work:
    """`validation.json`: every arm on test at the dose that dev chose, and the summary; `items.json`: item by item."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.comparison import validate
        from contrans.validation.outcomes import FILE, Outcomes
        from flows.judging import items

        v = context.spec.validate_
        calibrated = _calibrated(context)
        protocol = _protocol(study, context, "test")
        hits: dict[str, Any] = {}
        rows, summary = validate(
            protocol,
            directions(study, context),
            _meter(study, context),
            arms=v.arms,
            doses=calibrated["doses"],
            draw_doses=calibrated["draw_doses"],
            random_draws=v.random_draws,
            seed=context.spec.seed,
            tick=context.progress,
            keep=hits.update,
        )
        found = {"rows": [r.to_json() for r in rows], "summary": summary, "effect": protocol.effect}
        outcomes = Outcomes.of(protocol.effect, items(study, "test").names, hits)
        return {"validation.json": to_json(found), FILE: json.dumps(outcomes.to_json()).encode()}

    return run


def cross(study: Study) -> Work:
    """`cross_effects.json`: what every concept's transplant does to every other's effect on test."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.cross_effects import cross_effects

        v = context.spec.validate_
        doses = doses_of(context)
        found = directions(study, context)
        effects = cross_effects(
            _protocol(study, context, "test"),
            found.by_arm["transplanted"],
            doses["transplanted"],
            residual_norm=found.residual_norm,
            pairs=v.cross_effects == "pairs",
            combine=v.combine,
            seed=context.spec.seed,
            progress=context.progress,
        )
        return {"cross_effects.json": to_json(effects.to_json()), "cross_effects.png": effects.figure()}

    return run


def draw(study: Study, source: str, target: str) -> Work:
    """`accuracy_by_dose.png`, or effect by arm where there is no curve; `effect_by_kl.png` where KL was measured."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.report.figures import accuracy_by_dose, effect_by_arm, effect_by_kl

        dev = json.loads(context.read("calibrate dose", "calibration.json")["calibration.json"])["rows"]
        test = json.loads(context.read("validate", "validation.json")["validation.json"])["rows"]
        v = context.spec.validate_
        drawn = {
            "accuracy_by_dose.png": accuracy_by_dose(dev, test, source=source, target=target)
            if v.protocol == "emotion"
            else effect_by_arm(test, source=source, target=target)
        }
        if v.select == "kl" or v.curve_kl:
            budget = v.kl_budget if v.select == "kl" else None
            drawn["effect_by_kl.png"] = effect_by_kl([*dev, *test], source=source, target=target, budget=budget)
        return drawn

    return run


def to_json(value: Any) -> bytes:
    """Values as the bytes of a JSON file, the same for equal values."""
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()
