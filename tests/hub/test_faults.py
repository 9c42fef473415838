"""Many publications over a line on which anything may go wrong: each ends once and whole, or is reported."""

import os
import random

import pytest

from contrans.errors import ContransError
from registry import Registry
from registry.hub import fetch, publish
from registry.hub.client import Patience
from tests.hub.concepts import SOURCE, TARGET, Made
from tests.hub.server import Hub

ROUNDS = int(os.environ.get("CONTRANS_HUB_ROUNDS", "20"))  # 200 take minutes
FAULTS = ("drop", "lost", "500", "slow")
NAME = f"anger/{SOURCE.name}/{TARGET.name}"


@pytest.mark.parametrize("part", range(4))
def test_each_attempt_ends_once_and_whole_or_is_reported(hub: Hub, made: Made, registry: Registry, part: int) -> None:
    dice = random.Random(part)
    reported = 0
    for round_ in range(-(-ROUNDS // 4)):
        rate, seed = dice.choice([0.1, 0.3, 0.6]), dice.random()
        line = random.Random(seed)

        def fault(operation: str, line: random.Random = line, rate: float = rate) -> str | None:
            if line.random() >= rate:
                return None
            if operation == "commit" and line.random() < 0.2:
                return "412"
            if operation == "resolve" and line.random() < 0.5:
                return line.choice(["truncate", "corrupt"])
            return line.choice(FAULTS)

        hub.fault = fault
        repo = f"org/concept-{round_}"
        patience = Patience(attempts=4, wait=0.001)
        try:
            done = publish(registry, NAME, repo, endpoint=hub.url, patience=patience)
        except ContransError:
            reported += 1
            done = None
        there = hub.repos.get(repo)
        ours = [] if there is None else [c for c in there.commits if "contrans.json" in c.files]
        assert len(ours) <= 1
        assert there is None or all({"model.safetensors", "README.md"} <= c.files.keys() for c in ours)
        if done is not None:
            assert there is not None
            assert there.tags == {"v1": ours[0].oid} == {"v1": done.commit}
        hub.fault = lambda operation: None
        # Whatever was reported, once the line is good again the same call finishes it, once.
        again = publish(registry, NAME, repo, endpoint=hub.url, patience=patience)
        assert hub.repos[repo].tags == {"v1": again.commit}
        assert sum("contrans.json" in c.files for c in hub.repos[repo].commits) == 1
        assert done is None or done.commit == again.commit
        hub.fault = fault
        try:
            found = fetch(f"{repo}@v1", target=TARGET.reference, endpoint=hub.url, patience=patience)
        except ContransError:
            continue
        assert found.vector.to_files() == made.transplants[TARGET.name].to_files()
    assert reported < ROUNDS
