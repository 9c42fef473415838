"""What does a model think? Hidden states of its blocks, paired across models, and their moments."""

from contrans.states.capturing import CapturedStates, StateBatch, capture, iter_states
from contrans.states.moments import Moments
from contrans.states.pairing import PairedPositions, match_rate, pair_by_offset

__all__ = [
    "CapturedStates",
    "Moments",
    "PairedPositions",
    "StateBatch",
    "capture",
    "iter_states",
    "match_rate",
    "pair_by_offset",
]
