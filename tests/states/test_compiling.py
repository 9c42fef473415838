"""Compiled blocks: the same states as without, a model that is left as it was, and a warning where it cannot be."""

import logging
import os
import shutil

import pytest
import torch

from contrans.errors import SpecError
from contrans.models import Model
from contrans.states import capture
from contrans.states.compiling import CompiledBlocks
from tests.tiny import tiny_model, tiny_tokenizer

TEXTS = ["a b", "c d e f", "g h i j k l m n", "one"]


@pytest.fixture
def model() -> Model:
    return Model.wrap(tiny_model("llama", seed=1, hidden_size=32, layers=2), tiny_tokenizer("bytes"), "tiny")


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="torch.compile needs a C++ compiler")
def test_states_are_those_of_eager_blocks(model: Model) -> None:
    forwards = [block.forward for block in model.blocks]
    eager = capture(model, TEXTS, batch_tokens=32)
    compiled = capture(model, TEXTS, batch_tokens=32, compile=True)
    assert torch._dynamo.utils.counters["frames"]["ok"] >= 1
    for block in (0, 1):
        torch.testing.assert_close(compiled[block], eager[block], rtol=1e-5, atol=1e-5)
    assert compiled.n_tokens == eager.n_tokens
    assert [block.forward for block in model.blocks] == forwards
    assert not any("forward" in vars(block) for block in model.blocks)


def test_what_cannot_be_compiled_runs_as_it_is(
    model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from torch._dynamo.exc import BackendCompilerFailed

    def broken(*_: object) -> None:
        raise ValueError("no compiler here")

    compile_with = torch.compile
    monkeypatch.setattr(torch, "compile", lambda function, **options: compile_with(function, backend=broken, **options))
    with caplog.at_level(logging.WARNING, "contrans"):
        compiled = capture(model, TEXTS, batch_tokens=8, compile=True)
    assert issubclass(BackendCompilerFailed, RuntimeError)
    assert caplog.text.count("captured without torch.compile") == 1
    eager = capture(model, TEXTS, batch_tokens=8)
    assert all(torch.equal(compiled[block], eager[block]) for block in (0, 1))
    assert compiled.n_tokens == eager.n_tokens


def test_compiled_blocks_are_for_float32(model: Model) -> None:
    with pytest.raises(SpecError, match="multiply in float32, not bfloat16"):
        capture(model, TEXTS, precision="bfloat16", compile=True)


def test_a_forward_of_accelerate_is_put_back(model: Model) -> None:
    block = model.blocks[0]
    own = block.forward
    block.forward = own
    CompiledBlocks(model, 0, "float32").run(lambda: None)
    assert vars(block)["forward"] == own
