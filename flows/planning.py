"""What a run would do and cost, without running or fetching anything.

Time is operations divided by what the machine reaches on blocks and heads of the models' shapes, measured in seconds on
stand-ins with the code of a run (`flows.speed`), or taken from published peaks for a GPU that is not here
(`flows.hardware`). Memory is weights, the activations of one batch, logits and states that are kept (`flows.costs`).
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from contrans.models import ModelRecord, resolve
from flows.costs import Sizes, block_flops, head_flops, map_flops, memory, sizes, states_memory
from flows.hardware import Gpu
from flows.pool import device_kind, known_record, precision_here
from flows.runs import steps_folder
from flows.spec import PipelineSpec
from flows.speed import Rates, Speeds
from flows.step import Cost, Step, spared
from flows.steps import build_steps
from flows.store import Store
from flows.study import SIDES, study

_START_SECONDS = 7.0  # torch, transformers and the engine
_LOAD_SECONDS = 1.0  # of a model beside its weights
_TOKENIZER_SECONDS = 4e-6  # for each token of the vocabulary
_OTHER_SECONDS = 0.2  # a step that runs no model
_MAP_FLOPS = 1.5e10  # operations a second of a fit in float64
_PROCESS_BYTES = 1.0e9  # Python with torch, transformers, Prefect and MLflow


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
        memory: Predicted memory of the process in bytes (on a GPU: of the GPU), 0 where done.
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
        seconds: Predicted time of the whole run, downloads left out.
        memory: Predicted peak in bytes.
        gflops: Speed of blocks by model, in 10⁹ operations a second; empty if nothing is to be computed.
        machine: What it was planned for: "here" or a GPU's title.
        gpus: GPUs that hold the models and their batches together; 0 for this machine.
        gpu_hours: Predicted time of all of them, which a plain device map uses in turn; 0 for this machine.
    """

    steps: tuple[PlannedStep, ...]
    fetch: dict[str, int | None]
    flops: float
    seconds: float
    memory: int
    gflops: dict[str, float]
    machine: str = "here"
    gpus: int = 0
    gpu_hours: float = 0.0

    def as_json(self) -> dict[str, Any]:
        """Gives the plan as plain JSON, with the attributes' names."""
        return asdict(self) | {"steps": [asdict(step) | {"points": list(step.points)} for step in self.steps]}


def plan(spec: PipelineSpec, *, on: Gpu | None = None) -> Plan:
    """Plans a pipeline.

    Args:
        spec: The pipeline.
        on: A GPU to plan for; None for this machine, which is measured for some seconds.

    Raises:
        ContransError: The spec's models, texts or blocks cannot be used, or a model's sizes are not known.
    """
    return plan_all([spec], on=on)


def plan_all(specs: Sequence[PipelineSpec], *, on: Gpu | None = None) -> Plan:
    """Plans the pipelines of a sweep, one after another: what they share is done once.

    Args:
        specs: One or more specs.
        on: A GPU to plan for; None for this machine, which is measured for some seconds.

    Raises:
        ContransError: As for `plan`.
    """
    store, speeds, models = Store(steps_folder()), Speeds(), _Models()
    planned: dict[str, PlannedStep] = {}
    references: dict[str, None] = {}
    for number, spec in enumerate(specs):
        references |= dict.fromkeys((spec.source, spec.target))
        costing = _Costing(spec, on, speeds, models)
        steps = build_steps(spec, *costing.records)
        needless = spared(steps, store)
        for step in steps:
            if step.key in planned:
                before = planned[step.key]
                points = tuple(dict.fromkeys((*before.points, number)))
                planned[step.key] = replace(before, points=points)
            else:
                planned[step.key] = costing.planned(
                    step, step.cost_left(store), done=store.has(step.key) or step.name in needless, point=number
                )
    every = tuple(planned.values())
    to_do = [step for step in every if not step.cached]
    seconds = sum(step.seconds for step in to_do) + (_START_SECONDS if to_do else 0.0)
    peak = max((step.memory for step in every), default=0)
    gpus = on.needed(peak) if on is not None else 0
    rates = dict.fromkeys(references, on.rates) if on is not None else speeds.rates
    return Plan(
        steps=every,
        fetch=_fetch(list(references)),
        flops=sum(step.flops for step in to_do),
        seconds=seconds,
        memory=peak,
        gflops={reference: rate.capture / 1e9 for reference, rate in rates.items()},
        machine="here" if on is None else on.title,
        gpus=gpus,
        gpu_hours=gpus * seconds / 3600,
    )


