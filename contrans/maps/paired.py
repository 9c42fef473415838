"""Rows of two models that belong together, with the documents they come from."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from contrans.errors import FitError, StateError
from contrans.maps.splits import CENTRES, SourceCache, SplitMoments, held_out_documents, spectrum
from contrans.states.by_kind import BLOCK_ROWS, Centred, MomentsByKind, check_share

__all__ = ["PairedStates", "Rows", "held_out_documents", "moments_in_axes", "moments_of"]


@dataclass(frozen=True)
class Rows:
    """What is known of each row whatever block its states are of.

    Attributes:
        documents: the document of each row; rows of one document never stand on both sides of a split.
        held_out: share of the documents that λ is chosen and R² is reported on.
        seed: of the split.
        kinds: how each row's text was made (its template); empty if all in one way.
        share: share of the fit's weight that a kind gets; the kinds not named divide the rest by their rows.
    """

    documents: Sequence[str]
    held_out: float = 0.2
    seed: int = 0
    kinds: Sequence[str] = ()
    share: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kinds and len(self.kinds) != len(self.documents):
            raise StateError(
                f"{len(self.kinds)} kinds were given for {len(self.documents)} rows; give one a row, or none."
            )
        check_share(self.kinds, self.share)

    @cached_property
    def is_held_out(self) -> torch.Tensor:
        """Bool [n]: rows of held-out documents.

        Raises:
            FitError: there are fewer than five documents.
        """
        chosen = held_out_documents(self.documents, self.held_out, self.seed)
        return torch.tensor([d in chosen for d in self.documents])

    @cached_property
    def blocks(self) -> list[tuple[bool, list[str], torch.Tensor]]:
        """The rows in parts of at most `BLOCK_ROWS`: whether they are held out, their kinds and which they are."""
        found = []
        for held in (False, True):
            for at in (self.is_held_out == held).nonzero()[:, 0].split(BLOCK_ROWS):
                found.append((held, [str(self.kinds[i]) if self.kinds else "" for i in at.tolist()], at))
        return found

    def centred(self, states: Sequence[torch.Tensor], dtype: torch.dtype) -> Iterator[Centred]:
        """Each of `blocks` of some states [n, d], side by side and centred in float64, in a dtype."""
        for _, kinds, at in self.blocks:
            yield Centred.beside([Centred.of(kinds, rows[at], self.share, dtype=dtype) for rows in states])


def moments_of(rows: Rows, x: torch.Tensor, targets: Iterator[Centred], dt: int) -> tuple[MomentsByKind, MomentsByKind]:
    """Moments of the rows fitted on and of those held out, all products in float64.

    Args:
        rows: which is which.
        x: source states [n, ds].
        targets: `Rows.centred` of target states, float64.
        dt: width of the targets.
    """
    parts = MomentsByKind(x.shape[1], dt, rows.share), MomentsByKind(x.shape[1], dt, rows.share)
    for (held, _, _), a, b in zip(rows.blocks, rows.centred([x], torch.float64), targets, strict=True):
        parts[held].add(a, b)
    return parts


def moments_in_axes(
    rows: Rows, x: torch.Tensor, targets: Iterator[Centred], dt: int, center: str, spectra: SourceCache
) -> tuple[MomentsByKind, MomentsByKind]:
    """The same with products between source and target in float32, which is twice as fast, along the source's axes.

    The rounding error of a float32 product is in proportion to the spreads of its two columns. A map divides by the
    variance along principal axes, of which the narrow ones would drown in the error of wide columns; along those very
    axes each has an error in proportion to its own spread.

    Args:
        rows: which is which.
        x: source states [n, ds].
        targets: `Rows.centred` of target states, float32.
        dt: width of the targets.
        center: "all" or "kind", see `PairedStates`.
        spectra: of the source block; the spectrum of the rows fitted on is left there for the map.

    Raises:
        FitError: the source states do not vary.
    """
    own = moments_of(rows, x, rows.centred([x[:, :0]], torch.float64), 0)
    if "train" not in spectra:
        spectra["train"] = spectrum(own[0].together(between=center == "all"))
    axes = spectra["train"][1]
    parts = MomentsByKind(x.shape[1], dt, rows.share), MomentsByKind(x.shape[1], dt, rows.share)
    for (held, _, _), a, b in zip(rows.blocks, rows.centred([x], torch.float64), targets, strict=True):
        parts[held].add(a.turned(axes), b)
    return parts[0].lying_along(axes, own[0]), parts[1].lying_along(axes, own[1])


@dataclass(frozen=True)
class PairedStates(SplitMoments):
    """Paired states of one block pair.

    Attributes:
        x: source states, float32 [n, ds].
        y: target states, float32 [n, dt].
        documents: the document of each row, see `Rows`.
        held_out: share of the documents that λ is chosen and R² is reported on.
        seed: of the split.
        kinds: how each row's text was made; empty if all in one way.
        center: "all" centres the rows on their mean; "kind" each kind on a mean of its own (fixed effects), so that the
            fit explains what the texts say and not which template they stand in.
        share: share of the fit's weight that a kind gets.
        spectra: what depends on the source side alone, kept for other target blocks of the same source block.
        rows: of `documents`, `kinds` and the split, where other pairs of blocks have made them before.
        moments: of these rows, where they were computed beside those of other blocks.
    """

    x: torch.Tensor
    y: torch.Tensor
    documents: Sequence[str]
    held_out: float = 0.2
    seed: int = 0
    kinds: Sequence[str] = ()
    center: str = "all"
    share: Mapping[str, float] = field(default_factory=dict)
    spectra: SourceCache = field(default_factory=dict, repr=False)
    rows: Rows | None = field(default=None, repr=False)
    moments: tuple[MomentsByKind, MomentsByKind] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.documents):
            raise StateError(
                f"Paired states need equally many rows and documents, not {len(self.x)}, {len(self.y)} and "
                f"{len(self.documents)}."
            )
        if self.center not in CENTRES:
            raise FitError(f"center must be one of {', '.join(CENTRES)}, not {self.center!r}.")
        if self.rows is None:
            rows = Rows(self.documents, self.held_out, self.seed, self.kinds, self.share)
            object.__setattr__(self, "rows", rows)

    @property
    def is_held_out(self) -> torch.Tensor:
        """Bool [n]: rows of held-out documents.

        Raises:
            FitError: there are fewer than five documents.
        """
        return self._rows.is_held_out

    @property
    def _rows(self) -> Rows:
        assert self.rows is not None  # set by __post_init__
        return self.rows

    def parts(self) -> tuple[MomentsByKind, MomentsByKind]:
        """The rows fitted on and those held out, by kind; all products in float64 unless they were made before."""
        return self._parts

    @cached_property
    def _parts(self) -> tuple[MomentsByKind, MomentsByKind]:
        if self.moments is not None:
            return self.moments
        targets = self._rows.centred([self.y], torch.float64)
        return moments_of(self._rows, self.x, targets, self.y.shape[1])

    @cached_property
    def held_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The held-out rows, float64: as they are, or with each kind's training mean replaced by that of all."""
        x, y = self.x[self.is_held_out].double(), self.y[self.is_held_out].double()
        if self.center == "all":
            return x, y
        means = self.parts()[0].means
        places: dict[str, list[int]] = {}
        for place, i in enumerate(self.is_held_out.nonzero()[:, 0].tolist()):
            places.setdefault(str(self.kinds[i]) if self.kinds else "", []).append(place)
        for kind, at in places.items():
            if kind in means:
                x[at] += self.train.mean_x - means[kind].x
                y[at] += self.train.mean_y - means[kind].y
        return x, y
