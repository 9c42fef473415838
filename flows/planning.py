"""What a run would do and cost, without running or fetching anything.

Time is floating-point operations divided by what this machine reaches on matrix products of the model's size,
times a constant for how far a forward pass stays behind that. Memory is weights, the activations of one batch
and its logits. Both are estimates: expect the right order, not the second.
"""

import time
from dataclasses import asdict, dataclass
from typing import Any

from contrans.errors import ModelError
from contrans.models import ModelRecord, resolve
from contrans.models.facts import ModelFacts
from flows.pool import device_kind, known_record
from flows.runs import steps_folder
from flows.spec import PipelineSpec
from flows.steps import Step, build_steps
from flows.store import Store
from flows.study import SIDES

EFFICIENCY = 0.62
"""Speed of forward passes against that of bare matrix products, fitted on the captures of the quickstart."""
_HEAD_SHARE = 2.5  # a row's softmax over the vocabulary and its moves to and from memory, over its product alone
_MEASURE_SECONDS = 0.4
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
        seconds: Predicted time, 0 where done.
        memory: Predicted memory of the process in bytes, 0 where done.
    """

    name: str
    cached: bool
    model: str | None
    texts: int
    tokens: int
    seconds: float
    memory: int


@dataclass(frozen=True)
class Plan:
    """What a run would do.

    Attributes:
        steps: All steps in order.
        fetch: Bytes to download for each model that is not on this machine; None where its size is unknown.
        seconds: Predicted time, downloads left out.
        memory: Predicted peak in bytes.
        gflops: Measured speed by side, in 10⁹ operations a second; empty if nothing is to be computed.
    """

    steps: tuple[PlannedStep, ...]
    fetch: dict[str, int | None]
    seconds: float
    memory: int
    gflops: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Gives the plan as plain JSON, with the attributes' names."""
        return asdict(self) | {"steps": [asdict(step) for step in self.steps]}


def plan(spec: PipelineSpec) -> Plan:
    """Plans a pipeline.

    Raises:
        ContransError: The spec's models, texts or blocks cannot be used, or a model's sizes are not known.
    """
    references = {"source": spec.source, "target": spec.target}
    facts = {side: _facts(reference) for side, reference in references.items()}
    records = {
        side: known_record(reference, spec.compute.device) or _stand_in(reference, facts[side])
        for side, reference in references.items()
    }
    store = Store(steps_folder())
    steps = build_steps(spec, records["source"], records["target"])
    todo = [step for step in steps if not store.has(step.key)]
    sides = [side for side in SIDES if any(step.cost.model == side for step in todo)]
    precision, gflops = "float32", {}
    if sides:
        precision, gflops = _measured({side: facts[side] for side in sides}, spec)
    planned: list[PlannedStep] = []
    loaded: list[str] = []
    for step in steps:
        cost, seconds, memory = step.cost, 0.0, 0
        if step in todo:
            seconds = _OTHER_SECONDS
            if cost.model:
                seconds = flops(step, facts[cost.model]) / (EFFICIENCY * 1e9 * gflops[cost.model])
                if cost.model not in loaded:
                    seconds += _loading(facts[cost.model], first=not loaded)
                    loaded.append(cost.model)
            memory = _memory(step, facts, loaded, spec, precision)
        planned.append(PlannedStep(step.name, step not in todo, cost.model, cost.texts, cost.tokens, seconds, memory))
    return Plan(
        steps=tuple(planned),
        fetch=_fetch(references),
        seconds=sum(step.seconds for step in planned),
        memory=max((step.memory for step in planned), default=0),
        gflops=gflops,
    )


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
        fingerprint=f"unknown:{resolved.text}",
        family=facts.family or "",
        hidden_size=facts.hidden_size or 0,
        n_blocks=facts.n_blocks or 0,
        licence=None,
        dtype="float32",
    )


def _fetch(references: dict[str, str]) -> dict[str, int | None]:
    resolved = {reference: resolve(reference) for reference in dict.fromkeys(references.values())}
    missing = {reference: r for reference, r in resolved.items() if r.folder() is None and r.kind != "gguf"}
    return {reference: r.entry.size if r.entry else None for reference, r in missing.items()}


def _loading(facts: ModelFacts, *, first: bool) -> float:
    weights = 4 * (facts.parameters or block_parameters(facts))
    return weights / _LOAD_BYTES_PER_SECOND + (_IMPORT_SECONDS if first else 0.0)


def _memory(step: Step, facts: dict[str, ModelFacts], loaded: list[str], spec: PipelineSpec, precision: str) -> int:
    # bf16 products keep a second, half-sized copy of the weights
    per_weight = 6 if precision == "bfloat16" else 4
    total = _PROCESS_BYTES
    total += sum(per_weight * (facts[side].parameters or block_parameters(facts[side])) for side in loaded)
    if step.cost.model:
        model = facts[step.cost.model]
        total += 4 * _ACTIVATIONS * spec.compute.batch_tokens * (model.hidden_size or 0)
        rows = min(step.cost.head_rows, _HEAD_ROWS)
        total += 2 * 4 * rows * (model.vocab_size or 0)
    return round(total)


def _measured(facts: dict[str, ModelFacts], spec: PipelineSpec) -> tuple[str, dict[str, float]]:
    """Precision that would be used, and 10⁹ operations a second on products of each model's shapes."""
    import torch

    from contrans.states.precision import resolve_precision

    device = torch.device(device_kind(spec.compute.device))
    precision = resolve_precision(spec.compute.precision, device)
    dtype = getattr(torch, precision)
    rates: dict[str, float] = {}
    for side, known in facts.items():
        width, rows = known.hidden_size or 1, min(spec.compute.batch_tokens, 2048)
        a = torch.randn(rows, width, device=device, dtype=dtype)
        b = torch.randn(width, 4 * width, device=device, dtype=dtype)

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            # reading one value waits for a GPU to finish
            (a @ b)[0, 0].item()

        product()
        start, done = time.perf_counter(), 0
        while time.perf_counter() - start < _MEASURE_SECONDS:
            product()
            done += 1
        seconds = time.perf_counter() - start
        rates[side] = done * 2.0 * rows * width * 4 * width / seconds / 1e9
    return precision, rates
