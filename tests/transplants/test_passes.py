"""Masks and caches as tables, without a model."""

import pytest
import torch
from transformers import DynamicCache

from contrans.errors import StateError
from contrans.transplants.passes import cached_columns, leading, named, read_pass, real_tokens

LEFT = torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
RIGHT = torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]])


def causal(mask: torch.Tensor, room: int, window: int = 99) -> torch.Tensor:
    """A mask [rows, 1, width, room] as transformers makes it: query q sees real keys k with q − window < k ≤ q."""
    width = mask.shape[1]
    q, k = torch.arange(width)[:, None], torch.arange(room)[None]
    seen = (k <= q) & (k > q - window)
    keys = torch.cat([mask.bool(), torch.ones(len(mask), room - width, dtype=torch.bool)], 1)
    return (seen & keys[:, None])[:, None]


@pytest.mark.parametrize(
    ("mask", "width", "past", "expected"),
    [
        (None, 2, 0, [[1, 1], [1, 1]]),
        (LEFT, 4, 0, LEFT.tolist()),
        (LEFT, 2, 2, [[1, 1], [1, 1]]),
        (RIGHT, 1, 3, [[0], [1]]),
        (LEFT.bool(), 4, 0, LEFT.tolist()),
        (causal(LEFT, 4), 4, 0, LEFT.tolist()),
        (causal(RIGHT, 4), 4, 0, RIGHT.tolist()),
        # a static cache has room for more than has been read
        (causal(LEFT, 9), 4, 0, LEFT.tolist()),
        # early keys lie outside the last query's window
        (causal(LEFT, 4, window=2), 4, 0, LEFT.tolist()),
        (torch.where(causal(LEFT, 4), 0.0, float("-inf")), 4, 0, LEFT.tolist()),
        ({"sliding_attention": causal(LEFT, 4, window=1), "full_attention": causal(LEFT, 4)}, 4, 0, LEFT.tolist()),
        ({"full_attention": None}, 3, 0, [[1, 1, 1]] * 2),
        # one mask for all rows
        (causal(torch.ones(1, 3), 3), 3, 0, [[1, 1, 1]] * 2),
        # one step: the query sees all that is cached, and the static room after it stays empty
        (torch.tensor([[[[0, 1, 1, 1, 0, 0]]], [[[1, 1, 1, 1, 0, 0]]]]).bool(), 1, 3, [[1], [1]]),
    ],
)
def test_real_tokens(mask, width, past, expected):
    got = real_tokens(mask, 2, width, past, torch.device("cpu"))
    assert got.dtype == torch.bool
    assert got.int().tolist() == expected


def test_leading_bos_only():
    is_bos = torch.tensor([[1, 1, 0, 1], [0, 1, 0, 0]]).bool()
    assert leading(is_bos, LEFT.bool()).int().tolist() == [[0, 1, 0, 0], [0, 0, 0, 0]]


def test_caches():
    cache = DynamicCache()
    assert cached_columns(None) == cached_columns(cache) == 0
    cache.update(torch.zeros(1, 2, 7, 4), torch.zeros(1, 2, 7, 4), 0)
    assert cached_columns(cache) == 7
    assert cached_columns(((torch.zeros(1, 2, 5, 4), torch.zeros(1, 2, 5, 4)),)) == 5


def test_a_pass_by_position_or_by_name():
    ids = torch.tensor([[1, 2, 3]])
    by_position, by_name = (read_pass("x", named(*call)) for call in (((ids,), {}), ((), {"input_ids": ids})))
    assert by_position.ids is by_name.ids is ids
    assert (by_name.shape, by_name.past, by_name.embeds) == ((1, 3), 0, None)
    assert bool(by_name.real.all())
    assert read_pass("x", {"inputs_embeds": torch.zeros(2, 5, 8)}).shape == (2, 5)
    with pytest.raises(StateError, match="neither input_ids nor inputs_embeds"):
        read_pass("x", {})
