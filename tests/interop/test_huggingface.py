"""Transformers' own ways of generating run under a transplant: they give what `generate` gives, token by token."""

import sys
from functools import cache
from threading import Thread
from typing import Any

import pytest
import torch
from transformers import AsyncTextIteratorStreamer, TextIteratorStreamer, TextStreamer, pipeline

from contrans.exchange import FORMATS, Shift, write_content
from contrans.models import Model
from contrans.transplants import Transplant
from tests.tiny import tiny
from tests.transplants.oracle import BLOCK, edited_columns, left_padded, steered_logits
from tests.transplants.test_generation import shift_for

pytestmark = pytest.mark.interop
NEW = 6
TEXTS = ["the cat sat there", "one", "they think the weather"]
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": NEW, "min_new_tokens": NEW}

model_of = cache(tiny)


def put_in(model: Model, positions: str = "all") -> Transplant:
    return Transplant(model, {BLOCK: shift_for(model)}, positions=positions)


def by_hand(model: Model, ids: list[int], positions: str = "all") -> list[int]:
    """Greedy continuation by full passes that are edited in NumPy."""
    text, prompt = list(ids), len(ids)
    for _ in range(NEW):
        chosen = edited_columns(positions, text, prompt, model.tokenizer.bos_token_id)
        logits = steered_logits(model, text, chosen, "add", shift_for(model))[-1].clone()
        logits[model.tokenizer.eos_token_id] = -torch.inf  # as min_new_tokens does
        text.append(int(logits.argmax()))
    return text[prompt:]


def said(model: Model, ids: list[int]) -> str:
    tokenizer: Any = model.tokenizer
    return tokenizer.decode(ids, skip_special_tokens=True)


def clean(model: Model, ids: list[int]) -> list[int]:
    return model.generate(torch.tensor([ids]), pad_token_id=0, **GREEDY)[0, len(ids) :].tolist()


