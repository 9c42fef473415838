"""Moments of all tokens that two models share, text by text, in memory that does not grow with the corpus."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from contrans.errors import FitError
from contrans.maps.corpora import Corpus
from contrans.maps.paired import held_out_documents, spectrum
from contrans.models import Model
from contrans.states.capturing import Progress, iter_states
from contrans.states.moments import Moments
from contrans.states.pairing import pair_by_offset

_CHUNK = 128
"""Texts whose states are held at once."""
_SINK = 10.0
"""A token whose state is this many medians long is an attention sink, not text."""


@dataclass
class TokenMoments:
    """What is kept of the paired tokens of one block pair.

    Attributes:
        train: moments of the documents that a map is fitted on.
        held: moments of the documents that λ is chosen on.
        norms: median norms of the target's states, one per chunk of texts.
    """

    train: Moments
    held: Moments
    norms: list[float] = field(default_factory=list)
    spectra: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    @property
    def whole(self) -> Moments:
        """Moments of all documents."""
        return self.train.merge(self.held)

    def spectrum(self, of: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues and eigenvectors of the source covariance of "train" or "whole"; computed once."""
        if of not in self.spectra:
            self.spectra[of] = spectrum(self.train if of == "train" else self.whole)
        return self.spectra[of]

    @property
    def target_norm(self) -> float:
        """Median over chunks of the median norm of the target's states."""
        return float(torch.tensor(self.norms).median())


def stream_moments(
    source: Model,
    target: Model,
    texts: Corpus,
    *,
    source_blocks: Sequence[int],
    target_blocks: Sequence[int],
    held_out: float = 0.2,
    seed: int = 0,
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> dict[tuple[int, int], TokenMoments]:
    """Moments of every block pair over all tokens that end at the same character in both models.

    Position 0, special tokens and sinks (states longer than 10 medians in either model) are left out.

    Args:
        source: the model that concepts come from.
        target: the model that they go to.
        texts: what both read.
        source_blocks: blocks of the source.
        target_blocks: blocks of the target.
        held_out: share of the documents that λ is chosen on.
        seed: of that choice.
        precision: "float32" or "bfloat16" products.
        batch_tokens: most tokens in one batch.
        progress: called with the number of tokens after every batch.

    Raises:
        FitError: fewer than five documents, or no token ends where another does.
        BlockError, TextError, StateError: as `capture` raises them.
    """
    aside = held_out_documents(texts.documents, held_out, seed)
    shape = (source.hidden_size, target.hidden_size)
    found = {
        (ls, lt): TokenMoments(Moments.empty(*shape), Moments.empty(*shape))
        for ls in source_blocks
        for lt in target_blocks
    }

    def read(model: Model, lines: Sequence[str], blocks: Sequence[int]) -> tuple[list[dict[int, torch.Tensor]], list]:
        states: list[dict[int, torch.Tensor]] = [{} for _ in lines]
        ends: list[list[int]] = [[] for _ in lines]
        batches = iter_states(
            model, lines, blocks=blocks, precision=precision, batch_tokens=batch_tokens, progress=progress
        )
        for batch in batches:
            for row, i in enumerate(batch.indices):
                n = int(batch.lengths[row])
                states[i] = {b: h[row, :n].cpu() for b, h in batch.hidden.items()}
                ends[i] = batch.ends[row]
        return states, ends

    for start in range(0, len(texts), _CHUNK):
        lines = texts.texts[start : start + _CHUNK]
        xs, x_ends = read(source, lines, source_blocks)
        ys, y_ends = read(target, lines, target_blocks)
        pairs = [pair_by_offset(a, b) for a, b in zip(x_ends, y_ends, strict=True)]
        documents = texts.documents[start : start + _CHUNK]
        is_held = torch.tensor([d in aside for d, p in zip(documents, pairs, strict=True) for _ in p.source]).bool()
        if not len(is_held):
            continue
        x_of = {b: torch.cat([x[b][p.source] for x, p in zip(xs, pairs, strict=True)]) for b in source_blocks}
        y_of = {b: torch.cat([y[b][p.target] for y, p in zip(ys, pairs, strict=True)]) for b in target_blocks}
        for (ls, lt), kept in found.items():
            x, y = x_of[ls], y_of[lt]
            keep = _no_sink(x) & _no_sink(y)
            kept.norms.append(float(y[keep].norm(dim=1).median()))
            kept.train = kept.train.update(x[keep & ~is_held], y[keep & ~is_held])
            kept.held = kept.held.update(x[keep & is_held], y[keep & is_held])
    for kept in found.values():
        if kept.train.n == 0 or kept.held.n == 0:
            raise FitError(
                f"No tokens of {source.name} and {target.name} end at the same characters of these texts; use "
                f"tokens='last', or give more texts."
            )
    return found


def _no_sink(states: torch.Tensor) -> torch.Tensor:
    norms = states.norm(dim=1)
    return norms <= _SINK * norms.median()
