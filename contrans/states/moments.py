"""First and second moments of paired states, streaming and mergeable, in float64.

Chan, Golub & LeVeque (1979): counts, means and centred co-moments of two parts merge exactly. Raw sums of
squares would cancel catastrophically beside a mean that is a hundred times the spread, as in Gemma.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from contrans.errors import FitError, StateError


@dataclass
class Moments:
    """Moments of n paired rows (x, y), x of width ds and y of width dt.

    Attributes:
        n: rows.
        mean_x: float64 [ds].
        mean_y: float64 [dt].
        sxx: float64 [ds, ds], Σ (x − mean_x)ᵀ(x − mean_x).
        sxy: float64 [ds, dt], Σ (x − mean_x)ᵀ(y − mean_y).
        syy: float64, Σ ‖y − mean_y‖².
    """

    n: int
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    sxx: torch.Tensor
    sxy: torch.Tensor
    syy: float

    @classmethod
    def empty(cls, ds: int, dt: int) -> "Moments":
        """The moments of no rows."""
        f64 = torch.float64
        return cls(
            0,
            torch.zeros(ds, dtype=f64),
            torch.zeros(dt, dtype=f64),
            torch.zeros((ds, ds), dtype=f64),
            torch.zeros((ds, dt), dtype=f64),
            0.0,
        )

    @classmethod
    def of(cls, x: torch.Tensor, y: torch.Tensor, weights: torch.Tensor | None = None) -> "Moments":
        """The moments of rows x [n, ds] and y [n, dt], each counted as often as its weight [n] says; once if None.

        Raises:
            StateError: the rows do not pair up or are not finite.
        """
        _check(x, y)
        if len(x) == 0:
            return cls.empty(x.shape[1], y.shape[1])
        x, y = x.double(), y.double()
        if weights is None:
            mean_x, mean_y = x.mean(0), y.mean(0)
            x, y = x - mean_x, y - mean_y
        else:
            w = weights.double()[:, None]
            mean_x, mean_y = (w * x).sum(0) / w.sum(), (w * y).sum(0) / w.sum()
            x, y = (x - mean_x) * w.sqrt(), (y - mean_y) * w.sqrt()
        return cls(len(x), mean_x, mean_y, x.T @ x, x.T @ y, float(y.square().sum()))

    def merge(self, other: "Moments") -> "Moments":
        """The moments of both sets of rows together."""
        if self.n == 0 or other.n == 0:
            return other if self.n == 0 else self
        n = self.n + other.n
        dx, dy = other.mean_x - self.mean_x, other.mean_y - self.mean_y
        w = self.n * other.n / n
        return Moments(
            n,
            self.mean_x + dx * (other.n / n),
            self.mean_y + dy * (other.n / n),
            self.sxx + other.sxx + w * torch.outer(dx, dx),
            self.sxy + other.sxy + w * torch.outer(dx, dy),
            self.syy + other.syy + w * float(dy @ dy),
        )

    def update(self, x: torch.Tensor, y: torch.Tensor) -> "Moments":
        """The moments with rows x [n, ds] and y [n, dt] added."""
        return self.merge(Moments.of(x, y))

    def about(self, mean_x: torch.Tensor, mean_y: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, float]:
        """Second moments per row about other means: C [ds, ds], D [ds, dt] and q = Σ‖y − mean_y‖²/n."""
        dx, dy = self.mean_x - mean_x, self.mean_y - mean_y
        return (
            self.sxx / self.n + torch.outer(dx, dx),
            self.sxy / self.n + torch.outer(dx, dy),
            self.syy / self.n + float(dy @ dy),
        )


class Mean(NamedTuple):
    """Count and means of some rows: n, x float64 [ds], y float64 [dt]."""

    n: int
    x: torch.Tensor
    y: torch.Tensor


class Scatter(NamedTuple):
    """Centred co-moments, summed up in place: float64 xx [ds, ds], xy [ds, dt], yy []."""

    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor

    def add(self, x: torch.Tensor, y: torch.Tensor) -> None:
        """Adds centred rows x [n, ds] and y [n, dt]."""
        self.xx.addmm_(x.T, x)
        self.xy.addmm_(x.T, y)
        self.yy.add_(y.square().sum())


@dataclass
class MomentsByKind:
    """Streaming moments of rows of several kinds, from which any centring and the weights by kind follow afterwards.

    Rows are centred on the mean of their own kind, so kinds that weigh alike share one scatter: a further kind costs
    its two means and no matrix.

    Attributes:
        ds: width of x.
        dt: width of y.
        share: share of the weight of all rows that a kind gets, see `kind_weights`.
        means: of each kind.
        scatters: about the kinds' own means: of each kind of `share` and, under None, of all others together.
    """

    ds: int
    dt: int
    share: Mapping[str, float] = field(default_factory=dict)
    means: dict[str, Mean] = field(default_factory=dict)
    scatters: dict[str | None, Scatter] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Rows of all kinds."""
        return sum(mean.n for mean in self.means.values())

    def update(self, kinds: Sequence[str], x: torch.Tensor, y: torch.Tensor) -> None:
        """Adds rows x [n, ds] and y [n, dt], each of a kind [n].

        Raises:
            StateError: the rows do not pair up or are not finite.
        """
        _check(x, y)
        if len(kinds) != len(x):
            raise StateError(f"{len(kinds)} kinds were given for {len(x)} rows; give one a row.")
        rows: dict[str, list[int]] = {}
        for i, kind in enumerate(kinds):
            rows.setdefault(kind, []).append(i)
        centred: list[tuple[str, torch.Tensor, torch.Tensor]] = []
        for kind, at in rows.items():
            a, b = x[at].double(), y[at].double()
            mean = Mean(len(at), a.mean(0), b.mean(0))
            centred += [(kind, a - mean.x, b - mean.y), self._join(kind, mean)]
        self._scatter(centred)

    def merge(self, other: "MomentsByKind") -> "MomentsByKind":
        """The moments of both sets of rows together."""
        scatters = {group: Scatter(*(part.clone() for part in its)) for group, its in self.scatters.items()}
        both = MomentsByKind(self.ds, self.dt, self.share, dict(self.means), scatters)
        for group, its in other.scatters.items():
            for mine, part in zip(both._of(group), its, strict=True):
                mine.add_(part)
        both._scatter([both._join(kind, mean) for kind, mean in other.means.items()])
        return both

    def moved(self, at: "MomentsByKind", to: Moments) -> "MomentsByKind":
        """These rows, each kind moved by as much as its mean in `at` is away from the mean of `to`."""
        means = {
            kind: Mean(mean.n, mean.x + to.mean_x - at.means[kind].x, mean.y + to.mean_y - at.means[kind].y)
            if kind in at.means
            else mean
            for kind, mean in self.means.items()
        }
        return MomentsByKind(self.ds, self.dt, self.share, means, self.scatters)

    def together(self, *, weighed: bool = True, between: bool = True) -> Moments:
        """The moments of all rows.

        Args:
            weighed: whether each kind has its share, or every row counts once.
            between: whether the scatter is about the mean of all rows, or about the means of the kinds (fixed effects).
        """
        if not self.means:
            return Moments.empty(self.ds, self.dt)
        counts = {kind: mean.n for kind, mean in self.means.items()}
        weights = kind_weights(counts, self.share if weighed else {})
        mass = torch.tensor([weights[kind] * n for kind, n in counts.items()], dtype=torch.float64)[:, None]
        x, y = torch.stack([m.x for m in self.means.values()]), torch.stack([m.y for m in self.means.values()])
        mean_x, mean_y = (mass * x).sum(0) / self.n, (mass * y).sum(0) / self.n
        total = _no_scatter(self.ds, self.dt)
        if between:
            total.add(mass.sqrt() * (x - mean_x), mass.sqrt() * (y - mean_y))
        # the kinds of one scatter weigh alike, so any of them tells its weight
        for group, weight in {self._group(kind): weight for kind, weight in weights.items()}.items():
            for whole, part in zip(total, self._of(group), strict=True):
                whole.add_(part, alpha=weight)
        return Moments(self.n, mean_x, mean_y, total.xx, total.xy, float(total.yy))

    def _group(self, kind: str) -> str | None:
        return kind if kind in self.share else None

    def _of(self, group: str | None) -> Scatter:
        if group not in self.scatters:
            self.scatters[group] = _no_scatter(self.ds, self.dt)
        return self.scatters[group]

    def _scatter(self, centred: Sequence[tuple[str, torch.Tensor, torch.Tensor]]) -> None:
        # one product for all kinds that share a scatter: with dozens of templates one each would cost more than it
        for group in {self._group(kind) for kind, _, _ in centred}:
            rows = [(a, b) for kind, a, b in centred if self._group(kind) == group]
            self._of(group).add(torch.cat([a for a, _ in rows]), torch.cat([b for _, b in rows]))

    def _join(self, kind: str, mean: Mean) -> tuple[str, torch.Tensor, torch.Tensor]:
        """Takes further rows into a kind's mean; a row [1, ds] and [1, dt] whose squares its scatter gains by it."""
        old = self.means.get(kind, Mean(0, mean.x, mean.y))
        n = old.n + mean.n
        dx, dy = mean.x - old.x, mean.y - old.y
        self.means[kind] = Mean(n, old.x + dx * (mean.n / n), old.y + dy * (mean.n / n))
        length = (old.n * mean.n / n) ** 0.5
        return kind, length * dx[None], length * dy[None]


