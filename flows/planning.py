"""What a run would do and cost, without running or fetching anything.

Time is floating-point operations divided by what this machine reaches on matrix products of the model's size,
times a constant for how far a forward pass stays behind that; for another machine, scale the operations. Memory is
weights, the activations of one batch and its logits. Both are estimates: expect the right order, not the second.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from contrans.errors import ModelError
from contrans.models import ModelRecord, resolve
from contrans.models.facts import ModelFacts
from flows.pool import device_kind, known_record
from flows.runs import steps_folder
from flows.spec import PipelineSpec
from flows.speed import Speeds, precision_here
from flows.steps import Step, build_steps
from flows.store import Store

EFFICIENCY = 0.62
"""Speed of forward passes against that of bare matrix products, fitted on the captures of the quickstart."""
_HEAD_SHARE = 2.5  # a row's softmax over the vocabulary and its moves to and from memory, over its product alone
_IMPORT_SECONDS = 6.0  # torch and transformers
_LOAD_BYTES_PER_SECOND = 0.5e9
_OTHER_SECONDS = 1.0  # a step that runs no model
_PROCESS_BYTES = 1.4e9  # Python with torch, transformers and the engine
_ACTIVATIONS = 24  # values that live at once for each token and hidden unit
_HEAD_ROWS = 256  # rows whose logits live at once


@dataclass(frozen=True)
class PlannedStep:
    """A step and what it would cost.

    Attributes:
        name: The step.
        cached: Whether it is done already; it then costs nothing.
        model: "source", "target" or None.
        texts: Texts that it puts through the model.
        tokens: Their tokens, estimated from their characters.
        flops: Floating-point operations.
        seconds: Predicted time, 0 where done.
        memory: Predicted memory of the process in bytes, 0 where done.
        points: Of a sweep, the numbers from 0 of the points that need it; it is done for the first of them.
    """

    name: str
    cached: bool
    model: str | None
    texts: int
    tokens: int
    flops: float
    seconds: float
    memory: int
    points: tuple[int, ...] = (0,)


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        steps: All steps in order; of a sweep each once, where it is needed first.
        fetch: Bytes to download for each model that is not on this machine; None where its size is unknown.
        flops: Floating-point operations of what is to do.
        seconds: Predicted time, downloads left out.
        memory: Predicted peak in bytes.
        gflops: Measured speed by model, in 10⁹ operations a second; empty if nothing is to be computed.
    """

    steps: tuple[PlannedStep, ...]
    fetch: dict[str, int | None]
    flops: float
    seconds: float
    memory: int
    gflops: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Gives the plan as plain JSON, with the attributes' names."""
        return asdict(self) | {"steps": [asdict(step) | {"points": list(step.points)} for step in self.steps]}


def plan(spec: PipelineSpec) -> Plan:
    """Plans a pipeline.

    Raises:
        ContransError: The spec's models, texts or blocks cannot be used, or a model's sizes are not known.
    """
    return plan_all([spec])


def plan_all(specs: Sequence[PipelineSpec]) -> Plan:
    """Plans the pipelines of a sweep, one after another: what they share is done once.

    Args:
        specs: One or more specs.

    Raises:
        ContransError: As for `plan`.
    """
    store, speeds = Store(steps_folder()), Speeds()
    planned: dict[str, PlannedStep] = {}
    references: dict[str, None] = {}
    for number, spec in enumerate(specs):
        models = {"source": spec.source, "target": spec.target}
        references |= dict.fromkeys(models.values())
        facts = {side: _facts(reference) for side, reference in models.items()}
        records = {
            side: known_record(reference, spec.compute.device) or _stand_in(reference, facts[side])
            for side, reference in models.items()
        }
        loaded: list[str] = []
        for step in build_steps(spec, records["source"], records["target"]):
            if step.key in planned:
                before = planned[step.key]
                points = tuple(dict.fromkeys((*before.points, number)))
                planned[step.key] = replace(before, points=points)
            else:
                done = store.has(step.key)
                planned[step.key] = _planned(step, spec, facts, loaded, speeds, done=done, point=number)
    steps = tuple(planned.values())
    return Plan(
        steps=steps,
        fetch=_fetch(list(references)),
        flops=sum(step.flops for step in steps if not step.cached),
        seconds=sum(step.seconds for step in steps),
        memory=max((step.memory for step in steps), default=0),
        gflops=speeds.gflops,
    )


