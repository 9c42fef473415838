"""Moments of all tokens that two models share, text by text, in memory that does not grow with the corpus."""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from contrans.errors import FitError, StateError
from contrans.maps.corpora import Corpus
from contrans.maps.splits import CENTRES, SourceCache, SplitMoments, held_out_documents
from contrans.models import Model
from contrans.states.by_kind import BLOCK_ROWS, Centred, MomentsByKind, check_share
from contrans.states.capturing import Progress, iter_states
from contrans.states.pairing import (
    PairedPositions,
    Pairing,
    match_rate_note,
    not_sinks,
    pair_positions,
    pick_evenly,
    same_vocabulary,
    start_of,
)

log = logging.getLogger(__name__)

_CHUNK = 128
"""Texts whose states are held at once."""


@dataclass
class TokenMoments(SplitMoments):
    """What is kept of the paired tokens of one block pair, or of one source block and several target blocks.

    Attributes:
        fitted_on: moments of the documents that a map is fitted on, by kind of text.
        held_out: moments of the documents that λ is chosen on, by kind of text.
        center: "all" or "kind", as in `contrans.maps.paired.PairedStates`.
        info: how the tokens were paired, as JSON: `pairing`, `match_rate`, `per_document`.
        norms: per target block the median norms of its states, one per chunk of texts.
        spectra: what depends on the source side alone.
    """

    fitted_on: MomentsByKind
    held_out: MomentsByKind
    center: str
    info: Mapping[str, str | float | None]
    norms: dict[int, list[float]] = field(default_factory=dict)
    spectra: SourceCache = field(default_factory=dict, repr=False)

    def update(self, kinds: Sequence[str], is_held_out: torch.Tensor, x: torch.Tensor, *ys: torch.Tensor) -> None:
        """Adds paired tokens that are no sink in any of the blocks.

        Args:
            kinds: of each token's text [n].
            is_held_out: bool [n], whether its document is.
            x: source states [n, ds].
            ys: states [n, d] of each target block, whose columns stand side by side.
        """
        lengths = [y.norm(dim=1) for y in ys]
        keep = not_sinks(x.norm(dim=1))
        for length in lengths:
            keep = keep & not_sinks(length)
        if bool(keep.any()):
            for number, length in enumerate(lengths):
                self.norms.setdefault(number, []).append(float(length[keep].median()))
        for part, rows in ((self.fitted_on, keep & ~is_held_out), (self.held_out, keep & is_held_out)):
            for at in rows.nonzero()[:, 0].split(BLOCK_ROWS):
                these = [str(kinds[i]) for i in at.tolist()]
                targets = [Centred.of(these, y[at], part.share) for y in ys]
                part.add(Centred.of(these, x[at], part.share), Centred.beside(targets))

    def of_target(self, number: int, start: int, stop: int) -> "TokenMoments":
        """Those of one target block, by its number and columns; what depends on the source alone stays shared."""
        parts = self.fitted_on.columns(start, stop), self.held_out.columns(start, stop)
        return TokenMoments(*parts, self.center, self.info, {0: self.norms.get(number, [])}, self.spectra)

    def parts(self) -> tuple[MomentsByKind, MomentsByKind]:
        """The rows fitted on and those held out, by kind."""
        return self.fitted_on, self.held_out

    @cached_property
    def spreads(self) -> tuple[float, float]:
        """√tr Cov of the source's and of the target's states, every token counted once and the kinds' own means in."""
        plain = self.fitted_on.merge(self.held_out).together(weighed=False)
        return float((plain.sxx.trace() / plain.n).sqrt()), (plain.syy / plain.n) ** 0.5

    @property
    def target_norm(self) -> float:
        """Median over chunks of the median norm of the target's states."""
        return float(torch.tensor(self.norms[0]).median())


