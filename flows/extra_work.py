"""What each step beside the main protocol does, see `flows.extras`: perplexity, samples, stability, capability."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flows.steps import tokens_of
from flows.work import Work, chosen, directions, doses_of, precision_of, to_json

if TYPE_CHECKING:
    import torch

    from contrans.validation.arms import Directions
    from flows.steps import StepContext
    from flows.study import Study

PROMPTS = (
    "The weather this week has been",
    "When the train arrived at the station,",
    "Here is a short description of the house:",
    "In the afternoon we went to the market and",
)
"""Prompts for free text that name no concept."""
_WINDOW = 64  # tokens
_LOGITS = 256  # tokens whose logits stand in memory at once
_BATCH = 8  # prompts at once


def arms_beside(study: Study) -> list[str]:
    """The steered arms that are measured beside the protocol: those that carry the concept."""
    return ["transplanted", *(["own"] if "own" in study.spec.validate_.arms else [])]


def prompts_of(study: Study) -> list[str]:
    """The spec's prompts for free text, or our own."""
    return list(study.spec.validate_.prompts or PROMPTS)


def read_along(study: Study) -> str:
    """The arm along whose directions long texts are read: the target's own vectors where there are any."""
    return "own" if "own" in study.spec.validate_.arms else "transplanted"


def measure_perplexity(study: Study) -> Work:
    """`perplexity.json`: rows of the generic texts' perplexity under every arm, and the effect; `perplexity.png`."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.extras import perplexity_rows
        from contrans.validation.perplexity import PerplexityProtocol

        found = directions(study, context)
        protocol = PerplexityProtocol(
            context.models.get("target"),
            list(study.generic.texts),
            block=chosen(context).target_block,
            concepts=found.concepts,
            precision=precision_of(context, "target"),
            batch_tokens=_LOGITS,
        )
        rows = perplexity_rows(
            protocol,
            found,
            arms=arms_beside(study),
            doses=doses_of(context),
            seed=context.spec.seed,
            tick=context.progress,
        )
        return _rows_and_figure("perplexity", rows, protocol.effect)

    return run


def write_samples(study: Study) -> Work:
    """`samples.json` and `samples.md`: what every arm writes after the same prompts, for every concept."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.generation import SAMPLING
        from contrans.validation.samples import by_concept

        v, found, prompts = context.spec.validate_, directions(study, context), prompts_of(study)
        samples = by_concept(
            context.models.get("target"),
            prompts,
            {c: {arm: _shift(context, found, arm, c) for arm in arms_beside(study)} for c in found.concepts},
            max_new_tokens=v.new_tokens,
            batch_size=_BATCH,
            seed=context.spec.seed,
            sampling=SAMPLING,
            progress=_progress(context, prompts, v.new_tokens),
        )
        return {"samples.json": to_json(samples.to_json()), "samples.md": samples.markdown().encode()}

    return run


def measure_stability(study: Study) -> Work:
    """`stability.json`, `.md` and `.png`: the effect of every transplant in long texts; `stability_texts.json`.

    Texts are read along the target's own vector where there is one, else along the transplant's.
    """

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.stability import Stability
        from contrans.validation.stability_result import StabilityResult

        v, found, prompts = context.spec.validate_, directions(study, context), prompts_of(study)
        along = found.by_arm[read_along(study)]
        stability = Stability(
            context.models.get("target"),
            block=chosen(context).target_block,
            direction=along[found.concepts[0]],
            residual_norm=found.residual_norm,
            batch_size=_BATCH,
            seed=context.spec.seed,
            progress=_progress(context, prompts, v.long_tokens),
        )
        results = {
            concept: stability.along(along[concept]).long_texts(
                prompts,
                {"transplanted": _shift(context, found, "transplanted", concept)},
                max_new_tokens=v.long_tokens,
                window=max(1, min(_WINDOW, v.long_tokens // 4)),
            )
            for concept in found.concepts
        }
        whole = StabilityResult.of_concepts(results)
        whole = replace(whole, settings={**whole.settings, "prompts": prompts, "along": read_along(study)})
        return {
            "stability.json": to_json(whole.to_json()),
            "stability.md": whole.markdown().encode(),
            "stability.png": whole.figure(),
            "stability_texts.json": to_json(whole.texts),
        }

    return run


def measure_capability(study: Study) -> Work:
    """`capability.json`: rows of every task, unsteered and as a mean over transplants; `capability.png`."""

    def run(context: StepContext) -> dict[str, bytes]:
        from contrans.validation.capability import CapabilityRow, capability
        from contrans.validation.extras import SCORE, capability_rows

        v, found = context.spec.validate_, directions(study, context)

        def answers(shifts: Mapping[int, torch.Tensor] | None) -> list[CapabilityRow]:
            return capability(
                context.models.get("target"),
                v.tasks,
                shifts=shifts,
                limit=v.task_limit,
                task_dir=v.task_dir,
                precision=precision_of(context, "target"),
                batch_size=_BATCH,
                progress=context.progress,
            )

        before = answers(None)
        after = {c: answers(_shift(context, found, "transplanted", c)) for c in found.concepts}
        dose = doses_of(context)["transplanted"]
        rows = capability_rows(before, after, dose=dose, seed=context.spec.seed)
        return _rows_and_figure("capability", rows, SCORE)

    return run


def _rows_and_figure(name: str, rows: list[Any], effect: str) -> dict[str, bytes]:
    from contrans.report.evidence import Evidence

    found = {"rows": [row.to_json() for row in rows], "effect": effect}
    return {f"{name}.json": to_json(found), f"{name}.png": Evidence.of(rows, effect=effect).figure()}


def _shift(context: StepContext, found: Directions, arm: str, concept: str) -> dict[int, torch.Tensor]:
    return {chosen(context).target_block: found.shift(arm, concept, doses_of(context)[arm])}


def _progress(context: StepContext, prompts: list[str], new_tokens: int) -> Callable[[int], None]:
    per_prompt = tokens_of(prompts) // len(prompts) + new_tokens
    return lambda n: context.progress(n * per_prompt)
