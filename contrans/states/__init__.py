"""What does a model think? Hidden states of its blocks, paired across models, and their moments."""

from typing import TYPE_CHECKING

from contrans.lazy import lazy

if TYPE_CHECKING:
    from contrans.states.capturing import CapturedStates, StateBatch, capture, iter_states
    from contrans.states.moments import Moments
    from contrans.states.pairing import (
        PairedPositions,
        Pairing,
        match_rate,
        match_rate_note,
        pair_by_offset,
        pair_positions,
    )

__all__ = [
    "CapturedStates",
    "Moments",
    "PairedPositions",
    "Pairing",
    "StateBatch",
    "capture",
    "iter_states",
    "match_rate",
    "match_rate_note",
    "pair_by_offset",
    "pair_positions",
]

__getattr__, __dir__ = lazy(
    __name__,
    {
        "CapturedStates": "capturing",
        "Moments": "moments",
        "PairedPositions": "pairing",
        "Pairing": "pairing",
        "StateBatch": "capturing",
        "capture": "capturing",
        "iter_states": "capturing",
        "match_rate": "pairing",
        "match_rate_note": "pairing",
        "pair_by_offset": "pairing",
        "pair_positions": "pairing",
    },
)
