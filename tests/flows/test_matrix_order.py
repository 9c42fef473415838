"""The order of cells: as few loads as any order has, where that can be counted."""

import random
from collections.abc import Sequence
from functools import cache
from itertools import permutations, product

import pytest

from flows.matrix_order import loads, ordered


def whole(n_sources: int, n_targets: int) -> list[tuple[str, str]]:
    return [(f"s{i}", f"t{j}") for i, j in product(range(n_sources), range(n_targets))]


def even(pairs: list[tuple[str, str]]) -> dict[str, float]:
    return {model: 1.0 for pair in pairs for model in pair}


def n_loads(order: Sequence[int], pairs: list[tuple[str, str]], room: float) -> int:
    return loads(order, pairs, even(pairs), room)[1]


def of_ordered(pairs: list[tuple[str, str]], room: float) -> int:
    order = ordered(pairs, even(pairs), room)
    assert sorted(order) == list(range(len(pairs)))
    return n_loads(order, pairs, room)


@cache
def best(pairs: tuple[tuple[str, str], ...], room: float) -> int:
    return min(n_loads(order, list(pairs), room) for order in permutations(range(len(pairs))))


@pytest.mark.parametrize(("pairs", "room"), [(whole(2, 2), 4), (whole(3, 4), 7), (whole(1, 6), 7), (whole(10, 20), 30)])
def test_where_all_fit_each_is_loaded_once(pairs: list[tuple[str, str]], room: int) -> None:
    assert of_ordered(pairs, room) == len(even(pairs))
    assert ordered(pairs, even(pairs), room) == list(range(len(pairs)))


@pytest.mark.parametrize("room", [0, 2, 3])
@pytest.mark.parametrize(("n_sources", "n_targets"), [(2, 2), (2, 3), (3, 2), (1, 6)])
def test_no_order_of_a_whole_matrix_loads_fewer(n_sources: int, n_targets: int, room: int) -> None:
    pairs = whole(n_sources, n_targets)
    assert of_ordered(pairs, room) == best(tuple(pairs), room)


def test_with_room_for_one_pair_every_cell_changes_one_model() -> None:
    pairs = whole(10, 20)
    assert of_ordered(pairs, 2) == len(pairs) + 1


@pytest.mark.parametrize("room", [3, 4, 5])
def test_more_room_is_used(room: int) -> None:
    """Blocks of models that stay while the others pass one at a time, as many as fit beside that one."""
    stay = room - 1
    assert of_ordered(whole(6, 6), room) <= -(-6 // stay) * 6 + 6


@pytest.mark.parametrize("seed", range(10))
def test_cells_that_are_left_out_cost_at_most_one_load_more(seed: int) -> None:
    generator = random.Random(seed)
    pairs = generator.sample(whole(4, 4), 6)
    room = generator.choice([2, 3, 4])
    assert of_ordered(pairs, room) <= best(tuple(pairs), room) + 1


def test_the_large_model_stays() -> None:
    pairs = [("a", "big"), ("a", "b"), ("c", "big"), ("c", "b")]
    sizes = {"a": 1.0, "b": 1.0, "c": 1.0, "big": 10.0}
    size, _ = loads(ordered(pairs, sizes, 11.0), pairs, sizes, 11.0)
    assert size == 14.0  # the large one once, one of the others twice


def test_a_model_put_into_itself() -> None:
    pairs = [("a", "a"), ("a", "b"), ("b", "b")]
    assert of_ordered(pairs, 1) == 2
    assert ordered([], {}, 2) == []
