"""The same round trip against the real Hub; runs where a token and a repository to write to are named."""

import os
import time

import pytest
import torch

from registry import Registry
from registry.hub import fetch, publish
from tests.hub.concepts import SOURCE, TARGET, fill

REPO = os.environ.get("CONTRANS_TEST_HUB_REPO", "")


@pytest.mark.skipif(not (REPO and os.environ.get("HF_TOKEN")), reason="needs HF_TOKEN and CONTRANS_TEST_HUB_REPO")
def test_round_trip(registry: Registry) -> None:
    from huggingface_hub import HfApi

    made = fill(registry, note=str(time.time()))
    hub, name = HfApi(), f"anger/{SOURCE.name}/{TARGET.name}"
    hub.delete_repo(REPO, missing_ok=True)
    try:
        first = publish(registry, name, REPO, private=True)
        again = publish(registry, name, REPO, private=True)
        assert (first.created, again.created, again.commit) == (True, False, first.commit)
        found = fetch(f"{REPO}@v1", target=TARGET.reference)
        assert found.commit == first.commit
        assert torch.equal(found.vector.direction(2), made.transplants[TARGET.name].direction(2))
    finally:
        hub.delete_repo(REPO, missing_ok=True)