def _planned(
    step: Step,
    spec: PipelineSpec,
    facts: dict[str, ModelFacts],
    loaded: list[str],
    speeds: Speeds,
    *,
    done: bool,
    point: int,
) -> PlannedStep:
    """A step of a point; a model that it loads joins those that are loaded."""
    cost, seconds, memory = step.cost, 0.0, 0
    work = flops(step, facts[cost.model]) if cost.model else 0.0
    if not done:
        seconds = _OTHER_SECONDS
        if cost.model:
            first = not speeds.gflops
            width = facts[cost.model].hidden_size or 1
            reference = spec.source if cost.model == "source" else spec.target
            seconds = work / (EFFICIENCY * 1e9 * speeds.of(reference, width, spec.compute))
            if cost.model not in loaded:
                seconds += _loading(facts[cost.model], spec, first=first)
                loaded.append(cost.model)
        memory = _memory(step, facts, loaded, spec)
    return PlannedStep(step.name, done, cost.model, cost.texts, cost.tokens, work, seconds, memory, (point,))


def flops(step: Step, facts: ModelFacts) -> float:
    """Floating-point operations of a step: blocks, attention, and the rows that reach the head."""
    cost = step.cost
    width, vocabulary = facts.hidden_size or 0, facts.vocab_size or 0
    length = cost.tokens / max(1, cost.texts)
    attention = 2 * width * length * (facts.n_blocks or 0)  # scores and mixing, half of them masked
    blocks = cost.tokens * cost.share * (2 * block_parameters(facts) + attention)
    return blocks + 2.0 * _HEAD_SHARE * cost.head_rows * vocabulary * width


def block_parameters(facts: ModelFacts) -> float:
    """Weights inside the blocks; 12 d² each where only the sizes are known."""
    width, vocabulary = facts.hidden_size or 0, facts.vocab_size or 0
    if facts.parameters is None:
        return 12.0 * width**2 * (facts.n_blocks or 0)
    return float(max(facts.parameters - vocabulary * width, 0))


def _facts(reference: str) -> ModelFacts:
    facts = resolve(reference).facts()
    if facts is None or facts.n_blocks is None or facts.hidden_size is None:
        raise ModelError(
            f"The sizes of {reference} are not known before it is fetched, so there is no plan; "
            "`contrans run` fetches it."
        )
    return facts


def _stand_in(reference: str, facts: ModelFacts) -> ModelRecord:
    # A fingerprint that no model has: its steps are to do.
    resolved = resolve(reference)
    return ModelRecord(
        reference=resolved.text,
        name=resolved.name,
        revision=resolved.revision,
        fingerprint=f"unknown:{resolved.text}@{resolved.revision or ''}",
        family=facts.family or "",
        hidden_size=facts.hidden_size or 0,
        n_blocks=facts.n_blocks or 0,
        licence=None,
        dtype="float32",
    )


def _fetch(references: Sequence[str]) -> dict[str, int | None]:
    resolved = {reference: resolve(reference) for reference in references}
    missing = {reference: r for reference, r in resolved.items() if r.folder() is None and r.kind != "gguf"}
    return {reference: r.entry.size if r.entry else None for reference, r in missing.items()}


def _loading(facts: ModelFacts, spec: PipelineSpec, *, first: bool) -> float:
    weights = _stored_bytes(spec) * (facts.parameters or block_parameters(facts))
    return weights / _LOAD_BYTES_PER_SECOND + (_IMPORT_SECONDS if first else 0.0)


def _stored_bytes(spec: PipelineSpec) -> int:
    # a GPU keeps what the checkpoint has, which is two bytes for all but the oldest models
    return 4 if device_kind(spec.compute.device) == "cpu" else 2


def _memory(step: Step, facts: dict[str, ModelFacts], loaded: list[str], spec: PipelineSpec) -> int:
    per_weight = _stored_bytes(spec)
    if per_weight == 4 and precision_here(spec.compute) == "bfloat16":
        per_weight += 2  # products keep a second, half-sized copy of the weights
    total = _PROCESS_BYTES
    total += sum(per_weight * (facts[side].parameters or block_parameters(facts[side])) for side in loaded)
    if step.cost.model:
        model = facts[step.cost.model]
        total += 4 * _ACTIVATIONS * spec.compute.batch_tokens * (model.hidden_size or 0)
        rows = min(step.cost.head_rows, _HEAD_ROWS)
        total += 2 * 4 * rows * (model.vocab_size or 0)
    return round(total)
