"""Products while states are read, against the plain library."""

import pytest
import torch
from torch import nn

from contrans.errors import SpecError
from contrans.models import Model
from contrans.states import capture, products
from contrans.states.precision import autocast
from contrans.states.products import Products
from tests.tiny import tiny

TEXTS = ["the cat sat", "one stone alone on a mountain"]
ARCHITECTURES = ["llama", "gpt2", "gpt_neox", "mixtral", "gemma3_text", "deepseek_v3"]


def plain_states(model: Model, text: str, precision: str = "float32") -> torch.Tensor:
    """The last block's output [width, d] of one text, by a plain forward pass."""
    found = []
    handle = model.blocks[-1].register_forward_hook(
        lambda _m, _a, o: found.append((o if isinstance(o, torch.Tensor) else o[0])[0])
    )
    with torch.inference_mode(), autocast(torch.device("cpu"), precision):
        model.module(**model.tokenizer(text, return_tensors="pt"), use_cache=False)
    handle.remove()
    return found[0]


@pytest.mark.parametrize("faster", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_float32_states_are_those_of_a_plain_forward(architecture, faster, monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: faster)
    model = tiny(architecture)
    made = capture(model, TEXTS)[3]
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(made[i], plain_states(model, text)[-1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bfloat16_states_are_those_of_autocast(architecture):
    model = tiny(architecture)
    made = capture(model, TEXTS, precision="bfloat16", batch_tokens=1)[3]
    for i, text in enumerate(TEXTS):
        expected = plain_states(model, text, "bfloat16")[-1]
        # the same products of the same rounded weights; attention without a mask may round otherwise
        assert torch.nn.functional.cosine_similarity(made[i], expected, dim=0) > 0.9999


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_layers_are_put_back_also_after_an_error(precision, monkeypatch):
    monkeypatch.setattr(products, "onednn_is_faster", lambda: True)
    model = tiny("llama")
    before = {name: (p.data_ptr(), p.dtype) for name, p in model.module.named_parameters()}
    chosen = Products(model, [0, 1], precision)

    def inside() -> None:
        with chosen.active():
            layer: nn.Linear = model.blocks[0].get_submodule("mlp.up_proj")  # type: ignore[assignment]
            changed = layer.weight.dtype == torch.bfloat16 or "forward" in vars(layer)
            assert changed
            assert "forward" not in vars(model.blocks[2].get_submodule("mlp.up_proj"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        inside()
    assert {name: (p.data_ptr(), p.dtype) for name, p in model.module.named_parameters()} == before
    assert not any("forward" in vars(m) for m in model.module.modules())


class Int8Linear(nn.Module):
    """A linear layer that holds int8 weights and scales, as weight-only quantisation does."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__()
        scale = layer.weight.abs().amax(1, keepdim=True) / 127
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.weight = nn.Parameter((layer.weight / scale).round().to(torch.int8), requires_grad=False)
        self.bias = layer.bias

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.weight.to(x.dtype) * self.scale.to(x.dtype), self.bias)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_weight_only_int8_models_are_read(precision):
    model, whole = tiny("llama"), tiny("llama")
    for block in model.blocks:
        for name, child in list(block.named_modules()):
            if type(child) is nn.Linear:
                block.set_submodule(name, Int8Linear(child))
    made = capture(model, TEXTS, precision=precision)[3]
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(made[i], plain_states(model, text, precision)[-1], rtol=0.05, atol=0.05)
    assert torch.nn.functional.cosine_similarity(made, capture(whole, TEXTS)[3]).min() > 0.99


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_models_that_torch_quantised_are_read_in_float32_only():
    whole = tiny("llama")
    quantised = torch.ao.quantization.quantize_dynamic(whole.module, {nn.Linear}, dtype=torch.qint8)
    model = Model.wrap(quantised, whole.tokenizer)
    made = capture(model, TEXTS, batch_tokens=1)[3]
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(made[i], plain_states(model, text)[-1], rtol=1e-3, atol=1e-3)
    with pytest.raises(SpecError, match=r"quantised by torch.*use precision float32"):
        capture(model, TEXTS, precision="bfloat16")
