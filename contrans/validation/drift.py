"""Does a transplant still do what it did? Two validations on the same items, with paired tests."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from contrans.validation.resampling import bca_bootstrap
from contrans.validation.statistics import holm, mcnemar
from contrans.validation.wording import p_value

LEVEL = 0.05
_FLIPS = 9999


@dataclass(frozen=True)
class Change:
    """What became of an effect between two validations.

    Attributes:
        name: what was scored, such as a concept or a transplant.
        n: items that both scored.
        before: the effect in the first.
        after: the effect in the second.
        change: after − before.
        low: lower end of its 95 % BCa interval over items.
        high: upper end.
        p: two-sided p-value that nothing changed: exact McNemar where items are right or wrong, else by flipping the
            signs of the items' differences (9,999 random flips).
        p_holm: the same, adjusted over all that were compared (Holm 1979).
        verdict: "worse" or "better" where `p_holm` is below the level and the change at least the margin, else
            "unchanged".
    """

    name: str
    n: int
    before: float
    after: float
    change: float
    low: float
    high: float
    p: float
    p_holm: float
    verdict: str

    @property
    def words(self) -> str:
        """Such as "anger: worse, 0.81 → 0.66 (−0.15 [−0.21, −0.09], p < 0.001, 380 items)"."""
        interval = f"{self.change:+.2f} [{self.low:+.2f}, {self.high:+.2f}]".replace("-", "−")
        values = f"{self.before:.2f} → {self.after:.2f}"
        return f"{self.name}: {self.verdict}, {values} ({interval}, {p_value(self.p_holm)}, {self.n} items)"

    def to_json(self) -> dict[str, Any]:
        """The change as a JSON object, with its words."""
        return {**asdict(self), "words": self.words}


def changes(
    scored: Mapping[str, tuple[np.ndarray, np.ndarray]],
    *,
    level: float = LEVEL,
    margin: float = 0.0,
    seed: int = 0,
) -> list[Change]:
    """What became of each effect.

    Where nothing changed, the chance that any of them is called worse or better is at most `level`.

    Args:
        scored: by name, how right the same items were in a fixed baseline and are now, float64 [items] each; see
            `contrans.validation.outcomes.paired`.
        level: of the family of tests.
        margin: least change, in units of the effect, that counts; smaller ones are "unchanged" however sure they are.
        seed: of the bootstrap and the flips.
    """
    p = {name: _p_value(before, after, seed) for name, (before, after) in scored.items()}
    adjusted = holm(p)
    found = []
    for name, (before, after) in scored.items():
        difference = after - before
        change, low, high = float(difference.mean()), 0.0, 0.0
        if difference.any():
            low, high = bca_bootstrap(lambda w, d=difference: (w @ d) / w.sum(1), len(difference), seed=seed)
        counts = adjusted[name] < level and abs(change) >= margin and change != 0
        verdict = "unchanged" if not counts else "worse" if change < 0 else "better"
        found.append(
            Change(
                name,
                len(before),
                float(before.mean()),
                float(after.mean()),
                change,
                low,
                high,
                p[name],
                adjusted[name],
                verdict,
            )
        )
    return found


def _p_value(before: np.ndarray, after: np.ndarray, seed: int) -> float:
    if np.isin(before, (0, 1)).all() and np.isin(after, (0, 1)).all():
        return mcnemar(before.astype(bool), after.astype(bool))
    difference = after - before
    if not difference.any():
        return 1.0
    flips = np.random.default_rng(seed).integers(0, 2, (_FLIPS, len(difference))) * 2 - 1
    means = np.abs(flips @ difference)
    # rounding must not tell the observed sum from its equals among the flips
    return float((1 + (means >= abs(difference.sum()) - 1e-9).sum()) / (_FLIPS + 1))
