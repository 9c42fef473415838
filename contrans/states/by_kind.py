"""Moments of rows of several kinds, streaming: any centring and the weights by kind follow afterwards."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from contrans.errors import FitError, StateError
from contrans.states.moments import Moments, check_finite, check_pairs, gram
from contrans.states.precision import cross_product

BLOCK_ROWS = 4096
"""Rows that are centred at once, and whose float32 products are summed up before they are added in float64."""


class Mean(NamedTuple):
    """Count and means of some rows: n, x float64 [ds], y float64 [dt]."""

    n: int
    x: torch.Tensor
    y: torch.Tensor


class Scatter(NamedTuple):
    """Centred co-moments, summed up in place: float64 xx [ds, ds], xy [ds, dt] and, of each column of y, yy [dt]."""

    xx: torch.Tensor
    xy: torch.Tensor
    yy: torch.Tensor

    def add(self, x: torch.Tensor, y: torch.Tensor, axes: torch.Tensor | None = None) -> None:
        """Adds centred float64 rows x [n, ds] and y [n, dt], with xy along some axes of x."""
        self.xx.add_(gram(x))
        self.xy.addmm_((x if axes is None else x @ axes).T, y)
        self.yy.add_(y.square().sum(0))

    def columns(self, start: int, stop: int) -> "Scatter":
        """Those with some columns of y, in the same memory."""
        return Scatter(self.xx, self.xy[:, start:stop], self.yy[start:stop])


@dataclass(frozen=True)
class Centred:
    """Rows about the means of their kinds, ready for products with any other rows of the same kinds.

    Attributes:
        means: of each kind its rows and their mean, float64 [d].
        rows: by kind of the share that was given, and under None for all other kinds, [n, d].
        squares: of these rows, summed up by column, float64 [d].
    """

    means: dict[str, tuple[int, torch.Tensor]]
    rows: dict[str | None, torch.Tensor]
    squares: dict[str | None, torch.Tensor]

    @classmethod
    def of(
        cls,
        kinds: Sequence[str],
        rows: torch.Tensor,
        share: Mapping[str, float] = {},
        *,
        dtype: torch.dtype = torch.float64,
    ) -> "Centred":
        """Centres rows [n, d], each of a kind [n], in float64, and keeps them in a dtype.

        Raises:
            StateError: the rows are not finite, or have not a kind each.
        """
        if len(kinds) != len(rows):
            raise StateError(f"{len(kinds)} kinds were given for {len(rows)} rows; give one a row.")
        check_finite(rows)
        places: dict[str, list[int]] = {}
        for i, kind in enumerate(kinds):
            places.setdefault(kind, []).append(i)
        means: dict[str, tuple[int, torch.Tensor]] = {}
        parts: dict[str | None, list[torch.Tensor]] = {}
        squares: dict[str | None, torch.Tensor] = {}
        for kind, at in places.items():
            these = (rows if len(places) == 1 else rows[at]).double()
            mean = these.mean(0)
            means[kind] = (len(at), mean)
            these = these - mean
            group = kind if kind in share else None
            parts.setdefault(group, []).append(these.to(dtype))
            squares[group] = squares.get(group, 0) + torch.linalg.vecdot(these, these, dim=0)
        rows_of = {group: part[0] if len(part) == 1 else torch.cat(part) for group, part in parts.items()}
        return cls(means, rows_of, squares)

    def turned(self, axes: torch.Tensor) -> "Centred":
        """The rows along other axes, the columns of [d, d], in float32."""
        means = {kind: (n, mean @ axes) for kind, (n, mean) in self.means.items()}
        return Centred(means, {group: (rows @ axes).float() for group, rows in self.rows.items()}, {})

    @classmethod
    def beside(cls, parts: Sequence["Centred"]) -> "Centred":
        """Several, of the same kinds, with their columns side by side."""
        if len(parts) == 1:
            return parts[0]
        means = {
            kind: (n, torch.cat([part.means[kind][1] for part in parts])) for kind, (n, _) in parts[0].means.items()
        }
        rows = {group: torch.cat([part.rows[group] for part in parts], 1) for group in parts[0].rows}
        return cls(means, rows, {group: torch.cat([part.squares[group] for part in parts]) for group in rows})


@dataclass
class MomentsByKind:
    """Streaming moments of rows of several kinds, from which any centring and the weights by kind follow afterwards.

    Rows are centred on the mean of their own kind, so kinds that weigh alike share one scatter: a further kind costs
    its two means and no matrix. The columns of y may be those of several target blocks side by side.

    Attributes:
        ds: width of x.
        dt: width of y.
        share: share of the weight of all rows that a kind gets, see `kind_weights`.
        means: of each kind.
        scatters: about the kinds' own means: of each kind of `share` and, under None, of all others together.
        axes: of the source, that the scatters' xy lie along; None for its own, see `Moments`.
    """

    ds: int
    dt: int
    share: Mapping[str, float] = field(default_factory=dict)
    means: dict[str, Mean] = field(default_factory=dict)
    scatters: dict[str | None, Scatter] = field(default_factory=dict)
    axes: torch.Tensor | None = None

    @property
    def n(self) -> int:
        """Rows of all kinds."""
        return sum(mean.n for mean in self.means.values())

    def update(self, kinds: Sequence[str], x: torch.Tensor, y: torch.Tensor) -> None:
        """Adds rows x [n, ds] and y [n, dt], each of a kind [n]; all products in float64.

        Raises:
            StateError: the rows do not pair up or are not finite.
        """
        check_pairs(x, y)
        self.add(Centred.of(kinds, x, self.share), Centred.of(kinds, y, self.share))

    def add(self, x: Centred, y: Centred) -> None:
        """Adds rows centred before, both in float64; both in float32 add to xy and yy alone."""
        for group, a in x.rows.items():
            its, b = self._of(group), y.rows[group]
            its.yy.add_(y.squares[group])
            if a.dtype == torch.float64:
                its.xx.add_(gram(a))
                its.xy.addmm_(a.T, b)
            else:
                its.xy.add_(cross_product(a, b))
        self._join({kind: Mean(n, mean, y.means[kind][1]) for kind, (n, mean) in x.means.items()})

    def columns(self, start: int, stop: int) -> "MomentsByKind":
        """The moments with some columns of y, in the same memory."""
        means = {kind: Mean(mean.n, mean.x, mean.y[start:stop]) for kind, mean in self.means.items()}
        scatters = {group: its.columns(start, stop) for group, its in self.scatters.items()}
        return MomentsByKind(self.ds, stop - start, self.share, means, scatters, self.axes)

    def lying_along(self, axes: torch.Tensor, own: "MomentsByKind") -> "MomentsByKind":
        """The moments of rows that came along other axes (`Centred.turned`), with all but xy along x's own axes.

        Args:
            axes: those that the rows came along.
            own: moments of the same rows x along their own axes, whatever the y.
        """
        means = {kind: Mean(mean.n, own.means[kind].x, mean.y) for kind, mean in self.means.items()}
        scatters = {group: Scatter(own.scatters[group].xx, its.xy, its.yy) for group, its in self.scatters.items()}
        return MomentsByKind(self.ds, self.dt, self.share, means, scatters, axes)

    def merge(self, other: "MomentsByKind") -> "MomentsByKind":
        """The moments of both sets of rows together."""
        scatters = {group: Scatter(*(part.clone() for part in its)) for group, its in self.scatters.items()}
        both = MomentsByKind(self.ds, self.dt, self.share, dict(self.means), scatters, self.axes)
        for group, its in other.scatters.items():
            for mine, part in zip(both._of(group), its, strict=True):
                mine.add_(part)
        both._join(other.means)
        return both

    def moved(self, at: "MomentsByKind", to: Moments) -> "MomentsByKind":
        """These rows, each kind moved by as much as its mean in `at` is away from the mean of `to`."""
        means = {
            kind: Mean(mean.n, mean.x + to.mean_x - at.means[kind].x, mean.y + to.mean_y - at.means[kind].y)
            if kind in at.means
            else mean
            for kind, mean in self.means.items()
        }
        return MomentsByKind(self.ds, self.dt, self.share, means, self.scatters, self.axes)

    def together(self, *, weighed: bool = True, between: bool = True) -> Moments:
        """The moments of all rows.

        Args:
            weighed: whether each kind has its share, or every row counts once.
            between: whether the scatter is about the mean of all rows, or about the means of the kinds (fixed effects).

        Returns:
            Moments that may share the memory of these, so take them when all rows are in.
        """
        if not self.means:
            return Moments.empty(self.ds, self.dt)
        counts = {kind: mean.n for kind, mean in self.means.items()}
        weights = kind_weights(counts, self.share if weighed else {})
        mass = torch.tensor([weights[kind] * n for kind, n in counts.items()], dtype=torch.float64)[:, None]
        x, y = torch.stack([m.x for m in self.means.values()]), torch.stack([m.y for m in self.means.values()])
        mean_x, mean_y = (mass * x).sum(0) / self.n, (mass * y).sum(0) / self.n
        # the kinds of one scatter weigh alike, so any of them tells its weight
        of_group = {self._group(kind): weight for kind, weight in weights.items()}
        if len(of_group) == 1 and (len(counts) == 1 or not between):
            whole = self._of(*of_group)  # as it is: a copy of a wide target's would be hundreds of megabytes
        else:
            whole = _no_scatter(self.ds, self.dt)
            for group, weight in of_group.items():
                for total, part in zip(whole, self._of(group), strict=True):
                    total.add_(part, alpha=weight)
            if between:
                whole.add(mass.sqrt() * (x - mean_x), mass.sqrt() * (y - mean_y), self.axes)
        return Moments(self.n, mean_x, mean_y, whole.xx, whole.xy, float(whole.yy.sum()), self.axes)

    def _group(self, kind: str) -> str | None:
        return kind if kind in self.share else None

    def _of(self, group: str | None) -> Scatter:
        if group not in self.scatters:
            self.scatters[group] = _no_scatter(self.ds, self.dt)
        return self.scatters[group]

    def _join(self, further: Mapping[str, Mean]) -> None:
        """Takes further rows into the kinds' means, and what the means lie apart into the scatters."""
        apart: dict[str | None, list[tuple[torch.Tensor, torch.Tensor]]] = {}
        for kind, mean in further.items():
            old = self.means.get(kind)
            if old is None:
                self.means[kind] = mean
                continue
            n = old.n + mean.n
            dx, dy = mean.x - old.x, mean.y - old.y
            self.means[kind] = Mean(n, old.x + dx * (mean.n / n), old.y + dy * (mean.n / n))
            length = (old.n * mean.n / n) ** 0.5
            apart.setdefault(self._group(kind), []).append((length * dx, length * dy))
        # one product for all kinds that share a scatter: with dozens of templates one each would cost more than it
        for group, rows in apart.items():
            self._of(group).add(torch.stack([x for x, _ in rows]), torch.stack([y for _, y in rows]), self.axes)


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
    return Scatter(torch.zeros((ds, ds), dtype=f64), torch.zeros((ds, dt), dtype=f64), torch.zeros(dt, dtype=f64))