@pytest.mark.parametrize("positions", ["all", "generated", "with_bos"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_pipeline(architecture, positions):
    model = model_of(architecture)
    # the pipeline adds BOS itself where the tokenizer does
    ids = [model.tokenizer(t)["input_ids"] for t in TEXTS]
    generator: Any = pipeline("text-generation", model=model.module, tokenizer=model.tokenizer, device="cpu")
    with put_in(model, positions):
        one = [generator(t, return_full_text=False, **GREEDY)[0]["generated_text"] for t in TEXTS]
        batched = generator(TEXTS, return_full_text=False, batch_size=3, **GREEDY)
    expected = [said(model, by_hand(model, row, positions)) for row in ids]
    assert one == expected
    assert [rows[0]["generated_text"] for rows in batched] == expected
    assert any(said(model, clean(model, row)) != text for row, text in zip(ids, expected, strict=True))


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_pipeline_of_a_chat(architecture):
    model = model_of(architecture)
    chat = [{"role": "user", "content": "the weather?"}]
    tokenizer: Any = model.tokenizer
    ids = tokenizer.apply_chat_template(chat, add_generation_prompt=True, return_dict=True)["input_ids"]
    generator: Any = pipeline("text-generation", model=model.module, tokenizer=model.tokenizer, device="cpu")
    with put_in(model):
        answer = generator(chat, **GREEDY)[0]["generated_text"][-1]
    assert answer == {"role": "assistant", "content": said(model, by_hand(model, ids))}


def test_a_streamer_says_it_as_it_comes(capsys):
    model = model_of("llama")
    ids = model.tokenizer(TEXTS[0])["input_ids"]
    tokenizer: Any = model.tokenizer
    with put_in(model):
        model.generate(
            torch.tensor([ids]), streamer=TextStreamer(tokenizer, skip_prompt=True), pad_token_id=0, **GREEDY
        )
    assert capsys.readouterr().out.strip() == tokenizer.decode(by_hand(model, ids)).strip()


@pytest.mark.parametrize("kind", [TextIteratorStreamer, AsyncTextIteratorStreamer])
def test_a_thread_that_streams(kind):
    model = model_of("llama")
    ids = model.tokenizer(TEXTS[2])["input_ids"]

    async def all_of(streamer) -> str:
        return "".join([piece async for piece in streamer])

    async def run() -> str:
        streamer: Any = kind(model.tokenizer, skip_prompt=True, timeout=60)
        settings = {"streamer": streamer, "pad_token_id": 0, **GREEDY}
        thread = Thread(target=model.generate, args=(torch.tensor([ids]),), kwargs=settings)
        thread.start()
        text = "".join(streamer) if kind is TextIteratorStreamer else await all_of(streamer)
        thread.join()
        return text

    import asyncio

    with put_in(model):
        text = asyncio.run(run())
    tokenizer: Any = model.tokenizer
    assert text.strip() == tokenizer.decode(by_hand(model, ids)).strip()
    # and gone with the context
    got = model.generate(torch.tensor([ids]), pad_token_id=0, **GREEDY)[0, len(ids) :].tolist()
    assert got == clean(model, ids)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom"])
def test_beams_score_what_full_passes_score(architecture):
    model = model_of(architecture)
    prompts, inputs = left_padded(model, TEXTS)
    with put_in(model):
        out = model.generate(
            **inputs, num_beams=3, pad_token_id=0, return_dict_in_generate=True, output_scores=True, **GREEDY
        )
        steps = model.module.compute_transition_scores(out.sequences, out.scores, out.beam_indices)
    for i, prompt in enumerate(prompts):
        text = prompt + out.sequences[i, -NEW:].tolist()
        chosen = edited_columns("all", text, len(prompt), model.tokenizer.bos_token_id)
        # beams keep log-probabilities from before min_new_tokens forbids the end
        due = steered_logits(model, text, chosen, "add", shift_for(model))[len(prompt) - 1 : -1].log_softmax(-1)
        due = due.gather(1, torch.tensor(text[-NEW:])[:, None])[:, 0]
        torch.testing.assert_close(steps[i], due, rtol=1e-4, atol=1e-4)


@pytest.fixture
def folder_of(tmp_path, monkeypatch):
    """Writes the export for a model; transformers keeps a copy of its program, here not in anybody's home."""
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    monkeypatch.setattr("sys.path", [str(tmp_path / "modules"), *sys.path])

    def write(model: Model) -> str:
        form, shift = FORMATS["huggingface"], Shift("calm", model.record, {BLOCK: shift_for(model)}, 1.0)
        return str(write_content(tmp_path / f"of-{model.name}", form.write(shift), force=True))

    return write


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "bloom", "gemma3_text"])
def test_generate_by_the_exported_program(architecture, folder_of, capsys):
    """Greedy, streamed, batched, beams and the pipeline, by nothing of ours but the exported file."""
    model = model_of(architecture)
    tokenizer, module = model.tokenizer, model.module
    custom: Any = {"custom_generate": folder_of(model), "trust_remote_code": True}
    prompts, inputs = left_padded(model, TEXTS)
    due = [by_hand(model, row, "with_bos") for row in prompts]
    batch = module.generate(**inputs, pad_token_id=0, **GREEDY, **custom)
    assert batch[:, -NEW:].tolist() == due
    one: Any = {"input_ids": torch.tensor([prompts[0]]), "pad_token_id": 0, **GREEDY}
    streamer = TextStreamer(tokenizer, skip_prompt=True)
    assert module.generate(**one, streamer=streamer, **custom)[0, -NEW:].tolist() == due[0]
    assert capsys.readouterr().out.strip() == tokenizer.decode(due[0]).strip()
    beams: Any = {**inputs, "num_beams": 3, "pad_token_id": 0, **GREEDY}
    with put_in(model, "with_bos"):
        expected = module.generate(**beams)
    assert torch.equal(module.generate(**beams, **custom), expected)
    # and gone when it returns
    plain = [clean(model, row) for row in prompts]
    assert module.generate(**one)[0, -NEW:].tolist() == plain[0]
    assert plain != due
    generator: Any = pipeline("text-generation", model=module, tokenizer=tokenizer, device="cpu")
    ids = tokenizer(TEXTS[0])["input_ids"]
    said_there = generator(TEXTS[0], return_full_text=False, **GREEDY, **custom)[0]["generated_text"]
    assert said_there == said(model, by_hand(model, ids, "with_bos"))


def test_the_exported_program_refuses_another_model_and_unasked_trust(folder_of):
    model = model_of("llama")
    folder = folder_of(model)
    settings: Any = {"input_ids": torch.tensor([[1, 20]]), "custom_generate": folder, **GREEDY}
    with pytest.raises(ValueError, match="was made for a llama model of width 32, and this is a gpt2 model"):
        model_of("gpt2").module.generate(**settings, trust_remote_code=True)
    with pytest.raises(ValueError, match="trust_remote_code"):
        model.module.generate(**settings, trust_remote_code=False)
