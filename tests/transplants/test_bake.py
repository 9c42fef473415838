"""A baked model computes what the hook does, and goes on doing so once it is saved and loaded by plain transformers."""

from functools import cache
from typing import Any

import pytest
import torch
from transformers import (
    AlbertConfig,
    AlbertModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    BertConfig,
    BertModel,
)

import contrans
from contrans.errors import BlockError, ModelError, SpecError, StateError
from contrans.models import Model
from contrans.transplants import Transplant, bake, bake_shifts, transplant
from tests.tiny import ARCHITECTURES, VISION_ARCHITECTURES, tiny, tiny_tokenizer
from tests.transplants.oracle import left_padded
from tests.transplants.test_apply import vector_for

TEXTS = ["the cat sat there", "one", "they think the weather"]
BLOCKS = (1, 2)
NATIVE = {
    "llama": ("mlp.down_proj", "mlp_bias"),
    "phi": ("mlp.fc2", None),
    "gpt2": ("mlp.c_proj", None),
    "gpt_neo": ("mlp.c_proj", None),
    "gptj": ("mlp.fc_out", None),
    "gpt_neox": ("mlp.dense_4h_to_h", None),
    "bloom": ("mlp.dense_4h_to_h", None),
    "falcon": ("mlp.dense_4h_to_h", "bias"),
    "opt": ("fc2", None),
    "starcoder2": ("mlp.c_proj", None),
    # its attention runs beside the MLP, so the attention's bias goes straight into the residual stream
    "cohere": ("self_attn.o_proj", "attention_bias"),
    "granite": ("mlp.down_proj", "mlp_bias"),
    "llava": ("mlp.down_proj", "mlp_bias"),
}
"""Where the bias is, and the setting that gives it."""
IN_MEMORY = {
    "mistral": "mlp.down_proj",
    "qwen2": "mlp.down_proj",
    "qwen3": "mlp.down_proj",
    "gemma": "mlp.down_proj",
    "phi3": "mlp.down_proj",
    "mpt": "ffn.down_proj",
    "stablelm": "mlp.down_proj",
    "deepseek_v3": "mlp.shared_experts.down_proj",
    "qwen2_vl": "mlp.down_proj",
}
NEVER = {"mixtral", "gemma2", "gemma3_text", "olmo2", "gemma3"}

model_of = cache(tiny)


def shifts_for(model: Model) -> dict[int, torch.Tensor]:
    made = torch.Generator().manual_seed(7)
    return {b: 3 * torch.randn(model.hidden_size, generator=made) / model.hidden_size**0.5 for b in BLOCKS}


def logits(module, inputs) -> torch.Tensor:
    """Logits of the real tokens, [tokens, vocabulary]."""
    with torch.inference_mode():
        return module(**inputs, use_cache=False).logits[inputs["attention_mask"].bool()]


def right_padded(model: Model) -> dict[str, torch.Tensor]:
    rows, inputs = left_padded(model, TEXTS)
    turned = {name: [list(row) for row in value.tolist()] for name, value in inputs.items()}
    for i, row in enumerate(rows):
        for values in turned.values():
            values[i] = values[i][-len(row) :] + values[i][: -len(row)]
    return {name: torch.tensor(value) for name, value in turned.items()}


def generated(module: Any, inputs) -> tuple[torch.Tensor, torch.Tensor]:
    settings = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    settings |= {"return_dict_in_generate": True, "output_logits": True}
    out = module.generate(**inputs, **settings)
    return out.sequences, torch.stack(out.logits)


def reloaded(module, folder, architecture: str):
    module.save_pretrained(folder)
    auto: Any = AutoModelForImageTextToText if architecture in VISION_ARCHITECTURES else AutoModelForCausalLM
    loaded, info = auto.from_pretrained(folder, output_loading_info=True)
    assert type(loaded) is type(module)
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return loaded.eval()


def test_the_table_names_every_architecture():
    assert sorted([*NATIVE, *IN_MEMORY, *NEVER]) == sorted(ARCHITECTURES)


@pytest.mark.parametrize("architecture", NATIVE)
def test_saved_and_loaded_by_plain_transformers_it_equals_the_hook(architecture, tmp_path):
    model = model_of(architecture)
    shifts = shifts_for(model)
    inputs, prompts = right_padded(model), left_padded(model, TEXTS)[1]
    clean = logits(model.module, inputs)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    with Transplant(model, shifts, positions="with_bos"):
        expected, (sequences, steps) = logits(model.module, inputs), generated(model.module, prompts)
    baked = bake_shifts(model, shifts)
    loaded = reloaded(baked.module, tmp_path, architecture)
    for module in (baked.module, loaded):
        torch.testing.assert_close(logits(module, inputs), expected, rtol=1e-5, atol=1e-5)
        got = generated(module, prompts)
        assert torch.equal(got[0], sequences)
        torch.testing.assert_close(got[1], steps, rtol=1e-5, atol=1e-5)
    assert not torch.allclose(expected, clean, atol=1e-2)

    # the bias is where the table says, and the model that it was made of is as it was
    path, switch = NATIVE[architecture]
    after, text = baked.module.state_dict(), baked.module.config.get_text_config(decoder=True)
    changed = {f"{model.layout.path}.{b}.{path}.bias" for b in BLOCKS}
    assert {n for n, v in after.items() if not torch.equal(v, before.get(n, torch.zeros_like(v)))} == changed
    assert switch is None or (getattr(text, switch) and not getattr(model.module.config.get_text_config(), switch))
    assert {n: v.shape for n, v in model.module.state_dict().items()} == {n: v.shape for n, v in before.items()}
    assert torch.equal(logits(model.module, inputs), clean)
    assert not {t.data_ptr() for t in baked.module.parameters()} & {t.data_ptr() for t in model.module.parameters()}


