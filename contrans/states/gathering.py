"""Which tokens of each text are read, and how they are taken out of a block's output."""

from collections.abc import Sequence

import torch

from contrans.errors import TextError
from contrans.models import Model
from contrans.states.encode import Encoded
from contrans.states.reading import to_device


def token_ranges(
    model: Model,
    encoded: Encoded,
    positions: Sequence[int] | None,
    spans: Sequence[tuple[int, int]] | None,
    *,
    first: int = 0,
) -> list[tuple[int, int]]:
    """The range (start, stop) of tokens that is read of each text.

    Args:
        model: the model, to name it in errors.
        encoded: the texts' tokens.
        positions: of each text the token to read, as `capture` takes it; unused with spans.
        spans: of each text a range of tokens, or None.
        first: number of the first text, to name it in errors.

    Raises:
        TextError: a text has no such tokens.
    """
    ranges = []
    for k, (row, content) in enumerate(zip(encoded.ids, encoded.content, strict=True)):
        said = f"Text {first + k} has {len(row)} tokens in {model.name}, so"
        if spans is not None:
            start, stop = spans[k]
            if not 0 <= start < stop <= len(row):
                raise TextError(f"{said} no span from {start} to {stop}.")
            ranges.append((start, stop))
        elif positions is not None:
            found = positions[k] if positions[k] >= 0 else content[1] + positions[k]
            if not 0 <= found < len(row):
                raise TextError(f"{said} none at position {positions[k]}.")
            ranges.append((found, found + 1))
    return ranges


class Gather:
    """Takes of each row of a tensor [batch, width, d] the mean over a range of tokens, without a wait for the device.

    Args:
        ranges: of each row the range (start, stop) of its tokens, none of them empty.
    """

    def __init__(self, ranges: Sequence[tuple[int, int]]) -> None:
        starts, stops = torch.tensor(ranges).T
        self._longest = int((stops - starts).max())
        tokens = starts[:, None] + torch.arange(self._longest)
        self._inside = tokens < stops[:, None]
        # past a range its last token stands in, and is not counted
        self._tokens = torch.minimum(tokens, stops[:, None] - 1)
        self._on: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        """The means [batch, d] in float32, on the tensor's device."""
        if hidden.device not in self._on:
            self._on[hidden.device] = to_device(self._tokens, hidden.device), to_device(self._inside, hidden.device)
        tokens, inside = self._on[hidden.device]
        rows = torch.arange(len(tokens), device=hidden.device)
        if self._longest == 1:
            return hidden[rows, tokens[:, 0]].float()
        picked = hidden[rows[:, None], tokens].float()
        # a bf16 or fp16 sum would lose what a mean over many tokens is for
        return torch.where(inside[..., None], picked, 0.0).sum(1) / inside.sum(1, keepdim=True)


class RowStore:
    """States of one part of a corpus on their way to the host: block by block, batch by batch, in running order.

    On a GPU they are copied into pinned memory without a wait; `drain` waits once.

    Args:
        blocks: numbers of the blocks.
        n: texts in the part.
        width: of the residual stream.
        pinned: whether copies come from a GPU.
    """

    def __init__(self, blocks: Sequence[int], n: int, width: int, *, pinned: bool) -> None:
        self._rows = {b: torch.empty((n, width), pin_memory=pinned) for b in blocks}
        self._finite: dict[int, torch.Tensor] = {}
        self._order: list[int] = []
        self._devices: set[torch.device] = set()

    def begin(self, numbers: Sequence[int]) -> None:
        """The next rows are those of the texts with these numbers."""
        self._order.extend(numbers)

    def put(self, block: int, rows: torch.Tensor) -> None:
        """States [batch, d] of the texts that `begin` named last."""
        end = len(self._order)
        self._rows[block][end - len(rows) : end].copy_(rows, non_blocking=True)
        finite = torch.isfinite(rows).all()
        self._finite[block] = self._finite[block] & finite if block in self._finite else finite
        self._devices.add(rows.device)

    def drain(self, into: dict[int, torch.Tensor], *, first: int) -> list[int]:
        """Waits for the copies, puts the rows in the texts' order and starts anew.

        Args:
            into: of each block the tensor [texts, d] that they go to.
            first: number of the first text of the part.

        Returns:
            The blocks that hold a state that is not finite.
        """
        for device in self._devices:
            if device.type == "cuda":
                torch.cuda.synchronize(device)
        at = torch.tensor(self._order) + first
        for block, rows in self._rows.items():
            into[block][at] = rows[: len(at)]
        broken = [b for b, finite in sorted(self._finite.items()) if not bool(finite)]
        self._order, self._finite = [], {}
        return broken
