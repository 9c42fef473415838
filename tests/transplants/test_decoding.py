"""Ways of decoding and of running a model that a transplant must refuse, or see through."""

import logging

import pytest
import torch
from transformers import AlbertConfig, AlbertModel, CompileConfig, DynamicCache, GenerationConfig

from contrans.errors import SpecError, StateError
from contrans.models import Model
from contrans.transplants import SCOPES, Transplant
from contrans.transplants.eager import is_compiled
from tests.tiny import tiny, tiny_model, tiny_tokenizer
from tests.transplants.oracle import BLOCK, left_padded

TEXT = "the cat and the other cat sat"
NEW = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}


def prompt_of(model):
    return left_padded(model, [TEXT])[1]


def steering(model, length=20.0, **settings):
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))
    return Transplant(model, {BLOCK: length * direction / direction.norm()}, **settings)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(
    "settings",
    [
        lambda: {"prompt_lookup_num_tokens": 2},
        lambda: {"assistant_model": tiny_model("llama", seed=1)},
        lambda: {"assistant_early_exit": 2},
        lambda: {"generation_config": GenerationConfig(prompt_lookup_num_tokens=2, **NEW)},
    ],
)
def test_assisted_decoding_is_refused(scope, settings):
    model = tiny("llama")
    inputs = prompt_of(model)
    with steering(model, positions=scope):
        with pytest.raises(SpecError, match=r"Assisted or speculative decoding \((prompt_lookup|assistant)"):
            model.generate(**inputs, **{**NEW, **settings()})
        steered = model.generate(**inputs, **NEW)
    # it is the transplant that forbids it
    plain = model.generate(**inputs, **NEW)
    assert torch.equal(model.generate(**inputs, **NEW, prompt_lookup_num_tokens=2), plain)
    assert not torch.equal(steered, plain) or scope == "generated"


def test_assisted_decoding_set_in_the_models_own_settings_is_refused():
    model = tiny("llama")
    model.module.generation_config.prompt_lookup_num_tokens = 2
    with steering(model), pytest.raises(SpecError, match="prompt_lookup_num_tokens"):
        model.module.generate(prompt_of(model)["input_ids"], GenerationConfig(**NEW))


def test_a_prompt_in_chunks():
    model = tiny("llama")
    inputs = prompt_of(model)
    with steering(model):
        whole = model.generate(**inputs, **NEW)
        assert torch.equal(model.generate(**inputs, **NEW, prefill_chunk_size=3), whole)
    for scope in ("prompt", "generated", "last"):
        with steering(model, positions=scope), pytest.raises(SpecError, match="prefill_chunk_size"):
            model.generate(**inputs, **NEW, prefill_chunk_size=3)


def test_guidance_reads_the_prompt_twice():
    model = tiny("llama")
    inputs = prompt_of(model)
    with steering(model):
        model.generate(**inputs, **NEW, guidance_scale=1.5)
    with steering(model, positions="generated"):
        model.generate(**inputs, **NEW, guidance_scale=1.0)
        with pytest.raises(SpecError, match="With guidance_scale"):
            model.generate(**inputs, **NEW, guidance_scale=1.5)


def test_continuous_batching_is_refused():
    model = tiny("llama")
    with steering(model), pytest.raises(SpecError, match="Continuous batching"):
        model.module.generate_batch([[1, 20, 30]], GenerationConfig(**NEW))


def test_generate_is_the_models_own_again():
    model = tiny("llama")
    own = model.module.generate = model.module.generate
    with steering(model), steering(model):
        assert model.module.generate is not own
    assert model.module.generate is own
    del model.module.generate
    with pytest.raises(RuntimeError, match="on purpose"), steering(model):
        raise RuntimeError("on purpose")
    assert not {"generate", "init_continuous_batching"} & vars(model.module).keys()
    with steering(model), pytest.raises(ValueError, match="cache_implementation"):
        model.generate(**prompt_of(model), **NEW, cache_implementation="none such")


def test_a_cache_that_is_cut_by_hand():
    model = tiny("llama")
    ids = prompt_of(model)["input_ids"]

    def candidates_and_back():
        cache = DynamicCache(config=model.module.config)
        model.module(input_ids=ids[:, :-4], past_key_values=cache)
        model.module(input_ids=ids[:, -4:-1], past_key_values=cache)
        cache.crop(-2)
        return model.module(input_ids=ids[:, -3:], past_key_values=cache).logits

    with torch.inference_mode(), steering(model):
        torch.testing.assert_close(candidates_and_back(), model.module(input_ids=ids).logits[:, -3:])
    for scope in ("prompt", "generated", "last"):
        with steering(model, positions=scope), pytest.raises(SpecError, match="cut from the KV cache"):
            candidates_and_back()