def stream_moments(
    source: Model,
    target: Model,
    texts: Corpus,
    *,
    source_blocks: Sequence[int],
    target_blocks: Sequence[int],
    center: str = "all",
    share: Mapping[str, float] = {},
    per_document: int | None = None,
    held_out: float = 0.2,
    seed: int = 0,
    precision: str = "float32",
    batch_tokens: int = 2048,
    progress: Progress | None = None,
) -> dict[tuple[int, int], TokenMoments]:
    """Moments of every block pair over all tokens that stand at the same place in both models.

    Tokens pair as `contrans.states.pairing.pair_positions` says; sinks (states longer than 10 medians at the source
    block or at any of the target blocks) are left out, so that all maps from a source block share their rows. The
    tokenizers alone read all texts first, to count the pairs and to warn where they are few.

    Args:
        source: the model that concepts come from.
        target: the model that they go to.
        texts: what both read.
        source_blocks: blocks of the source.
        target_blocks: blocks of the target.
        center: "all" centres all tokens together, "kind" those of each kind of text on a mean of their own.
        share: share of the fit's weight that the tokens of a kind get; the others divide the rest by their tokens.
        per_document: most pairs of one document, in equal steps through its texts; every pair if None.
        held_out: share of the documents that λ is chosen on.
        seed: of that choice, and of where in the first step to begin.
        precision: "float32" or "bfloat16" products.
        batch_tokens: most tokens in one batch.
        progress: called with the number of tokens after every batch.

    Raises:
        FitError: fewer than five documents, no token ends where another does, or an unknown centring or share.
        ModelError: the tokenizers differ, and one of them knows no character offsets.
        BlockError, TextError, StateError: as `capture` raises them.
    """
    if center not in CENTRES:
        raise FitError(f"center must be one of {', '.join(CENTRES)}, not {center!r}.")
    if per_document is not None and per_document < 1:
        raise FitError(f"per_document must be at least 1, not {per_document}; leave it out to take every pair.")
    check_share(texts.kinds, share)
    aside = held_out_documents(texts.documents, held_out, seed)
    shared = _SharedTokens(source, target, texts, per_document, seed)
    note = match_rate_note(shared.match_rate)
    if note is not None:
        log.warning("%s → %s: %s", source.name, target.name, note)
    info = {"pairing": shared.way, "match_rate": shared.match_rate, "per_document": per_document}
    shape = (source.hidden_size, target.hidden_size * len(target_blocks))
    found = {
        ls: TokenMoments(MomentsByKind(*shape, share), MomentsByKind(*shape, share), center, info)
        for ls in source_blocks
    }

    def read(model: Model, at: Mapping[int, list[int]], blocks: Sequence[int]) -> dict[int, torch.Tensor]:
        numbers = list(at)
        states: list[dict[int, torch.Tensor]] = [{} for _ in numbers]
        lines = [texts.texts[i] for i in numbers]
        for batch in iter_states(
            model, lines, blocks=blocks, precision=precision, batch_tokens=batch_tokens, progress=progress
        ):
            for row, i in enumerate(batch.indices):
                states[i] = {b: h[row, at[numbers[i]]].cpu() for b, h in batch.hidden.items()}
        return {b: _finite(model, b, torch.cat([state[b] for state in states])) for b in blocks}

    for pairs in shared:
        x_of = read(source, {i: p.source for i, p in pairs.items()}, source_blocks)
        y_of = read(target, {i: p.target for i, p in pairs.items()}, target_blocks)
        kinds = [texts.kinds[i] for i, p in pairs.items() for _ in p.source]
        is_held_out = torch.tensor([texts.documents[i] in aside for i, p in pairs.items() for _ in p.source])
        for ls, kept in found.items():
            kept.update(kinds, is_held_out, x_of[ls], *(y_of[lt] for lt in target_blocks))
    for kept in found.values():
        if kept.fitted_on.n == 0 or kept.held_out.n == 0:
            raise FitError(
                f"No tokens of {source.name} and {target.name} end at the same characters of these texts; use "
                f"tokens='last', or give more texts."
            )
    dt = target.hidden_size
    return {
        (ls, lt): kept.of_target(number, number * dt, (number + 1) * dt)
        for ls, kept in found.items()
        for number, lt in enumerate(target_blocks)
    }


class _SharedTokens:
    """The pairs of a corpus, chunk by chunk; what is held of a text are the numbers of its pairs."""

    def __init__(self, source: Model, target: Model, texts: Corpus, per_document: int | None, seed: int) -> None:
        self._models, self._texts = (source, target), texts
        self._per_document, self._seed = per_document, seed
        self._alike = same_vocabulary(source, target)
        self._counts: list[int] = []
        n_source, ways = 0, set()
        for start in range(0, len(texts), _CHUNK):
            made = self._pairing(range(start, min(start + _CHUNK, len(texts))))
            self._counts += map(len, made.texts)
            n_source += made.n_source
            ways.add(made.way)
        self.match_rate = sum(self._counts) / n_source if n_source else 0.0
        self.way = "offset" if "offset" in ways else "position"
        # of each text, where its pairs begin among those of its document
        self._of_document: Counter[str] = Counter()
        self._begin: list[int] = []
        for document, count in zip(texts.documents, self._counts, strict=True):
            self._begin.append(self._of_document[document])
            self._of_document[document] += count

    def __iter__(self) -> Iterator[dict[int, PairedPositions]]:
        """Per chunk the pairs to take, by the number of their text; texts without any are left out."""
        taken = [i for i in range(len(self._texts)) if self._picks(i)]
        for start in range(0, len(taken), _CHUNK):
            chunk = taken[start : start + _CHUNK]
            yield {i: p.only(self._picks(i)) for i, p in zip(chunk, self._pairing(chunk).texts, strict=True)}

    def _pairing(self, numbers: Sequence[int]) -> Pairing:
        return pair_positions(*self._models, [self._texts.texts[i] for i in numbers], alike=self._alike)

    def _picks(self, i: int) -> Sequence[int]:
        """Which of a text's pairs are taken."""
        if self._per_document is None:
            return range(self._counts[i])
        document, begin = self._texts.documents[i], self._begin[i]
        places = pick_evenly(self._of_document[document], self._per_document, start_of(document, self._seed))
        return [place - begin for place in places if begin <= place < begin + self._counts[i]]


def _finite(model: Model, block: int, states: torch.Tensor) -> torch.Tensor:
    if not bool(torch.isfinite(states).all()):
        raise StateError(
            f"{model.name} gives states that are not finite at block {block}; float16 overflows in some models: load "
            f"it in bfloat16 or float32."
        )
    return states
