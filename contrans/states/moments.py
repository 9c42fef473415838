"""First and second moments of paired states, mergeable, in float64.

Chan, Golub & LeVeque (1979): counts, means and centred co-moments of two parts merge exactly. Raw sums of
squares would cancel catastrophically beside a mean that is a hundred times the spread, as in Gemma.
"""

from dataclasses import dataclass

import torch

from contrans.errors import StateError

_GRAM_COLUMNS = 160
"""Columns of a Gram matrix below which halving it no longer saves time."""


@dataclass
class Moments:
    """Moments of n paired rows (x, y), x of width ds and y of width dt.

    Attributes:
        n: rows.
        mean_x: float64 [ds].
        mean_y: float64 [dt].
        sxx: float64 [ds, ds], Σ (x − mean_x)ᵀ(x − mean_x).
        sxy: float64 [ds, dt], Σ (x − mean_x)ᵀ(y − mean_y), or along other axes of x; read it by `cross` or `along`.
        syy: float64, Σ ‖y − mean_y‖².
        axes: orthonormal columns [ds, ds] that sxy lies along: axesᵀ Σ (x − mean_x)ᵀ(y − mean_y); None for x's own.
    """

    n: int
    mean_x: torch.Tensor
    mean_y: torch.Tensor
    sxx: torch.Tensor
    sxy: torch.Tensor
    syy: float
    axes: torch.Tensor | None = None

    def cross(self) -> torch.Tensor:
        """Σ (x − mean_x)ᵀ(y − mean_y) [ds, dt]."""
        return self.sxy if self.axes is None else self.axes @ self.sxy

    def along(self, axes: torch.Tensor) -> torch.Tensor:
        """axesᵀ Σ (x − mean_x)ᵀ(y − mean_y) [ds, dt], without a product where sxy lies along these very axes."""
        return self.sxy if self.axes is axes else axes.T @ self.cross()

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
        check_pairs(x, y)
        check_finite(x)
        check_finite(y)
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
            self.cross() + other.cross() + w * torch.outer(dx, dy),
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
            self.cross() / self.n + torch.outer(dx, dy),
            self.syy / self.n + float(dy @ dy),
        )


def gram(x: torch.Tensor) -> torch.Tensor:
    """xᵀx [d, d] of rows x [n, d], by products of the upper triangle's blocks alone: nearly half of the work."""
    d = x.shape[1]
    if d <= _GRAM_COLUMNS:
        return x.T @ x
    out, middle = x.new_empty((d, d)), d // 2
    left, right = x[:, :middle], x[:, middle:]
    out[:middle, :middle], out[middle:, middle:] = gram(left), gram(right)
    torch.matmul(left.T, right, out=out[:middle, middle:])
    out[middle:, :middle] = out[:middle, middle:].T
    return out


def check_pairs(x: torch.Tensor, y: torch.Tensor) -> None:
    """Refuses x and y that are not two matrices of equally many rows, with a StateError."""
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y):
        raise StateError(
            f"Paired states must be two matrices of equally many rows, not {tuple(x.shape)} and {tuple(y.shape)}."
        )


def check_finite(rows: torch.Tensor) -> None:
    """Refuses rows with a NaN or infinity in them, with a StateError."""
    if not bool(torch.isfinite(rows).all()):
        raise StateError("Paired states are not finite; load the model in bfloat16 or float32 and capture again.")
