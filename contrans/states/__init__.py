"""What does a model think? Hidden states of its blocks, paired across models, and their moments."""

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