class _Models:
    """What the files of models say, asked once for all cells of a matrix."""

    def __init__(self) -> None:
        self._sizes: dict[str, Sizes] = {}
        self._records: dict[tuple[str, str], ModelRecord] = {}

    def sizes(self, reference: str) -> Sizes:
        if reference not in self._sizes:
            self._sizes[reference] = sizes(reference)
        return self._sizes[reference]

    def record(self, reference: str, device: str) -> ModelRecord:
        if (reference, device) not in self._records:
            known = known_record(reference, device) or _stand_in(reference, self.sizes(reference))
            self._records[reference, device] = known
        return self._records[reference, device]


class _Costing:
    """Costs of the steps of one spec; a model that a step loads joins those that are loaded."""

    def __init__(self, spec: PipelineSpec, on: Gpu | None, speeds: Speeds, models: _Models) -> None:
        self.spec, self.on, self.speeds = spec, on, speeds
        self.references: dict[str, str] = dict(zip(SIDES, (spec.source, spec.target), strict=True))
        self.sizes = {side: models.sizes(reference) for side, reference in self.references.items()}
        self.records = [models.record(reference, spec.compute.device) for reference in self.references.values()]
        self.study = study(spec, *self.records)
        self.loaded: dict[str, Sizes] = {}

    def planned(self, step: Step, cost: Cost, *, done: bool, point: int) -> PlannedStep:
        parts = [(part, self.sizes[part.model]) for part in cost.by_model if part.model]
        work = sum((block_flops(part, model) + head_flops(part, model) for part, model in parts), 0.0)
        seconds, held = (0.0, 0.0) if done else (self._seconds(step, cost), self._memory(step, cost))
        texts, tokens = (sum(getattr(part, name) for part in cost.by_model) for name in ("texts", "tokens"))
        return PlannedStep(step.name, done, cost.model, texts, tokens, work, seconds, round(held), (point,))

    def _seconds(self, step: Step, cost: Cost) -> float:
        from flows.choosing import n_tried
        from flows.fitting import maps_of

        widths = (self.sizes["source"].width, self.sizes["target"].width)
        fits = {"choose": n_tried(self.study), "map": len(maps_of(self.study))}.get(step.kind, 0)
        seconds = _OTHER_SECONDS + fits * map_flops(len(self.study.texts), *widths) / _MAP_FLOPS
        for part in cost.by_model:
            if part.model is None or not part.tokens:
                continue
            model, rates = self.sizes[part.model], self._rates(part.model, writes=part.passes > 0)
            seconds += rates.seconds(part, model)
            if part.model not in self.loaded:
                seconds += _LOAD_SECONDS + _TOKENIZER_SECONDS * model.vocabulary
                seconds += self._weight_bytes * model.parameters / rates.loading
        return seconds

    def _memory(self, step: Step, cost: Cost) -> float:
        self.loaded |= {part.model: self.sizes[part.model] for part in cost.by_model if part.model}
        held = memory(
            cost,
            self.loaded,
            per_weight=self._weight_bytes + self._copy_bytes,
            batch_tokens=self.spec.compute.batch_tokens,
            generic_texts=self.spec.validate_.generic_texts,
        )
        if self.on is not None:
            return held
        if step.kind == "choose":
            blocks = {side: len(self.study.blocks(side)) for side in SIDES}
            held += states_memory(len(self.study.texts), blocks, {s: m.width for s, m in self.sizes.items()})
        return held + _PROCESS_BYTES

    def _rates(self, side: str, *, writes: bool) -> Rates:
        if self.on is not None:
            return self.on.rates
        return self.speeds.of(self.references[side], self.sizes[side], self.spec.compute, writes=writes)

    @property
    def _weight_bytes(self) -> int:
        # a GPU keeps what the checkpoint has, which is two bytes for all but the oldest models
        return 4 if self.on is None and device_kind(self.spec.compute.device) == "cpu" else 2

    @property
    def _copy_bytes(self) -> int:
        # products in bf16 keep a second, half-sized copy of float32 weights
        return 2 if self._weight_bytes == 4 and precision_here(self.spec.compute) == "bfloat16" else 0


def _stand_in(reference: str, model: Sizes) -> ModelRecord:
    # A fingerprint that no model has: its steps are to do.
    resolved = resolve(reference)
    facts = resolved.facts()
    return ModelRecord(
        reference=resolved.text,
        name=resolved.name,
        revision=resolved.revision,
        fingerprint=f"unknown:{resolved.text}@{resolved.revision or ''}",
        family=(facts.family if facts else None) or "",
        hidden_size=model.width,
        n_blocks=model.n_blocks,
        licence=None,
        dtype="float32",
    )


def _fetch(references: Sequence[str]) -> dict[str, int | None]:
    resolved = {reference: resolve(reference) for reference in references}
    missing = {reference: r for reference, r in resolved.items() if r.folder() is None and r.kind != "gguf"}
    return {reference: r.entry.size if r.entry else None for reference, r in missing.items()}
