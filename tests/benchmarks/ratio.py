"""Paired rounds: two things take turns, and what counts is the ratio of their times within a round."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Thing = Callable[[], object]


@dataclass(frozen=True)
class Ratio:
    """How many times faster one thing is than another, over paired rounds.

    Attributes:
        values: of each round the time of the other over ours; above 1 we are faster.
        ours: seconds of each round.
        theirs: seconds of each round.
        notes: what else was measured, such as memory, by name.
    """

    values: tuple[float, ...]
    ours: tuple[float, ...] = ()
    theirs: tuple[float, ...] = ()
    notes: dict[str, float] | None = None

    @property
    def median(self) -> float:
        """The median over rounds."""
        return statistics.median(self.values)


@dataclass(frozen=True)
class Benchmark:
    """A comparison with a name.

    Attributes:
        name: of what is measured, a key of `benchmarks.json`.
        against: what it is compared with, in words.
        target: the ratio that it should reach.
        run: compares them in so many rounds.
        needs_models: whether it loads the two models of the quickstart.
    """

    name: str
    against: str
    target: float
    run: Callable[[int], Ratio]
    needs_models: bool = True

    def entry(self, found: Ratio) -> dict[str, Any]:
        """What `benchmarks.json` says of it."""
        ratio = {"min": min(found.values), "median": found.median, "max": max(found.values)}
        entry: dict[str, Any] = {
            "name": self.name,
            "against": self.against,
            "ratio": {k: round(v, 4) for k, v in ratio.items()},
            "rounds": len(found.values),
            "unit": "time of the other / our time",
            "target": self.target,
        }
        if found.ours:
            entry["seconds"] = round(statistics.median(found.ours), 4)
            entry["seconds_against"] = round(statistics.median(found.theirs), 4)
        return entry | ({"notes": found.notes} if found.notes else {})


def compare(ours: Thing, theirs: Thing, *, rounds: int, warm: int = 1, notes: dict[str, float] | None = None) -> Ratio:
    """Runs both in turn, each first in every other round, and pairs the times of a round.

    Args:
        ours: what is measured.
        theirs: what it is compared with.
        rounds: how many pairs of times.
        warm: rounds before that are not counted.
        notes: what else to report.
    """
    mine, other = [], []
    for number in range(warm + rounds):
        order = (ours, theirs) if number % 2 == 0 else (theirs, ours)
        taken = {thing: seconds(thing) for thing in order}
        if number >= warm:
            mine.append(taken[ours])
            other.append(taken[theirs])
    values = tuple(b / a for a, b in zip(mine, other, strict=True))
    return Ratio(values, tuple(mine), tuple(other), notes)


def seconds(thing: Thing) -> float:
    """Wall seconds that a call takes."""
    start = time.perf_counter()
    thing()
    return time.perf_counter() - start
