"""Gain recovered of transplants and of those before them, against a walk over every result."""

from pathlib import Path

import pytest

from registry import Registry, Result, Version
from registry.gains import Gain, windows
from registry.gates import CHOSEN_ON

NAMES = ("anger/m", "joy/m")


@pytest.mark.parametrize(
    ("numbers", "back", "found"),
    [
        ([], 3, []),
        ([1], 3, [(1, 1)]),
        ([5], 1, [(5, 5)]),
        ([5], 3, [(3, 5)]),
        ([5, 6, 7], 3, [(3, 7)]),
        ([9, 2, 5], 3, [(1, 5), (7, 9)]),
        ([9, 5], 4, [(2, 9)]),
        ([9, 5], 3, [(3, 5), (7, 9)]),
        ([8, 5], 3, [(3, 8)]),  # those that touch are one
        ([4, 4], 2, [(3, 4)]),
    ],
)
def test_windows(numbers: list[int], back: int, found: list[tuple[int, int]]) -> None:
    assert windows(numbers, back) == found
    covered = [n for first, last in found for n in range(first, last + 1)]
    assert covered == sorted({n for end in numbers for n in range(max(1, end - back + 1), end + 1)})


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eleven versions of two names; every third has no gain, every fourth two validations."""
    path = tmp_path_factory.mktemp("gains") / "registry.db"
    with Registry.open(path) as registry:
        for number in range(1, 12):
            for name in NAMES:
                concept = name.split("/")[0]
                made = registry.register("transplant", name, manifest={"concept": concept, "serial": number})
                for again in range(0 if number % 3 == 0 else 2 if number % 4 == 0 else 1):
                    gain = number / 20 + again / 100
                    rows = [
                        Result(
                            concept, "p", "test", "transplanted", "gain_recovered", 0.1, gain, gain - 0.01, gain + 0.01
                        ),
                        Result("other", "p", "test", "transplanted", "gain_recovered", 0.1, 9.0),
                        Result(concept, "p", "test", "own", "gain_recovered", 0.1, 8.0),
                        Result(concept, "p", sorted(CHOSEN_ON)[0], "transplanted", "gain_recovered", 0.2, 7.0),
                        Result(concept, "p", "test", "transplanted", "kl", 0.1, 6.0),
                    ]
                    manifest = {"protocol": "p", "again": again, "serial": number}
                    registry.register(
                        "validation", f"{name}/p", manifest=manifest, inputs={"transplant": made}, results=rows
                    )
        registry.register("model", "m", manifest={"reference": "m"})
    return path


def brute(registry: Registry, version: Version, back: int) -> tuple[Gain, ...]:
    found = {}
    for validation in reversed(registry.list("validation")):  # the latest last, which counts
        judged = registry.lineage(validation, "up", depth=1).parents(validation)[0][1]
        if judged.name != version.name or not version.number - back < judged.number <= version.number:
            continue
        concept = judged.name.split("/")[0]
        for r in registry.results(validation):
            if (r.concept, r.split, r.arm, r.metric) == (concept, "test", "transplanted", "gain_recovered"):
                assert r.value is not None
                found[judged.number] = Gain(judged.number, r.value, r.low, r.high)
    return tuple(found[number] for number in sorted(found))


@pytest.mark.parametrize("back", [1, 3, 50])
def test_gains_are_those_of_a_walk_over_every_result(filled: Path, back: int) -> None:
    with Registry.open(filled) as registry:
        chosen = [v for v in registry.list() if v.kind != "transplant" or v.number in (2, 3, 8, 11)]
        found = registry.gains(chosen, back=back)
        transplants = [v for v in chosen if v.kind == "transplant"]
        assert found.keys() == {version.id for version in transplants}
        for version in transplants:
            assert found[version.id] == brute(registry, version, back), version
        assert registry.gains([]) == {}