def compiled(kind):
    module = tiny_model("llama", layers=4)
    if kind == "wrapped":
        module = torch.compile(module, backend="eager")
    elif kind == "in place":
        module.compile(backend="eager")
    elif kind == "blocks":
        for block in module.model.layers:
            block.compile(backend="eager")
    elif kind == "forward":
        module.forward = torch.compile(module.forward, backend="eager")
    return Model.wrap(module, tiny_tokenizer())


@pytest.mark.parametrize("kind", ["wrapped", "in place", "blocks", "forward"])
def test_compiled_models_run_uncompiled_with_a_warning(kind, caplog):
    model, usual = compiled(kind), tiny("llama")
    inputs = prompt_of(usual)
    with torch.inference_mode():
        clean = model.module(**inputs).logits
        with steering(usual):
            expected = usual.module(**inputs).logits
        with caplog.at_level(logging.WARNING):
            for _ in range(2):
                with steering(model):
                    torch.testing.assert_close(model.module(**inputs).logits, expected)
        assert [r.message for r in caplog.records if "uncompiled" in r.message] == [
            "local is compiled; it runs uncompiled, and slower, while a transplant is in."
        ]
        # compiled code that kept the shift would give it here
        torch.testing.assert_close(model.module(**inputs).logits, clean)
    assert not is_compiled(usual.module)


def test_a_model_first_run_under_a_transplant_does_not_keep_it():
    model, usual = compiled("wrapped"), tiny("llama")
    inputs = prompt_of(usual)
    with torch.inference_mode():
        with steering(usual):
            expected = usual.module(**inputs).logits
        with steering(model):
            torch.testing.assert_close(model.module(**inputs).logits, expected)
        torch.testing.assert_close(model.module(**inputs).logits, usual.module(**inputs).logits)


def test_generation_that_compiles_by_itself():
    model = tiny("llama")
    inputs = prompt_of(model)
    config = CompileConfig(backend="eager", mode=None)
    config._compile_all_devices = True
    settings = {**NEW, "cache_implementation": "static", "compile_config": config}
    with steering(model):
        expected = model.generate(**inputs, **NEW)
        assert torch.equal(model.generate(**inputs, **settings), expected)
    plain = model.generate(**inputs, **NEW)
    assert torch.equal(model.generate(**inputs, **settings), plain)
    assert is_compiled(model.module)
    with steering(model):
        assert torch.equal(model.generate(**inputs, **settings), expected)
    assert not torch.equal(plain, expected)


def test_a_block_that_does_not_run_is_an_error():
    model = tiny("llama")
    model.module.config.num_hidden_layers = BLOCK
    with steering(model), pytest.raises(StateError, match="Block 2 of tiny-llama-0 did not run"):
        model.module(**prompt_of(model))
    gpt2 = tiny("gpt2")
    with steering(gpt2), pytest.raises(StateError, match="outside the model's own forward pass"):
        gpt2.blocks[BLOCK](torch.zeros(1, 2, 32))


def test_a_module_that_runs_as_several_blocks_is_changed_in_its_turn():
    sizes = {"hidden_size": 32, "embedding_size": 16, "num_attention_heads": 4, "intermediate_size": 64}
    config = AlbertConfig(vocab_size=128, num_hidden_layers=4, num_hidden_groups=1, max_position_embeddings=64, **sizes)
    model = Model.wrap(AlbertModel(config), tiny_tokenizer(bos=False))
    shift = torch.randn(32, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[10, 20, 30], [40, 50, 60]])

    def outputs(context):
        seen = []
        with context, torch.inference_mode():
            handle = model.blocks[0].register_forward_hook(
                lambda _m, _a, o: seen.append((o if isinstance(o, torch.Tensor) else o[0]).clone())
            )
            model.module(input_ids=ids)
            handle.remove()
        return seen

    before, after = outputs(torch.no_grad()), outputs(Transplant(model, {2: shift}))
    assert len(before) == len(after) == 4
    torch.testing.assert_close(after[:2], before[:2])
    torch.testing.assert_close(after[2], before[2] + shift)
    assert not torch.allclose(after[3], before[3], atol=1e-3)
