"""Models that are spread over devices, offloaded or compiled are read like any other."""

import weakref
from typing import Any

import pytest
import torch
from accelerate import dispatch_model

from contrans.models import Model
from contrans.states import capture
from contrans.states.reading import Reader
from tests.tiny import tiny

TEXTS = ["the cat sat", "one stone alone on a mountain", "x"]


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_models_offloaded_to_disk(precision, tmp_path):
    model, expected = tiny("llama"), capture(tiny("llama"), TEXTS, precision=precision)
    places: dict[str, Any] = {
        "model.embed_tokens": "disk",
        "model.norm": "cpu",
        "model.rotary_emb": "cpu",
        "lm_head": "cpu",
    }
    places |= {f"model.layers.{i}": place for i, place in enumerate(("cpu", "disk", "disk", "cpu"))}
    cpu = torch.device("cpu")
    dispatch_model(model.module, places, main_device=cpu, offload_dir=tmp_path, force_hooks=True)
    assert model.device.type == "cpu"
    made = [capture(model, TEXTS, precision=precision) for _ in range(2)]
    upper = capture(model, TEXTS, precision=precision, blocks=[1])
    for block in range(4):
        torch.testing.assert_close(made[0][block], expected[block], rtol=1e-3, atol=1e-3)
        assert torch.equal(made[0][block], made[1][block])
    torch.testing.assert_close(upper[1], expected[1], rtol=1e-3, atol=1e-3)
    # what accelerate keeps on disk is there again
    assert {p.device.type for p in model.blocks[1].parameters()} == {"meta"}


def test_compiled_models_are_read_as_they_are_written():
    expected, plain = capture(tiny("llama"), TEXTS), tiny("llama")
    wrapped = Model.wrap(torch.compile(plain.module, backend="eager"), plain.tokenizer)  # type: ignore[arg-type]
    in_place = tiny("llama")
    in_place.module.compile(backend="eager")
    for model in (wrapped, in_place):
        with torch.inference_mode():
            # traced without our hooks
            model.module(torch.tensor([[1, 5, 9]]))
        made = capture(model, TEXTS)
        for block in range(4):
            torch.testing.assert_close(made[block], expected[block])


def test_blocks_whose_forward_is_compiled_stay_compiled():
    expected, model = capture(tiny("llama"), TEXTS), tiny("llama")
    graphs = []

    def backend(graph, _inputs):
        graphs.append(graph)
        return graph.forward

    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend=backend, dynamic=True)
    made = capture(model, TEXTS)
    assert graphs
    for block in range(4):
        torch.testing.assert_close(made[block], expected[block], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "passed"), [("llama", False), ("gemma3_text", False), ("gpt2", False), ("bloom", True)]
)
def test_decoders_that_say_that_they_are_causal_get_no_mask(architecture, passed):
    reader = Reader(tiny(architecture), [0], "float32")
    ids = torch.ones((2, 3), dtype=torch.long)
    assert ("attention_mask" in reader.inputs(ids, ids)) == passed


def test_a_blocks_whole_output_is_not_kept():
    model, outputs, alive = tiny("llama", layers=8), [], []

    def count(_module, _args, output):
        outputs.append(weakref.ref(output))
        alive.append(sum(ref() is not None for ref in outputs))

    handles = [block.register_forward_hook(count) for block in model.blocks]
    capture(model, TEXTS, batch_tokens=10_000)
    for handle in handles:
        handle.remove()
    assert len(alive) == 8
    # a block's input and its output
    assert max(alive) <= 2
