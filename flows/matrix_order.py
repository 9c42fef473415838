"""In which order the cells of a matrix run, so that models are loaded as rarely as possible."""

import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import TypeVar

Name = TypeVar("Name", bound=Hashable)
_WIDEST = 32
"""Models of the widest block that is tried."""


def ordered(pairs: Sequence[tuple[Name, Name]], sizes: Mapping[Name, float], room: float) -> list[int]:
    """Numbers of the cells in an order that loads few bytes, where models stay as long as there is room for them.

    Where all models fit, each is loaded once in any order, and the cells keep theirs. Else the best of some orders is
    taken: a path that changes one model at a time, choosing what loads the least for the cells that it makes possible;
    and blocks, in which some models of one side stay while those of the other side pass, forth and back.

    Args:
        pairs: source and target of each cell.
        sizes: what each model takes.
        room: what all models that are loaded at once may take; the two of a cell are loaded in any case.
    """
    as_given = list(range(len(pairs)))
    if sum(sizes[model] for model in {model for pair in pairs for model in pair}) <= room:
        return as_given
    candidates = [as_given, _path(pairs, sizes, room), *_blocks(pairs)]
    return min(candidates, key=lambda order: loads(order, pairs, sizes, room))


def loads(
    order: Sequence[int], pairs: Sequence[tuple[Name, Name]], sizes: Mapping[Name, float], room: float
) -> tuple[float, int]:
    """What an order loads, bytes and models, if the models that are wanted last of all go first.

    Args:
        order: numbers of the cells.
        pairs: source and target of each cell.
        sizes: what each model takes.
        room: what all models that are loaded at once may take.
    """
    uses: dict[Name, list[int]] = {}
    for when in reversed(range(len(order))):
        for model in dict.fromkeys(pairs[order[when]]):
            uses.setdefault(model, []).append(when)
    kept: list[Name] = []
    size, n = 0.0, 0
    for at in order:
        pair = dict.fromkeys(pairs[at])
        new = [model for model in pair if model not in kept]
        size, n = size + sum(sizes[model] for model in new), n + len(new)
        for model in pair:
            uses[model].pop()
        others = sorted((m for m in kept if m not in pair), key=lambda m: -(uses[m][-1] if uses[m] else math.inf))
        kept = _what_stays(others, list(pair), sizes, room)
    return size, n


def _what_stays(others: list[Name], used: list[Name], sizes: Mapping[Name, float], room: float) -> list[Name]:
    """The models of a cell, and of the others those at the end for which there is room."""
    while others and sum(sizes[model] for model in (*others, *used)) > room:
        others.pop(0)
    return [*others, *used]


def _path(pairs: Sequence[tuple[Name, Name]], sizes: Mapping[Name, float], room: float) -> list[int]:
    left: dict[Name, dict[int, Name]] = {}
    for at, (source, target) in enumerate(pairs):
        left.setdefault(source, {})[at] = target
        left.setdefault(target, {})[at] = source
    order: list[int] = []
    kept: list[Name] = []
    waiting = dict.fromkeys(range(len(pairs)))

    def after_cell(kept: list[Name], at: int) -> list[Name]:
        used = list(dict.fromkeys(pairs[at]))
        return _what_stays([model for model in kept if model not in used], used, sizes, room)

    while waiting:
        near = {at: None for model in kept for at in left[model]} or dict.fromkeys([next(iter(waiting))])

        def price(at: int, kept: list[Name] = kept) -> tuple[float, int, int]:
            after = after_cell(kept, at)
            size = sum(sizes[model] for model in dict.fromkeys(pairs[at]) if model not in kept)
            possible = sum(other in after for model in after for other in left[model].values())
            # models that few cells want are done with first
            return size / max(possible, 1), sum(len(left[model]) for model in pairs[at]), at

        chosen = min(near, key=price)
        kept = after_cell(kept, chosen)
        for model in pairs[chosen]:
            left[model].pop(chosen, None)
        del waiting[chosen]
        order.append(chosen)
    return order


def _blocks(pairs: Sequence[tuple[Name, Name]]) -> Iterator[list[int]]:
    for side in (0, 1):
        stays = {model: i for i, model in enumerate(dict.fromkeys(pair[side] for pair in pairs))}
        passes = {model: i for i, model in enumerate(dict.fromkeys(pair[1 - side] for pair in pairs))}
        places = [(stays[pair[side]], passes[pair[1 - side]]) for pair in pairs]
        for width in range(1, min(len(stays), _WIDEST) + 1):
            yield sorted(range(len(pairs)), key=[_in_block(*place, width) for place in places].__getitem__)


def _in_block(stays: int, passes: int, width: int) -> tuple[int, int, int]:
    block = stays // width
    # every other block backwards, so that the model that passed last is the first to pass again
    return block, passes if block % 2 == 0 else -passes, stays
