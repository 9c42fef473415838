"""Pairing as a table, without a model; and the match rate of two real tokenizers."""

import pytest

from contrans.states import match_rate, pair_by_offset
from contrans.states.pairing import PairedPositions
from tests.tiny import tiny


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([0, 3, 7], [0, 3, 7], ([1, 2], [1, 2])),
        ([0, 3, 5, 7], [0, 2, 3, 7], ([1, 3], [2, 3])),
        ([3, 7], [0, 3, 7], ([1], [2])),  # position 0 is a sink even without BOS
        ([0, 4, 4, 6], [0, 4, 6], ([2, 3], [1, 2])),  # bytes of one sign: the last has seen all of it
        ([0, 1], [0, 2], ([], [])),
        ([], [], ([], [])),
    ],
)
def test_pair_by_offset(source, target, expected):
    assert pair_by_offset(source, target) == PairedPositions(*expected)


def test_match_rate_is_one_for_equal_tokenizers_and_less_for_others():
    texts = ["the weather there", "one mountain of lemons"]
    one, same, other = tiny("llama"), tiny("gpt2"), tiny("llama", vocab="pieces")
    assert match_rate(one, same, texts) == 1.0
    assert 0 < match_rate(one, other, texts) < 1
