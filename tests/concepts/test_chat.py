"""Prompts in chat templates, and vectors refined from them."""

import pytest
import torch

from contrans.concepts import ContrastSet, refine
from contrans.concepts.chat import CHAT_FORMATS, as_chat, begins_with_bos
from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.states import capture
from tests.tiny import tiny, tiny_model, tiny_tokenizer

SAMPLES = {
    "alpaca": "Below is an instruction that describes a task. Write a response that appropriately completes the "
    "request.\n\n### Instruction:\nHi {x}\n\n### Response:\n",
    "chatml": "<|im_start|>user\nHi {x}<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<start_of_turn>user\nHi {x}<end_of_turn>\n<start_of_turn>model\n",
    "llama2": "[INST] Hi {x} [/INST]",
    "vicuna": "A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, "
    "detailed, and polite answers to the user's questions. USER: Hi {x} ASSISTANT:",
    "zephyr": "<|user|>\nHi {x}</s>\n<|assistant|>\n",
}
WITH_SYSTEM = {
    "alpaca": "Be {system}\n\n### Instruction:\nHi\n\n### Response:\n",
    "chatml": "<|im_start|>system\nBe {system}<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "gemma": "<start_of_turn>user\nBe {system}\n\nHi<end_of_turn>\n<start_of_turn>model\n",
    "llama2": "[INST] <<SYS>>\nBe {system}\n<</SYS>>\n\nHi [/INST]",
    "vicuna": "Be {system} USER: Hi ASSISTANT:",
    "zephyr": "<|system|>\nBe {system}</s>\n<|user|>\nHi</s>\n<|assistant|>\n",
}
# A template like Gemma's, which refuses a system turn.
STRICT = (
    "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[0].content }}"
)


@pytest.mark.parametrize("name", CHAT_FORMATS)
def test_formats_by_name(name):
    model = tiny("llama")
    assert as_chat(model, "Hi {x}", template=name) == SAMPLES[name]
    assert as_chat(model, "Hi", template=name, system="Be {system}") == WITH_SYSTEM[name]


@pytest.mark.parametrize("name", ["alpaca", "vicuna"])
def test_a_default_system_part_can_be_left_out(name):
    assert as_chat(tiny("llama"), "Hi", template=name, system="").startswith(("### Instruction", "USER"))


def test_the_models_own_template():
    model = tiny("llama")
    assert as_chat(model, "the cat") == "<s>[user] the cat\n[assistant] "
    assert as_chat(model, "the cat", system="one") == "<s>[system] one\n[user] the cat\n[assistant] "
    assert as_chat(model, "the cat", template="none") == "the cat"


def test_a_text_that_holds_its_bos():
    model = tiny("llama")
    assert begins_with_bos(model, as_chat(model, "the cat"))
    assert not begins_with_bos(model, as_chat(model, "the cat", template="chatml"))
    model.tokenizer.bos_token = None
    assert not begins_with_bos(model, "<s>the cat")


def test_bad_input():
    bare = Model.wrap(tiny_model("llama"), tiny_tokenizer())
    bare.tokenizer.chat_template = None
    with pytest.raises(TextError, match=r'has no chat template of its own; name one of alpaca, .* or use "none"'):
        as_chat(bare, "Hi")
    with pytest.raises(SpecError, match=r"'mine' is not known; use \"model\", \"none\", alpaca"):
        as_chat(bare, "Hi", template="mine")
    with pytest.raises(SpecError, match="system prompt needs a chat template"):
        as_chat(bare, "Hi", template="none", system="Be")
    bare.tokenizer.chat_template = STRICT
    assert as_chat(bare, "Hi") == "Hi"
    with pytest.raises(TextError, match="refuses this prompt \\(no system role\\)"):
        as_chat(bare, "Hi", system="Be")


PAIRS = [(f"the cat {i}", f"one stone {i}") for i in range(6)]


@pytest.mark.parametrize(
    ("chat", "form", "special_tokens"),
    [
        ("none", "Say {} so", True),
        ("model", "<s>[user] Say {} so\n[assistant] ", False),
        ("llama2", "[INST] Say {} so [/INST]", True),
    ],
)
def test_refine_reads_the_chat_with_one_bos(chat, form, special_tokens):
    model = tiny("llama")
    made = refine(model, ContrastSet.from_pairs("c", PAIRS, template="Say {text} so"), split=None, chat=chat)
    positive, negative = (
        capture(model, [form.format(pair[side]) for pair in PAIRS], special_tokens=special_tokens) for side in (0, 1)
    )
    ids = model.tokenizer(form.format("x"), add_special_tokens=special_tokens)["input_ids"]
    assert ids[0] == 1
    assert ids.count(1) == 1
    for block in made.blocks:
        expected = (positive[block] - negative[block]).mean(0)
        torch.testing.assert_close(made.directions[block], expected, rtol=1e-3, atol=1e-4)
    assert made.provenance["chat"] == chat
    assert "system" not in made.provenance


@pytest.mark.parametrize(("chat", "joint"), [("model", ""), ("llama2", " ")])
def test_the_answer_stands_in_the_assistants_turn(chat, joint):
    model = tiny("llama")
    answers = [(f"yes {i}", f"no {i}") for i in range(6)]
    contrast = ContrastSet.from_pairs("c", PAIRS, answers=answers)
    made = refine(model, contrast, split=None, chat=chat, system="Be", blocks=[3])
    texts = [
        f"{as_chat(model, pair[side], template=chat, system='Be')}{joint}{answer[side]}"
        for pair, answer in zip(PAIRS, answers, strict=True)
        for side in (0, 1)
    ]
    states = capture(model, texts, special_tokens=chat != "model", blocks=[3])[3]
    torch.testing.assert_close(made.directions[3], (states[::2] - states[1::2]).mean(0), rtol=1e-3, atol=1e-4)
    assert (made.provenance["chat"], made.provenance["system"]) == (chat, "Be")
    read = refine(model, contrast, split=None, chat=chat, position="answer", blocks=[3])
    assert read.provenance["position"] == "answer"
