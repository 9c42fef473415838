import pytest
import torch
from transformers import AutoModel

from contrans.errors import ModelError, TextError
from contrans.models import Model, ModelRecord
from contrans.models.fingerprint import fingerprint
from contrans.models.reference import short_name
from tests.tiny import ARCHITECTURES, tiny, tiny_config, tiny_model, tiny_tokenizer

PROMPTS = ["the cat", "she thinks that this is the weather", "one"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_completes_as_one_by_one(architecture: str) -> None:
    model = tiny(architecture, seed=1)
    together = model.complete(PROMPTS, max_new_tokens=6)
    assert together == [model.complete(prompt, max_new_tokens=6)[0] for prompt in PROMPTS]


def test_wrap_reads_the_layout_and_freezes() -> None:
    module = tiny_model("gpt2").train()
    model = Model.wrap(module, tiny_tokenizer())
    assert (model.n_blocks, model.hidden_size, model.context_length) == (4, 32, 256)
    assert model.blocks == list(module.transformer.h)
    assert model.device == torch.device("cpu")
    assert not module.training
    assert not any(weight.requires_grad for weight in module.parameters())


def test_generate_needs_no_gradient_and_passes_arguments() -> None:
    out = tiny().generate(torch.tensor([[1, 9, 10]]), max_new_tokens=3, do_sample=False, pad_token_id=0)
    assert out.shape[1] <= 6
    assert out.is_inference()


def test_tokenizer_is_left_as_it_was() -> None:
    module, tokenizer = tiny_model("llama"), tiny_tokenizer(pad=False)
    tokenizer.padding_side = "right"
    model = Model.wrap(module, tokenizer)
    with_pad = Model.wrap(module, tiny_tokenizer())
    assert model.pad_token_id == tokenizer.eos_token_id
    assert model.complete(PROMPTS, max_new_tokens=4) == with_pad.complete(PROMPTS, max_new_tokens=4)
    assert tokenizer.pad_token is None
    assert tokenizer.padding_side == "right"


def test_special_tokens_are_as_asked() -> None:
    model = tiny()
    prompt = model.tokenizer.apply_chat_template([{"role": "user", "content": "the cat"}], tokenize=False)
    assert prompt.startswith("<s>")
    assert model.complete(prompt, max_new_tokens=3, add_special_tokens=False) != []


def test_too_long_and_empty_prompts_are_refused() -> None:
    model = tiny(bos=False)
    with pytest.raises(TextError, match="exceeds the 256"):
        model.complete("cat " * 300)
    with pytest.raises(TextError, match="no tokens"):
        model.complete("")
    assert model.complete([]) == []


def test_an_encoder_cannot_generate() -> None:
    model = Model.wrap(AutoModel.from_config(tiny_config("bert")), tiny_tokenizer())
    with pytest.raises(ModelError, match="encoder"):
        model.complete("the cat")


def test_fingerprint_is_computed_once_and_told() -> None:
    told: list[str] = []
    model = Model.wrap(tiny_model("llama"), tiny_tokenizer(), remember=told.append)
    assert [model.fingerprint, model.fingerprint] == [fingerprint(model.module)] * 2
    assert told == [model.fingerprint]
    assert Model.wrap(model.module, model.tokenizer, known_fingerprint="abc").fingerprint == "abc"


def test_record_round_trip() -> None:
    model = Model.wrap(tiny_model("qwen2"), tiny_tokenizer(), "Org/Tiny Model", revision="1", licence="MIT")
    record = model.record
    assert ModelRecord.from_json(record.to_json() | {"later": 1}) == record
    assert (record.name, record.family, record.dtype) == ("tiny-model", "qwen2", "float32")
    with pytest.raises(ModelError, match="fingerprint"):
        ModelRecord.from_json({key: value for key, value in record.to_json().items() if key != "fingerprint"})


@pytest.mark.parametrize(
    ("reference", "name"),
    [
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "smollm2-135m-instruct"),
        ("org/Name@main", "name"),
        ("pypi:gemma-3-270m", "gemma-3-270m"),
        ("/a/b/My Model/", "my-model"),
        ("x/SmolLM2-135M.Q4_1.gguf", "smollm2-135m.q4_1"),
        ("local", "local"),
        ("/", "model"),
    ],
)
def test_short_name(reference: str, name: str) -> None:
    assert short_name(reference) == name
