"""What a map is fitted and judged on: the moments of the rows fitted on, of those held out, and of all."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from functools import cached_property

import torch

from contrans.errors import FitError
from contrans.hashing import digest
from contrans.states.by_kind import MomentsByKind
from contrans.states.moments import Moments

CENTRES = ("all", "kind")

SourceCache = dict[str, tuple[torch.Tensor, ...]]
"""What depends on the source block alone, by name, so that one computation serves every λ and every target block."""


class SplitMoments(ABC):
    """Moments of paired rows, split by document and centred as `center` says.

    Attributes:
        center: "all" centres all rows together, "kind" those of each kind of text on a mean of their own.
        spectra: kept for other target blocks of the same source block, whose rows must be the same.
    """

    center: str
    spectra: SourceCache

    @abstractmethod
    def parts(self) -> tuple[MomentsByKind, MomentsByKind]:
        """The rows fitted on and those held out, by kind."""

    @property
    def train(self) -> Moments:
        """Moments of the rows that candidates are fitted on."""
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
        return self.parts()[0].together(between=self.center == "all")

    @cached_property
    def _held(self) -> Moments:
        fitted_on, held_out = self.parts()
        return (held_out if self.center == "all" else held_out.moved(fitted_on, self.train)).together()

    @cached_property
    def _whole(self) -> Moments:
        fitted_on, held_out = self.parts()
        return fitted_on.merge(held_out).together(between=self.center == "all")

    def spectrum(self, of: str) -> tuple[torch.Tensor, torch.Tensor]:
        """Eigenvalues, ascending, and eigenvectors of the source covariance of "train" or "whole"; computed once.

        Raises:
            FitError: the source states do not vary.
        """
        e, v = self._once(of, lambda: spectrum(self.train if of == "train" else self.whole))
        return e, v

    def held_in_axes(self) -> torch.Tensor:
        """VᵀChV [ds, ds]: the held-out source covariance about the train mean in the axes of the rows fitted on."""

        def rotated() -> tuple[torch.Tensor]:
            v, dx = self.spectrum("train")[1], self.held.mean_x - self.train.mean_x
            return (v.T @ (self.held.sxx / self.held.n + torch.outer(dx, dx)) @ v,)

        return self._once("held", rotated)[0]

    def penalised_inverse(self, rho: float) -> tuple[torch.Tensor, torch.Tensor]:
        """(C + λI)⁻¹ and (C + λI)⁻¹C [ds, ds] of all rows, λ = ρ·tr(C)/ds > 0, by Cholesky: no second spectrum.

        The first is for products with `whole.sxy`, along whatever axes that lies.
        """

        def inverted() -> tuple[torch.Tensor, torch.Tensor]:
            c = self.whole.sxx / self.whole.n
            penalty = rho * float(c.diagonal().mean())
            c.diagonal().add_(penalty)
            inverse = torch.cholesky_inverse(torch.linalg.cholesky(c))
            retained = -penalty * inverse
            retained.diagonal().add_(1)
            return (inverse if self.whole.axes is None else inverse @ self.whole.axes), retained

        inverse, retained = self._once(f"inverse {rho!r}", inverted)
        return inverse, retained

    def _once(self, name: str, make: Callable[[], tuple[torch.Tensor, ...]]) -> tuple[torch.Tensor, ...]:
        if name not in self.spectra:
            self.spectra[name] = make()
        return self.spectra[name]


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
