"""Where versions differ: in their numbers, by paired tests where items were kept, and in their settings."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

from contrans.errors import ContransError
from contrans.validation.drift import changes
from contrans.validation.outcomes import FILE, Outcomes, paired
from contrans.validation.row_table import MEAN, OF_THE_EFFECT, is_p_value
from contrans.validation.wording import p_value
from registry.browse.facts import settings
from registry.browse.reading import Reader
from registry.gates import CHOSEN_ON
from registry.records import Result, Version

_Measured = tuple[Result, Outcomes | None]
_ARMS = ("transplanted", "unsteered", "own")
_MADE_WITH = ("vector", "map")  # inputs whose settings are compared too: they are what makes a transplant differ
_VERDICTS = {"better": "higher", "worse": "lower", "unchanged": "no difference"}
_MARKS = {"higher": "▲", "lower": "▼", "no difference": "="}


@dataclass(frozen=True)
class Difference:
    """How a number differs from the first version's.

    Attributes:
        change: The number minus the first one's.
        low: Lower end of its 95 % interval.
        high: Upper end.
        p: P-value of the paired test after Holm; None where intervals decide.
        test: "paired" or "intervals".
        verdict: "higher", "lower" or "no difference".
    """

    change: float
    low: float
    high: float
    p: float | None
    test: str
    verdict: str

    @property
    def words(self) -> str:
        """Such as "▲ +0.12, p = 0.003" or "= +0.01 [-0.02, +0.04]"."""
        beside = f" [{self.low:+.2f}, {self.high:+.2f}]" if self.p is None else f", {p_value(self.p)}"
        return f"{_MARKS[self.verdict]} {self.change:+.2f}{beside}"


@dataclass(frozen=True)
class Number:
    """One measured number of every version, None where it was not measured, and its difference to the first."""

    protocol: str
    arm: str
    metric: str
    results: tuple[Result | None, ...]
    differences: tuple[Difference | None, ...]


@dataclass(frozen=True)
class Setting:
    """A setting of every version as text, "–" where one has none."""

    name: str
    values: tuple[str, ...]

    @property
    def differs(self) -> bool:
        """Whether the versions are not alike in it."""
        return len(set(self.values)) > 1


def compared_settings(registry: Reader, versions: Sequence[Version]) -> list[Setting]:
    """The settings of versions and of the vectors and maps that they were made with, what differs first."""
    found = []
    for version in versions:
        lines = settings(version.manifest)
        for role, parent in registry.inputs(version):
            if role in _MADE_WITH:
                lines |= settings(parent.manifest, f"{role}.")
        found.append(lines)
    names = dict.fromkeys(name for lines in found for name in lines)
    rows = [Setting(name, tuple(lines.get(name, "–") for lines in found)) for name in names]
    return sorted(rows, key=lambda row: not row.differs)


def compared_numbers(registry: Reader, versions: Sequence[Version]) -> list[Number]:
    """What validations say of versions on test, and how the others differ from the first.

    Where the validations of two kept the outcomes of their items, the effect is compared by a paired test on the items
    that they share; every other number by the intervals of the two (see `difference`). What is said of the effect, such
    as the gain recovered, is not compared where that is the accuracy in one and the selectivity in the other.
    """
    measured = [_measured(registry, version) for version in versions]
    scored: dict[str, Any] = {}
    for key, (result, outcomes) in measured[0].items():
        for i, of in enumerate(measured[1:], 1):
            other, others = of.get(key, (None, None))
            if outcomes is None or others is None or other is None or not outcomes.effect == others.effect == key[2]:
                continue
            try:
                if result.concept == other.concept:
                    scored[_name(key, i)] = paired(outcomes, others, key[1], result.concept)
            except ContransError:
                continue  # no item in common: the intervals decide
    tested = {change.name: change for change in changes(scored)}
    numbers = []
    for key in dict.fromkeys(key for of in measured for key in of):
        results = tuple(of[key][0] if key in of else None for of in measured)
        differences: list[Difference | None] = []
        for i, result in enumerate(results):
            change = tested.get(_name(key, i))
            if change is not None:
                found = (change.change, change.low, change.high, change.p_holm)
                differences.append(Difference(*found, "paired", _VERDICTS[change.verdict]))
            else:
                alike = i and _of_one_effect(key[2], measured[0].get(key), measured[i].get(key))
                differences.append(_by_intervals(results[0], result) if alike else None)
        numbers.append(Number(*key, results, tuple(differences)))
    return numbers


def difference(first: Result, other: Result) -> tuple[float, float] | None:
    """The 95 % interval of `other` − `first` from the interval of each; None where one has none.

    The square-and-add interval of Newcombe (1998, method 10) and Zou & Donner (2008): d ∓ √((θ₂ − l₂)² + (u₁ − θ₁)²).
    It takes the two for independent; versions scored on the same items differ by less than it allows for, so that a
    difference that it calls one is one.
    """
    ends = (first.value, first.low, first.high, other.value, other.low, other.high)
    if any(end is None for end in ends):
        return None
    value, low, high, value2, low2, high2 = (float(end) for end in ends if end is not None)
    apart = value2 - value
    return apart - sqrt((value2 - low2) ** 2 + (high - value) ** 2), apart + sqrt(
        (high2 - value2) ** 2 + (value - low) ** 2
    )


def _name(key: tuple[str, str, str], i: int) -> str:
    return "\n".join((*key, str(i)))


def _of_one_effect(metric: str, first: _Measured | None, other: _Measured | None) -> bool:
    effects = {of[1].effect for of in (first, other) if of is not None and of[1] is not None}
    return metric not in OF_THE_EFFECT or len(effects) < 2


def _by_intervals(first: Result | None, other: Result | None) -> Difference | None:
    ends = None if first is None or other is None else difference(first, other)
    if ends is None or first is None or other is None or first.value is None or other.value is None:
        return None
    verdict = "higher" if ends[0] > 0 else "lower" if ends[1] < 0 else "no difference"
    return Difference(other.value - first.value, *ends, None, "intervals", verdict)


def _measured(registry: Reader, version: Version) -> dict[tuple[str, str, str], _Measured]:
    """By protocol, arm and metric: the number, its own concept's before the mean, and the items it was measured on."""
    found: dict[tuple[str, str, str], _Measured] = {}
    for validation in registry.validations(version):
        outcomes = None
        if FILE in registry.files(validation):
            outcomes = Outcomes.from_json(json.loads(registry.read(validation, FILE)))
        rows = [r for r in registry.results(validation) if r.split not in CHOSEN_ON and not is_p_value(r.metric)]
        for row in sorted(
            rows, key=lambda r: (r.concept == MEAN, _ARMS.index(r.arm) if r.arm in _ARMS else len(_ARMS))
        ):
            if row.arm in _ARMS:
                found.setdefault((row.protocol, row.arm, row.metric), (row, outcomes))
    return found
