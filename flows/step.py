"""What a step of a pipeline is: its key, its cost, its work and what that may use."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from flows.store import Store

if TYPE_CHECKING:
    from contrans.models import Model, ModelRecord
    from flows.spec import PipelineSpec

_CHARACTERS_PER_TOKEN = 4.3
_DISPOSABLE = ("capture",)
"""Kinds of steps whose output may be evicted: it is large, and no result of a pipeline."""


@dataclass(frozen=True)
class Cost:
    """What a step asks of the machine.

    Attributes:
        model: "source", "target" or None.
        texts: texts that go through the model.
        tokens: their tokens, estimated from their characters.
        share: share of the model's blocks that run for each token.
        head_rows: rows that go through the language-model head.
        beside: the same for the other model, where a step runs both.
        written: of the tokens, those that the model writes one after another; each reaches the head.
        passes: forward passes of one written token each, for a batch of texts at once.
    """

    model: str | None = None
    texts: int = 0
    tokens: int = 0
    share: float = 0.0
    head_rows: int = 0
    beside: Cost | None = None
    written: int = 0
    passes: int = 0

    @property
    def by_model(self) -> tuple[Cost, ...]:
        """The cost of each model that runs, one after another."""
        return (self,) if self.beside is None else (self, *self.beside.by_model)


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
        kind: a key of `flows.steps.STEP_VERSIONS`.
        key: SHA-256 over all that decides the output.
        inputs: names of the steps it needs.
        cost: what it asks of the machine.
        run: makes the output, a file content per file name.
        left: what it still asks of the machine where a store has a part of it; the whole cost if None.
    """

    name: str
    kind: str
    key: str
    inputs: tuple[str, ...]
    cost: Cost
    run: Callable[[StepContext], dict[str, bytes]]
    left: Callable[[Store], Cost] | None = None

    def cost_left(self, store: Store) -> Cost:
        """What it asks of the machine, beside what is in a store already."""
        return self.cost if self.left is None else self.left(store)


def spared(steps: Sequence[Step], store: Store) -> set[str]:
    """Names of steps whose output was evicted and is not needed again, since all that is made from it is there."""
    gone = [step for step in steps if step.kind in _DISPOSABLE and not store.has(step.key)]
    wanting = {name for step in steps if not store.has(step.key) for name in step.inputs}
    return {step.name for step in gone if step.name not in wanting}


def tokens_of(texts: Sequence[str]) -> int:
    """Tokens of some texts, estimated from their characters."""
    return round(sum(map(len, texts)) / _CHARACTERS_PER_TOKEN)


def writing(texts: int, read: int, tokens: int, *, times: int, at_once: int) -> Cost:
    """What it asks of the target to continue texts; all its blocks run for what it reads and what it writes.

    Args:
        texts: how many are continued.
        read: tokens of all of them.
        tokens: most tokens that are written after each.
        times: how often this is done, under another shift each time.
        at_once: texts in one batch.
    """
    written = times * texts * tokens
    passes = times * tokens * -(-texts // at_once)
    return Cost("target", times * texts, times * read + written, 1.0, written, written=written, passes=passes)