def _check(x: torch.Tensor, y: torch.Tensor) -> None:
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise StateError(
            f"Paired states must be two matrices of equally many rows, not {tuple(x.shape)} and {tuple(y.shape)}."
        )
    if not (bool(torch.isfinite(x).all()) and bool(torch.isfinite(y).all())):
        raise StateError("Paired states are not finite; load the model in bfloat16 or float32 and capture again.")


def check_share(kinds: Collection[str], share: Mapping[str, float]) -> None:
    """Refuses shares that cannot be given to rows of these kinds.

    Raises:
        FitError: a kind without rows, a share that is not above 0, shares that sum to more than 1, that leave nothing
            for the other kinds, or that leave something where there are no others.
    """
    unknown = set(share) - set(kinds)
    if unknown:
        raise FitError(
            f"There are no rows of kind {min(unknown)!r} to weigh; there are {', '.join(sorted(set(kinds)))}."
        )
    total, rest = sum(share.values()), set(kinds) - set(share)
    too_little = bool(share) and not rest and total < 1 - 1e-9
    if any(part <= 0 for part in share.values()) or total > 1 + 1e-9 or too_little:
        raise FitError("The shares of kinds must be above 0 and sum to at most 1, to exactly 1 if every kind has one.")
    if share and rest and total > 1 - 1e-9:
        raise FitError(f"The shares leave nothing for the kind {min(rest)!r}; lower them or drop its rows.")


def kind_weights(counts: Mapping[str, int], share: Mapping[str, float]) -> dict[str, float]:
    """The weight of one row of each kind, of mean 1 over all rows.

    Args:
        counts: rows of each kind, above 0.
        share: share of the weight of all rows that a kind gets; the kinds not named divide the rest by their rows.
    """
    rest = sum(n for kind, n in counts.items() if kind not in share)
    left = 1 - sum(share[kind] for kind in counts if kind in share)
    weights = {kind: share[kind] / n if kind in share else left / rest for kind, n in counts.items()}
    scale = sum(counts.values()) / sum(weights[kind] * n for kind, n in counts.items())
    return {kind: weight * scale for kind, weight in weights.items()}


def _no_scatter(ds: int, dt: int) -> Scatter:
    f64 = torch.float64
    return Scatter(torch.zeros((ds, ds), dtype=f64), torch.zeros((ds, dt), dtype=f64), torch.zeros((), dtype=f64))
