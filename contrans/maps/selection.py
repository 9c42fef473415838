"""Which pairs of blocks are worth a map: by depth first, then by what held-out states say.

Neither held-out R² nor CKA tells whether a concept will act in the target, so they only shorten the list; the choice
among those that are left falls by causal effect on dev.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from contrans.errors import BlockError

if TYPE_CHECKING:
    import torch  # slow, and a plan needs depths alone

SOURCE_DEPTHS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.97)
TARGET_DEPTHS = (0.5, 0.6, 0.7, 0.78, 0.85, 0.92)
"""Relative depths of the blocks that are looked at where none are named."""


@dataclass(frozen=True)
class PairScore:
    """What held-out states say of a pair of blocks.

    Attributes:
        source: block of the source.
        target: block of the target.
        separation: how well the concepts stand apart at the source block, mean held-out d′.
        cka: linear CKA of the two blocks' states, 0 to 1.
    """

    source: int
    target: int
    separation: float
    cka: float


def pairs_within(
    source_blocks: Sequence[int],
    target_blocks: Sequence[int],
    n_source: int,
    n_target: int,
    *,
    tolerance: float = 0.2,
) -> list[tuple[int, int]]:
    """Pairs of blocks whose relative depths (b + 1)/n lie within a tolerance; a single pair always does.

    Raises:
        BlockError: several blocks were named, but none of them pair up.
    """
    pairs = [(s, t) for s in source_blocks for t in target_blocks]
    if len(pairs) == 1:
        return pairs
    near = [(s, t) for s, t in pairs if abs((s + 1) / n_source - (t + 1) / n_target) <= tolerance + 1e-9]
    if not near:
        raise BlockError(
            f"No source block of {list(source_blocks)} lies within {tolerance:g} of the relative depth of a target "
            f"block of {list(target_blocks)}; name others, or raise the tolerance."
        )
    return near


def linear_cka(x: "torch.Tensor", y: "torch.Tensor") -> float:
    """Linear centred kernel alignment of states x [n, ds] and y [n, dt], 0 to 1.

    ‖YᵀX‖² / (‖XᵀX‖ ‖YᵀY‖) on centred rows, Frobenius norms (Kornblith et al. 2019, arXiv 1905.00414, equation 6).
    """
    x, y = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    scale = (x.T @ x).norm() * (y.T @ y).norm()
    return float((y.T @ x).square().sum() / scale) if float(scale) > 0 else 0.0


def ranked_pairs(
    pairs: Sequence[tuple[int, int]],
    source_states: Mapping[int, "torch.Tensor"],
    target_states: Mapping[int, "torch.Tensor"],
    separation: Mapping[int, float],
) -> list[PairScore]:
    """Pairs by what held-out states say for them, the best first.

    A pair's merit is the concepts' separation at the source block, relative to the best block's, times its CKA.

    Args:
        pairs: candidates.
        source_states: per source block states [n, ds] of texts.
        target_states: per target block states [n, dt] of the same texts.
        separation: per source block the mean held-out d′ of the concepts.
    """
    best = max((separation[s] for s, _ in pairs), default=0.0)
    scores = [PairScore(s, t, separation[s], linear_cka(source_states[s], target_states[t])) for s, t in pairs]

    def merit(score: PairScore) -> float:
        return score.cka * (max(score.separation, 0.0) / best if best > 0 else 1.0)

    return sorted(scores, key=lambda p: (-merit(p), p.source, p.target))