@pytest.mark.parametrize("architecture", IN_MEMORY)
def test_in_memory_only(architecture, tmp_path):
    model = model_of(architecture)
    shifts = shifts_for(model)
    with pytest.raises(ModelError, match="cannot be baked and saved; use `transplant`, or in_memory=True"):
        bake_shifts(model, shifts)
    inputs, prompts = right_padded(model), left_padded(model, TEXTS)[1]
    with Transplant(model, shifts, positions="with_bos"):
        expected, (sequences, steps) = logits(model.module, inputs), generated(model.module, prompts)
    baked = bake_shifts(model, shifts, in_memory=True)
    torch.testing.assert_close(logits(baked.module, inputs), expected, rtol=1e-5, atol=1e-5)
    got = generated(baked.module, prompts)
    assert torch.equal(got[0], sequences)
    torch.testing.assert_close(got[1], steps, rtol=1e-5, atol=1e-5)
    new = baked.module.state_dict().keys() - model.module.state_dict().keys()
    assert new == {f"{model.layout.path}.{b}.{IN_MEMORY[architecture]}.bias" for b in BLOCKS}
    with pytest.raises(ModelError, match="baked in memory, into a bias that its class does not know"):
        baked.module.save_pretrained(tmp_path)


@pytest.mark.parametrize("architecture", sorted(NEVER))
def test_where_no_bias_does(architecture):
    model = model_of(architecture)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    for in_memory in (False, True):
        with pytest.raises(ModelError, match=r"no bias moves the output of block 1 and nothing else, because a norm"):
            bake_shifts(model, shifts_for(model), in_memory=in_memory, inplace=True)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_bos_is_what_sets_it_apart_from_the_hooks_default():
    model, without = tiny("llama"), tiny("llama", bos=False)
    vector = vector_for(model)
    inputs = right_padded(model)
    baked = bake(model, vector, dose=0.6)
    with transplant(model, vector, dose=0.6):
        spared = logits(model.module, inputs)
    assert not torch.allclose(logits(baked.module, inputs), spared, atol=1e-2)
    # texts that do not begin with BOS have nothing to spare
    inputs = right_padded(without)
    with transplant(without, vector, dose=0.6):
        expected = logits(without.module, inputs)
    torch.testing.assert_close(logits(baked.module, inputs), expected, rtol=1e-5, atol=1e-5)


def test_concepts_that_meet_and_concepts_at_blocks_of_their_own():
    model = tiny("gpt2")
    first, second = (vector_for(model, seed=s) for s in (1, 2))
    elsewhere = vector_for(model, seed=5, directions={1: second.directions[2]}, residual_norm={1: 2.0})
    vectors = [first, second, elsewhere]
    settings: dict[str, Any] = {"dose": [0.4, -0.2, 0.3], "combine": "loewdin"}
    inputs = right_padded(model)
    with transplant(model, vectors, **settings, positions="with_bos"):
        expected = logits(model.module, inputs)
    baked = contrans.bake(model, vectors, **settings)
    torch.testing.assert_close(logits(baked.module, inputs), expected, rtol=1e-5, atol=1e-5)
    # and once more on top of what is baked already
    twice = bake_shifts(bake_shifts(model, shifts_for(model)), shifts_for(model))
    with Transplant(model, {b: 2 * s for b, s in shifts_for(model).items()}, positions="with_bos"):
        torch.testing.assert_close(logits(twice.module, inputs), logits(model.module, inputs), rtol=1e-5, atol=1e-5)


def test_a_multiplied_residual_is_undone():
    model = tiny("granite", residual_multiplier=0.22)
    inputs = right_padded(model)
    with Transplant(model, shifts_for(model), positions="with_bos"):
        expected = logits(model.module, inputs)
    got = logits(bake_shifts(model, shifts_for(model)).module, inputs)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


