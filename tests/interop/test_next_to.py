"""Next to accelerate, PEFT, bitsandbytes and torch.compile: a transplant works there, or is refused with a sentence."""

from typing import Any

import pytest
import torch
from accelerate import cpu_offload, disk_offload, dispatch_model
from torch import nn
from transformers import AutoModelForCausalLM

from contrans.errors import ModelError
from contrans.exchange.baked import export_baked
from contrans.models import Model
from contrans.transplants import Transplant, bake_shifts
from tests.interop.missing import package
from tests.tiny import tiny
from tests.transplants.oracle import BLOCK
from tests.transplants.test_apply import vector_for

pytestmark = pytest.mark.interop
IDS = torch.tensor([[1, 20, 35, 70, 111, 9, 54]])
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 4, "min_new_tokens": 4, "pad_token_id": 0}


def shift_for(model: Model) -> torch.Tensor:
    return torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))


def edited(model: Model) -> torch.Tensor:
    """Logits with the shift added by a plain hook at every token but BOS, which is the first."""
    shift = shift_for(model)

    def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
        hidden = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        hidden[:, 1:] += shift.to(hidden)
        return hidden if isinstance(output, torch.Tensor) else (hidden, *output[1:])

    handle = model.blocks[BLOCK].register_forward_hook(hook)
    try:
        return run(model)
    finally:
        handle.remove()


def run(model: Model) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(IDS).logits.float()


def check(model: Model, *, atol: float = 1e-5) -> None:
    """The transplant is the plain hook, moves something, generates, and leaves nothing behind."""
    before = run(model)
    with Transplant(model, {BLOCK: shift_for(model)}):
        got = run(model)
        assert model.generate(IDS, **GREEDY).shape == (1, 11)
    torch.testing.assert_close(got, edited(model), rtol=1e-4, atol=atol)
    assert float((got - before).abs().max()) > 100 * atol
    torch.testing.assert_close(run(model), before)


@pytest.mark.parametrize("how", ["dispatched", "cpu_offload", "disk_offload"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_accelerate(architecture, how, tmp_path):
    model = tiny(architecture)
    expected = run(model)
    if how == "dispatched":
        dispatch_model(model.module, {"": "cpu"}, force_hooks=True)
    elif how == "cpu_offload":
        cpu_offload(model.module, torch.device("cpu"))
    else:
        disk_offload(model.module, str(tmp_path), torch.device("cpu"))
    torch.testing.assert_close(run(model), expected)
    check(model)
    if how != "dispatched":
        with pytest.raises(ModelError, match="offloaded; load it with device_map=None"):
            bake_shifts(model, {BLOCK: shift_for(model)})


def test_a_device_map_with_a_part_on_disk(tmp_path):
    plain = tiny("llama")
    saving: Any = plain.module
    saving.save_pretrained(tmp_path / "model")
    places = dict.fromkeys(["model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"], "cpu")
    places |= {f"model.layers.{i}": "disk" if i in (1, BLOCK) else "cpu" for i in range(plain.n_blocks)}
    loaded = AutoModelForCausalLM.from_pretrained(
        tmp_path / "model", device_map=places, offload_folder=tmp_path / "disk", dtype=torch.float32
    )
    model = Model.wrap(loaded, plain.tokenizer)
    assert any(p.is_meta for p in loaded.parameters())
    torch.testing.assert_close(run(model), run(plain))
    check(model)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_peft(architecture, tmp_path):
    peft = package("peft")
    model = tiny(architecture)
    plain = run(model)
    target = "q_proj" if architecture == "llama" else "c_attn"
    settings = peft.LoraConfig(target_modules=[target], r=2, init_lora_weights=False, task_type="CAUSAL_LM")
    adapted = Model.wrap(peft.get_peft_model(model.module, settings), model.tokenizer)
    assert not torch.allclose(run(adapted), plain, atol=1e-3)
    assert adapted.n_blocks == model.n_blocks
    check(adapted)
    with pytest.raises(ModelError, match="has an adapter; merge it"):
        export_baked(adapted, vector_for(adapted), tmp_path / "x", dose=0.2)
    merging: Any = adapted.module
    merged = Model.wrap(merging.merge_and_unload(), model.tokenizer)
    check(merged)
    if architecture == "gpt2":
        with Transplant(merged, {BLOCK: shift_for(merged)}, positions="with_bos"):
            expected = run(merged)
        baked = bake_shifts(merged, {BLOCK: shift_for(merged)})
        torch.testing.assert_close(run(baked), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("bits", [8, 4])
def test_bitsandbytes(bits, tmp_path):
    package("bitsandbytes")
    from transformers import BitsAndBytesConfig

    plain = tiny("llama", hidden_size=64)
    saving: Any = plain.module
    saving.save_pretrained(tmp_path / "model")
    settings = BitsAndBytesConfig(load_in_8bit=bits == 8, load_in_4bit=bits == 4)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "model", quantization_config=settings, device_map="cpu")
    model = Model.wrap(loaded, plain.tokenizer)
    assert {type(m).__name__ for m in loaded.modules()} & {"Linear8bitLt", "Linear4bit"}
    assert not torch.allclose(run(model), run(plain), atol=1e-3)
    # what is added is the same to a rounding of the residual stream, which is in half precision
    check(model, atol=5e-2 if loaded.dtype != torch.float32 else 1e-4)
    with pytest.raises(ModelError, match="is quantised; bake it before"):
        export_baked(model, vector_for(model), tmp_path / "x", dose=0.2)


def test_torch_compile(tmp_path, caplog):
    model = tiny("llama")
    with Transplant(model, {BLOCK: shift_for(model)}):
        expected = run(model)
    plain = run(model)
    wrapped = Model.wrap(torch.compile(model.module, backend="eager"), model.tokenizer)  # pyright: ignore
    torch.testing.assert_close(run(wrapped), plain)
    # it runs as it is written while the transplant is in, says so, and is compiled again after
    with Transplant(wrapped, {BLOCK: shift_for(model)}):
        torch.testing.assert_close(run(wrapped), expected)
    assert "is compiled; it runs uncompiled" in caplog.text
    torch.testing.assert_close(run(wrapped), plain)
    with pytest.raises(ModelError, match="is compiled; bake the plain model"):
        bake_shifts(wrapped, {BLOCK: shift_for(model)})
