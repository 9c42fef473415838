"""A model in two halves on two devices: read, steered, written with and validated, it is the whole one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import disk_offload, dispatch_model

from contrans.concepts.contrast import ContrastSet, family_of
from contrans.models import Model
from contrans.states.capturing import capture, iter_states
from contrans.transplants import OPERATIONS, Transplant
from contrans.validation.arms import Directions
from contrans.validation.comparison import validate
from contrans.validation.emotion import EmotionProtocol
from contrans.validation.fluency import FluencyMeter
from tests.devices import FIRST, SECOND, fake_devices
from tests.texts import write_family
from tests.tiny import tiny

TEXTS = ["the cat sat on the mat", "a dog", "nobody knows what the map was for"]
BELOW, ABOVE = 1, 2
"""The last block of the first device, and the first of the second."""
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0}


def whole() -> Model:
    return tiny("llama", max_position_embeddings=2048)


@pytest.fixture
def split() -> Model:
    """Embeddings and the first two blocks on one device; the others, the norm and the head on another one."""
    model = whole()
    places = {"model.embed_tokens": FIRST, "model.rotary_emb": FIRST, "model.norm": SECOND, "lm_head": SECOND}
    places |= {f"model.layers.{i}": FIRST if i <= BELOW else SECOND for i in range(model.n_blocks)}
    dispatch_model(model.module, places)
    assert {p.device for p in model.module.parameters()} == {FIRST, SECOND}
    return model


@pytest.fixture(scope="module")
def family(tmp_path_factory: pytest.TempPathFactory) -> list[ContrastSet]:
    folder: Path = tmp_path_factory.mktemp("mood")
    return family_of(write_family(folder)[0])


@pytest.fixture(autouse=True)
def _two_devices() -> Iterator[None]:
    with fake_devices():
        yield


def shift(model: Model, seed: int = 0) -> torch.Tensor:
    return torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))


def logits(model: Model) -> torch.Tensor:
    ids = torch.tensor([[1, 20, 35, 70, 111, 9, 54], [1, 30, 30, 12, 99, 8, 7]])
    with torch.inference_mode():
        return model.module(ids.to(model.device)).logits.cpu()


def test_devices_do_not_mix() -> None:
    here, there = torch.ones(3).to(FIRST), torch.arange(3.0, device=SECOND)
    assert (here.device, torch.tensor([1], device=SECOND).device, there[[0, 2]].device) == (FIRST, SECOND, SECOND)
    for other in (there, torch.ones(3)):
        with pytest.raises(RuntimeError, match="same device"):
            here + other
    with pytest.raises((RuntimeError, TypeError)):
        here.numpy()
    assert (here + there.to(FIRST)).cpu().tolist() == [1.0, 2.0, 3.0]
    here[1:] += 4
    assert (here * torch.tensor(2.0)).tolist() == [2.0, 10.0, 10.0]
    copied = here.cpu()
    here.zero_()
    assert copied.tolist() == [1.0, 5.0, 5.0]


def test_states_and_fingerprint_are_those_of_the_whole_model(split: Model) -> None:
    model = whole()
    assert split.fingerprint == model.fingerprint
    for settings in ({}, {"position": 0}, {"spans": [(1, 3), (0, 2), (2, 4)]}):
        expected, found = capture(model, TEXTS, **settings), capture(split, TEXTS, **settings)
        for block in range(model.n_blocks):
            torch.testing.assert_close(found[block], expected[block])
    for mine, other in zip(iter_states(split, TEXTS), iter_states(model, TEXTS), strict=True):
        assert [h.device for h in mine.hidden.values()] == [FIRST, FIRST, SECOND, SECOND]
        for block, hidden in other.hidden.items():
            torch.testing.assert_close(mine.hidden[block].cpu(), hidden)


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@pytest.mark.parametrize("positions", ["all", "last"])
def test_shifts_follow_the_device_of_their_block(split: Model, operation: str, positions: str) -> None:
    model = whole()
    expected: dict[str, Any] = {}
    for name, one in (("whole", model), ("split", split)):
        shifts = {BELOW: shift(one), ABOVE: shift(one, 1)}
        with Transplant(one, shifts, operation=operation, positions=positions):
            expected[name] = logits(one)
    torch.testing.assert_close(expected["split"], expected["whole"], rtol=1e-4, atol=1e-5)
    assert float((expected["whole"] - logits(model)).abs().max()) > 1e-3


@pytest.mark.parametrize("positions", ["all", "prompt", "generated"])
@pytest.mark.parametrize("beams", [1, 2])
def test_generation_keeps_each_blocks_cache_on_its_device(split: Model, positions: str, beams: int) -> None:
    written = []
    for one in (whole(), split):
        with Transplant(one, {BELOW: 3 * shift(one), ABOVE: 3 * shift(one, 1)}, positions=positions):
            written.append(one.complete(TEXTS, **GREEDY, num_beams=beams))
    assert written[0] == written[1]


@pytest.fixture
def offloaded(tmp_path: Path) -> Model:
    """All weights on disk, from where each module's are fetched while it runs."""
    model = whole()
    disk_offload(model.module, tmp_path, torch.device("cpu"))
    assert {p.device.type for p in model.module.parameters()} == {"meta"}
    assert model.device.type == "cpu"
    return model


@pytest.mark.parametrize(("parts", "block"), [("split", BELOW), ("split", ABOVE), ("offloaded", ABOVE)])
def test_validation_gives_the_same_numbers(
    parts: str, block: int, family: list[ContrastSet], request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    def judged(model: Model) -> Any:
        protocol = EmotionProtocol(model, family, block=block, split="test", per_label=2)
        by = {c.label: shift(model, i) for i, c in enumerate(family)}
        directions = Directions({"transplanted": by, "own": {k: -v for k, v in by.items()}}, 2.0, 0)
        meter = FluencyMeter(model, block, TEXTS)
        arms = ["unsteered", "transplanted", "own", "random"]
        return validate(protocol, directions, meter, arms=arms, doses=dict.fromkeys(arms[1:], 0.5), random_draws=2)

    rows, summary = judged(whole())
    found, same = judged(request.getfixturevalue(parts))
    assert same == summary
    assert "full forward passes" not in caplog.text  # the quick way is taken all the same
    for one, other in zip(found, rows, strict=True):
        assert (one.concept, one.arm, one.metric, one.n) == (other.concept, other.arm, other.metric, other.n)
        assert one.value == pytest.approx(other.value, rel=1e-4, abs=1e-6)