def test_a_norm_with_a_bias_of_its_own_is_as_good_as_a_linear_layer():
    settings: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    torch.manual_seed(0)
    module: Any = BertModel(BertConfig(vocab_size=128, **settings))
    model = Model.wrap(module, tiny_tokenizer(), "tiny-bert")
    inputs = right_padded(model)
    with Transplant(model, shifts_for(model), positions="with_bos"):
        expected = model.module(**inputs).last_hidden_state
    baked = bake_shifts(model, shifts_for(model))
    assert {n for n, v in baked.module.state_dict().items() if not torch.equal(v, module.state_dict()[n])} == {
        f"encoder.layer.{b}.output.LayerNorm.bias" for b in BLOCKS
    }
    real = inputs["attention_mask"].bool()
    got = baked.module(**inputs).last_hidden_state
    torch.testing.assert_close(got[real], expected[real], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_ties_dtype_and_identity(architecture, tmp_path):
    model = tiny(architecture, tie_word_embeddings=True)
    half: Any = model.module
    half.to(torch.bfloat16)
    model = Model.wrap(half, model.tokenizer, model.reference, revision="1")
    inputs = right_padded(model)
    with Transplant(model, shifts_for(model), positions="with_bos"):
        expected = logits(model.module, inputs)
    baked = bake_shifts(model, shifts_for(model))
    loaded = reloaded(baked.module, tmp_path, architecture)
    every: list[Any] = [baked.module, loaded]
    for module in every:
        assert {p.dtype for p in module.parameters()} == {torch.bfloat16}
        assert module.get_output_embeddings().weight is module.get_input_embeddings().weight
        # the shift is rounded once, and added in bf16
        torch.testing.assert_close(logits(module, inputs), expected, rtol=0.05, atol=0.15)
    assert not any(p.requires_grad for p in baked.module.parameters())
    assert (baked.fingerprint, baked.revision) != (model.fingerprint, "1")
    assert baked.revision is None
    assert baked.fingerprint == Model.wrap(loaded, model.tokenizer).fingerprint


def test_in_place_changes_the_model_itself():
    model = tiny("llama")
    inputs = right_padded(model)
    expected = logits(bake_shifts(model, shifts_for(model)).module, inputs)
    baked = bake_shifts(model, shifts_for(model), inplace=True)
    assert baked.module is model.module
    assert torch.equal(logits(model.module, inputs), expected)


def test_next_to_accelerate(tmp_path):
    from accelerate import cpu_offload, dispatch_model

    plain = tiny("llama")
    inputs = right_padded(plain)
    with Transplant(plain, shifts_for(plain), positions="with_bos"):
        expected = logits(plain.module, inputs)
    hooked = tiny("llama")
    dispatch_model(hooked.module, {"": "cpu"}, force_hooks=True)
    with Transplant(hooked, shifts_for(hooked), positions="with_bos"):
        torch.testing.assert_close(logits(hooked.module, inputs), expected)
    baked = bake_shifts(hooked, shifts_for(hooked))
    torch.testing.assert_close(logits(baked.module, inputs), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(logits(reloaded(baked.module, tmp_path, "llama"), inputs), expected)
    # offloaded, the hook works on, and there is nothing to bake into
    away = tiny("llama")
    cpu_offload(away.module, torch.device("cpu"))
    with Transplant(away, shifts_for(away), positions="with_bos"):
        torch.testing.assert_close(logits(away.module, inputs), expected)
    with pytest.raises(ModelError, match="offloaded"):
        bake_shifts(away, shifts_for(away))


def test_next_to_an_adapter():
    peft = pytest.importorskip("peft")
    model = tiny("llama")
    adapter = peft.LoraConfig(target_modules=["q_proj"], r=2, init_lora_weights=False)
    adapted = Model.wrap(peft.get_peft_model(model.module, adapter), model.tokenizer)
    with pytest.raises(ModelError, match="has an adapter"):
        bake_shifts(adapted, shifts_for(adapted))


def test_what_cannot_be_baked_says_why():
    model = tiny("gpt2")
    shifts = shifts_for(model)
    with Transplant(model, shifts), pytest.raises(SpecError, match="A transplant is in tiny-gpt2-0"):
        bake_shifts(model, shifts)
    with pytest.raises(BlockError, match="has no block 9"):
        bake_shifts(model, {9: shifts[1]})
    with pytest.raises(BlockError, match="must have 32 values"):
        bake_shifts(model, {1: torch.ones(7)})
    with pytest.raises(BlockError, match="must have 32 values"):
        bake_shifts(model, {1: torch.ones(2, 32)})
    with pytest.raises(StateError, match="not finite"):
        bake_shifts(model, {1: torch.full((32,), float("nan"))})
    model.module.config.quantization_config = {"quant_method": "any"}
    with pytest.raises(ModelError, match="is quantised"):
        bake_shifts(model, shifts)
    compiled = tiny("gpt2")
    compiled.module.compile()
    with pytest.raises(ModelError, match="is compiled"):
        bake_shifts(compiled, shifts)
    small: dict[str, Any] = {
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "intermediate_size": 64,
    }
    shared = Model.wrap(AlbertModel(AlbertConfig(vocab_size=128, embedding_size=16, **small)), tiny_tokenizer())
    with pytest.raises(ModelError, match="share weights"):
        bake_shifts(shared, shifts)
