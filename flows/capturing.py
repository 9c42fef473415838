"""The step "capture": states of texts at one position, of which only those that are not there yet are made."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from flows.pool import device_kind, precision_here
from flows.state_cache import STATES, Reading, index_of, limit, locate, recall
from flows.step import Cost, StepContext, tokens_of
from flows.store import Store

if TYPE_CHECKING:
    import torch

    from contrans.states.capturing import CapturedStates
    from flows.spec import Compute

FACTS = "facts.json"


@dataclass(frozen=True)
class TextCapture:
    """Texts whose states are wanted.

    Attributes:
        side: "source" or "target", the model that reads them.
        model: its fingerprint.
        texts: what it reads.
        answers: the answer that ends each text, "" where there is none.
        position: the token that is read.
        blocks: whose states are wanted.
        share: share of the model's blocks that run for them.
        compute: how they are computed.
        version: of the code that captures.
    """

    side: str
    model: str
    texts: Sequence[str]
    answers: Sequence[str]
    position: str
    blocks: Sequence[int]
    share: float
    compute: Compute
    version: int

    @property
    def reading(self) -> Reading:
        """What decides their states besides the texts."""
        device = device_kind(self.compute.device)
        return Reading(self.model, self.position, precision_here(self.compute), device, self.version)

    def rows(self) -> list[str]:
        """The hash that each text is found by."""
        reading = self.reading
        return [reading.row(text, answer) for text, answer in zip(self.texts, self.answers, strict=True)]

    @property
    def cost(self) -> Cost:
        """What it costs to capture all of them."""
        return self._cost(self.texts)

    def left(self, store: Store) -> Cost:
        """What it costs to capture those whose states no output of a store lists."""
        rows = self.rows()
        found = {row for places in locate(store, self.reading, rows, self.blocks).values() for row in places}
        return self._cost([self.texts[at] for at in _first(rows, found)])

    def run(self, context: StepContext) -> dict[str, bytes]:
        """States of all texts and blocks, from the store or the model: `states.safetensors`, `BLOCK` [n, d] each.

        `facts.json` has the tokens that went through the model and the texts that did not need to.
        """
        import torch
        from safetensors.torch import save

        rows, reading = self.rows(), self.reading
        kept, states = recall(context.store, reading, rows, self.blocks)
        new = _first(rows, set(kept))
        n_tokens = 0
        if new:
            captured = self._captured(context, new)
            n_tokens = captured.n_tokens
            states = {b: torch.cat([*([states[b]] if kept else []), captured[b]]) for b in self.blocks}
        place = {row: i for i, row in enumerate([*kept, *(rows[at] for at in new)])}
        if list(place) != rows:
            order = torch.tensor([place[row] for row in rows])
            states = {b: of_block[order] for b, of_block in states.items()}
        data = save({str(b): of_block for b, of_block in states.items()})
        facts = {"n_tokens": n_tokens, "n_reused": len(rows) - len(new), "precision": reading.precision}
        keep = {step.key for step in context.steps.values()}
        context.store.make_room(STATES, limit(), coming=len(data), keep=keep)
        return {
            STATES: data,
            reading.index: index_of(rows, self.blocks, data),
            FACTS: json.dumps(facts).encode(),
        }

    def _cost(self, texts: Sequence[str]) -> Cost:
        return Cost(self.side, len(texts), tokens_of(texts), self.share)

    def _captured(self, context: StepContext, which: Sequence[int]) -> CapturedStates:
        from contrans.concepts.positions import TokenPosition, token_spans
        from contrans.states.capturing import capture
        from contrans.states.encode import encode

        model = context.models.get(self.side)
        texts = [self.texts[at] for at in which]
        spans = None
        if self.position != "last":
            answers = [self.answers[at] for at in which]
            spans = token_spans(TokenPosition.parse(self.position), encode(model, texts), texts, answers)
        return capture(
            model,
            texts,
            blocks=self.blocks,
            spans=spans,
            precision=self.reading.precision,
            batch_tokens=self.compute.batch_tokens,
            progress=context.progress,
        )


def read_states(context: StepContext, step: str, block: int) -> torch.Tensor:
    """States [n, d] of a block that a capture step left.

    Raises:
        ContransError: the step has not been done, or its output was taken away or damaged.
    """
    from safetensors import SafetensorError, safe_open

    key = context.steps[step].key
    try:
        with safe_open(context.store.path(key) / STATES, framework="pt") as file:
            states = file.get_tensor(str(block))
    except (OSError, SafetensorError) as error:
        raise context.store.unreadable(key, str(error)) from error
    context.store.used(key)
    return states


def _first(rows: Sequence[str], known: set[str]) -> list[int]:
    """Where each row that is not known stands for the first time."""
    first: dict[str, int] = {}
    for at, row in enumerate(rows):
        if row not in known:
            first.setdefault(row, at)
    return list(first.values())
