"""What each kind of step does: functions that return the work of one step, to be run later.

Files are safetensors and JSON; a step reads its inputs from the store alone, so that it can run in any process.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from contrans.concepts.vector import ConceptVector
    from contrans.maps.affine import MapSet
    from contrans.validation.emotion_arms import Directions
    from flows.steps import StepContext
    from flows.study import Study

Work = Callable[["StepContext"], dict[str, bytes]]

MAP_ARMS = {"transplanted": None, "shuffled_map": "shuffled", "paper": "paper"}
"""Arms that are made by a map, and its estimator; the first one's is the spec's."""


def _precision(context: StepContext, side: str) -> str:
    from contrans.states.precision import resolve_precision

    return resolve_precision(context.spec.compute.precision, context.models.get(side).device)


def capture_texts(side: str, block: int, texts: list[str]) -> Work:
    """Last-token states of texts at one block: `states.safetensors` with `states` [n, d]."""

    def run(context: StepContext) -> dict[str, bytes]:
        from safetensors.torch import save

        from contrans.states.capturing import capture

        captured = capture(
            context.models.get(side),
            texts,
            blocks=[block],
            precision=_precision(context, side),
            batch_tokens=context.spec.compute.batch_tokens,
            progress=context.progress,
        )
        facts = {"n_tokens": captured.n_tokens, "precision": _precision(context, side)}
        return {
            "states.safetensors": save({"states": captured[block]}),
            "facts.json": json.dumps(facts).encode(),
        }

    return run


def _states(context: StepContext, step: str) -> torch.Tensor:
    from safetensors.torch import load

    return load(context.read(step, "states.safetensors")["states.safetensors"])["states"]


def refine_concepts(study: Study, side: str) -> Work:
    """One concept vector per concept, in files that begin with the concept's name."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.concepts.refinement import refine_states

        step = f"capture concepts · {side}"
        states = _states(context, step)
        row = {prompt: i for i, prompt in enumerate(study.refine_prompts())}
        precision = json.loads(context.read(step, "facts.json")["facts.json"])["precision"]
        files: dict[str, bytes] = {}
        for contrast in study.contrasts:
            part = contrast.split("refine")
            positive = states[[row[e.prompt] for e in part.positives]]
            negative = states[[row[e.prompt] for e in part.negatives]]
            vector = refine_states(
                {study.block(side): (positive, negative)},
                concept=contrast.concept,
                model=context.models.record(side),
                estimator=context.spec.refine.estimator,
                provenance={
                    "contrast_set": contrast.name,
                    "texts": part.hash,
                    "split": "refine",
                    "template": part.template,
                    "position": "last",
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


def map_arms(study: Study) -> list[str]:
    """The arms of a spec that need a map, and that its corpus has rows for."""
    wanted = [a for a in MAP_ARMS if a == "transplanted" or a in study.spec.validate_.arms]
    return [a for a in wanted if a != "paper" or "truncated" in study.texts.kinds]


def fit_maps(study: Study) -> Work:
    """The map of every arm that has one, and `facts.json` with the match rate of the tokenizers."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.maps.fit import fit_states
        from contrans.states.pairing import match_rate

        spec = context.spec
        x, y = _states(context, "capture corpus · source"), _states(context, "capture corpus · target")
        files: dict[str, bytes] = {}
        for arm in map_arms(study):
            estimator = MAP_ARMS[arm] or spec.map.estimator
            # the paper fits on truncated sentences, and they serve its arm alone
            rows = study.texts.only(["truncated"] if arm == "paper" else ["wrapped", "plain"])
            maps = fit_states(
                {study.source_block: x[rows]},
                {study.target_block: y[rows]},
                documents=[study.texts.documents[i] for i in rows],
                source=context.models.record("source"),
                target=context.models.record("target"),
                estimator=estimator,
                held_out=spec.map.held_out,
                seed=spec.seed,
                info={
                    "corpus": study.texts.name,
                    "texts": study.texts.hash,
                    "kinds": sorted({study.texts.kinds[i] for i in rows}),
                },
            )
            files |= _prefixed(arm, maps.to_files())
        sample = list(study.texts.texts[:200])
        rate = match_rate(context.models.get("source"), context.models.get("target"), sample)
        return {**files, "facts.json": json.dumps({"match_rate": rate}).encode()}

    return run


def map_vectors(study: Study) -> Work:
    """Every concept through every arm's map, in files `concept.arm.concept_vector.…`."""

    def run(context: StepContext) -> dict[str, bytes]:
        files: dict[str, bytes] = {}
        for arm in map_arms(study):
            maps = read_maps(context, arm)
            rescale = "none" if arm == "paper" else "source-relative"
            for contrast in study.contrasts:
                vector = read_vector(context, "refine · source", contrast.concept)
                files |= _prefixed(f"{contrast.concept}.{arm}", maps.map_direction(vector, rescale=rescale).to_files())
        return files

    return run


def directions(study: Study, context: StepContext) -> Directions:
    """The directions of every arm at the target's block, with one unit of dose for all of them."""
    from contrans.validation.emotion_arms import Directions

    block = study.target_block
    by_arm: dict[str, dict[str, Any]] = {}
    for arm in map_arms(study):
        by_arm[arm] = {
            c.concept: read_vector(context, "map vectors", f"{c.concept}.{arm}").direction(block)
            for c in study.contrasts
        }
    if "own" in study.spec.validate_.arms:
        by_arm["own"] = {
            c.concept: read_vector(context, "refine · target", c.concept).direction(block) for c in study.contrasts
        }
    norm = read_maps(context, "transplanted")[study.source_block, block].target_norm
    return Directions(by_arm, norm, study.spec.seed)


def _protocol(study: Study, context: StepContext, split: str, per_label: int | None) -> Any:
    from contrans.validation.emotion import EmotionProtocol

    return EmotionProtocol(
        context.models.get("target"),
        study.family,
        block=study.target_block,
        split=split,
        per_label=per_label,
        precision=_precision(context, "target"),
    )


def calibrate_dose(study: Study) -> Work:
    """`calibration.json`: the dose of each arm, and the dev curves."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.emotion_arms import calibrate

        v = context.spec.validate_
        protocol = _protocol(study, context, "dev", v.dev_per_label)
        doses, rows = calibrate(protocol, directions(study, context), arms=v.arms, doses=v.doses, tick=context.progress)
        return {"calibration.json": _json({"doses": doses, "rows": [r.to_json() for r in rows]})}

    return run


def validate_arms(study: Study) -> Work:
    """`validation.json`: every arm on the test items at the dose that dev chose, and the summary."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.emotion_arms import validate
        from contrans.validation.fluency import FluencyMeter

        v = context.spec.validate_
        doses = json.loads(context.read("calibrate dose", "calibration.json")["calibration.json"])["doses"]
        model = context.models.get("target")
        rows, summary = validate(
            _protocol(study, context, "test", v.test_per_label),
            directions(study, context),
            FluencyMeter(model, study.target_block, study.generic.texts, precision=_precision(context, "target")),
            arms=v.arms,
            doses=doses,
            random_draws=v.random_draws,
            seed=context.spec.seed,
            tick=context.progress,
        )
        return {"validation.json": _json({"rows": [r.to_json() for r in rows], "summary": summary})}

    return run


def draw(study: Study, source: str, target: str) -> Work:
    """`accuracy_by_dose.png`."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.report.figures import accuracy_by_dose

        calibration = json.loads(context.read("calibrate dose", "calibration.json")["calibration.json"])
        validation = json.loads(context.read("validate", "validation.json")["validation.json"])
        return {
            "accuracy_by_dose.png": accuracy_by_dose(
                calibration["rows"], validation["rows"], source=source, target=target
            )
        }

    return run


def _json(value: Any) -> bytes:
    return json.dumps(value, indent=1, sort_keys=True, allow_nan=False).encode()
