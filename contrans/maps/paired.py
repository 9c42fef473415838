"""Rows of two models that belong together, with the documents they come from."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import torch

from contrans.errors import FitError, StateError
from contrans.hashing import digest
from contrans.states.moments import Moments, check_share, kind_weights

CENTRES = ("all", "kind")


@dataclass(frozen=True)
class PairedStates:
    """Paired states of one block pair.

    Attributes:
        x: source states, float32 [n, ds].
        y: target states, float32 [n, dt].
        documents: the document of each row; rows of one document never stand on both sides of a split.
        held_out: share of the documents that λ is chosen and R² is reported on.
        seed: of the split.
        kinds: how each row's text was made (its template); empty if all in one way.
        center: "all" centres the rows on their mean; "kind" each kind on a mean of its own (fixed effects), so that the
            fit explains what the texts say and not which template they stand in.
        share: share of the fit's weight that a kind gets; the kinds not named divide the rest by their rows.
        spectra: eigendecompositions of the source side, kept for other target blocks of the same source block.
    """

    x: torch.Tensor
    y: torch.Tensor
    documents: Sequence[str]
    held_out: float = 0.2
    seed: int = 0
    kinds: Sequence[str] = ()
    center: str = "all"
    share: Mapping[str, float] = field(default_factory=dict)
    spectra: dict[str, tuple[torch.Tensor, torch.Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if not len(self.x) == len(self.y) == len(self.documents):
            raise StateError(
                f"Paired states need equally many rows and documents, not {len(self.x)}, {len(self.y)} and "
                f"{len(self.documents)}."
            )
        if self.kinds and len(self.kinds) != len(self.x):
            raise StateError(f"{len(self.kinds)} kinds were given for {len(self.x)} rows; give one a row, or none.")
        if self.center not in CENTRES:
            raise FitError(f"center must be one of {', '.join(CENTRES)}, not {self.center!r}.")
        check_share(self.kinds, self.share)

    @cached_property
    def is_held_out(self) -> torch.Tensor:
        """Bool [n]: rows of held-out documents.

        Raises:
            FitError: there are fewer than five documents.
        """
        chosen = held_out_documents(self.documents, self.held_out, self.seed)
        return torch.tensor([d in chosen for d in self.documents])

    @property
    def train(self) -> Moments:
        """Moments of the rows that are not held out."""
        return self._train

    @property
    def held(self) -> Moments:
        """Moments of the held-out rows, each kind moved as its own training rows are when they are centred."""
        return self._held

    @property
    def whole(self) -> Moments:
        """Moments of all rows, which the final map is fitted on."""
        return self._whole

    @cached_property
    def _train(self) -> Moments:
        return self._moments(~self.is_held_out)

    @cached_property
    def _held(self) -> Moments:
        x, y = self.held_rows
        return Moments.of(x, y, self._weights(self.is_held_out))

    @cached_property
    def _whole(self) -> Moments:
        if self.center == "all" and not self.share:
            return self.train.merge(self.held)
        return self._moments(torch.ones(len(self.x), dtype=torch.bool))

    @cached_property
    def held_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The held-out rows, float64: as they are, or with each kind's training mean replaced by that of all."""
        x, y = self.x[self.is_held_out].double(), self.y[self.is_held_out].double()
        if self.center == "all":
            return x, y
        x, y = x.clone(), y.clone()
        for kind, rows in self._by_kind(self.is_held_out).items():
            train = self._by_kind(~self.is_held_out).get(kind)
            if train is None:
                continue
            at = self._place(rows)
            x[at] += self.train.mean_x - self.x[train].double().mean(0)
            y[at] += self.train.mean_y - self.y[train].double().mean(0)
        return x, y

    def _place(self, rows: torch.Tensor) -> torch.Tensor:
        # where rows of the whole stand among the held-out ones
        return (self.is_held_out.long().cumsum(0) - 1)[rows]

    def _by_kind(self, keep: torch.Tensor) -> dict[str, torch.Tensor]:
        found: dict[str, list[int]] = {}
        for i in keep.nonzero()[:, 0].tolist():
            found.setdefault(str(self.kinds[i]) if self.kinds else "", []).append(i)
        return {kind: torch.tensor(rows) for kind, rows in found.items()}

    def _weights(self, keep: torch.Tensor) -> torch.Tensor | None:
        """Weights of some rows with mean 1, so that each kind has its share of them; None where all count alike."""
        if not self.share:
            return None
        groups = self._by_kind(keep)
        weight_of = kind_weights({kind: len(rows) for kind, rows in groups.items()}, self.share)
        weights = torch.zeros(len(self.x), dtype=torch.float64)
        for kind, rows in groups.items():
            weights[rows] = weight_of[kind]
        return weights[keep]

    def _moments(self, keep: torch.Tensor) -> Moments:
        weights = self._weights(keep)
        if self.center == "all":
            return Moments.of(self.x[keep], self.y[keep], weights)
        full = torch.ones(len(self.x), dtype=torch.float64)
        if weights is not None:
            full[keep] = weights
        parts = [
            Moments.of(self.x[rows], self.y[rows], full[rows]) for rows in self._by_kind(keep).values() if len(rows)
        ]
        n = int(keep.sum())
        share = [float(full[rows].sum()) / n for rows in self._by_kind(keep).values()]
        # within-kind scatter about the kinds' own means, and the mean of all for the bias
        return Moments(
            n,
            sum((s * p.mean_x for s, p in zip(share, parts, strict=True)), torch.zeros_like(parts[0].mean_x)),
            sum((s * p.mean_y for s, p in zip(share, parts, strict=True)), torch.zeros_like(parts[0].mean_y)),
            sum((p.sxx for p in parts), torch.zeros_like(parts[0].sxx)),
            sum((p.sxy for p in parts), torch.zeros_like(parts[0].sxy)),
            sum(p.syy for p in parts),
        )

    def spectrum(self, of: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues, ascending, and eigenvectors of the source covariance of "train" or "whole"; computed once.

        Raises:
            FitError: the source states do not vary.
        """
        if of not in self.spectra:
            self.spectra[of] = spectrum(self.train if of == "train" else self.whole)
        return self.spectra[of]


def spectrum(moments: Moments) -> tuple[torch.Tensor, torch.Tensor]:
    """Eigenvalues [ds], ascending, and eigenvectors [ds, ds] of C = Sxx/n.

    Raises:
        FitError: the source states do not vary.
    """
    e, v = torch.linalg.eigh(moments.sxx / moments.n)
    if float(e[-1]) <= 0:
        raise FitError("The source states do not vary at this block; the corpus must hold different texts.")
    return e.clamp_min(0), v


def held_out_documents(documents: Iterable[str], share: float, seed: int) -> set[str]:
    """The documents that λ is chosen on: decided by their hashes, so that their order does not matter.

    Raises:
        FitError: there are fewer than five documents.
    """
    names = sorted(set(documents))
    if len(names) < 5:
        raise FitError(
            f"A map needs texts from at least 5 documents to hold some out, not {len(names)}; give more texts."
        )
    ranked = sorted(names, key=lambda name: digest([seed, name]))
    return set(ranked[: min(max(1, round(share * len(names))), len(names) - 1)])
