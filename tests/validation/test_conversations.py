"""Conversations against a loop over the library."""

import math

import pytest
import torch

from contrans.models import Model
from contrans.transplants import Transplant
from contrans.validation.text_measures import Limits
from tests.tiny import tiny, tiny_model, tiny_tokenizer
from tests.validation.long_texts import BLOCK, stability, towards, value

TURNS = [["the cat", "and the other"], ["they think", "of one", "stone"]]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama", max_position_embeddings=1024)


@pytest.mark.parametrize("chat", [True, False])
def test_replies_equal_a_loop_over_the_library(chat):
    tokenizer = tiny_tokenizer()
    if not chat:
        tokenizer.chat_template = None
    model = Model.wrap(tiny_model("llama", max_position_embeddings=1024), tokenizer, reference="tiny")
    shift = towards(model, "b", 1.0)
    result = stability(model, sampling=None).conversations(TURNS, {"own": shift}, max_new_tokens=12)
    for turns, got in zip(TURNS, result.texts["own"], strict=True):
        history, text = [], ""
        for turn, reply in zip(turns, got, strict=True):
            if chat:
                history.append({"role": "user", "content": turn})
                text = tokenizer.apply_chat_template(history, tokenize=False, add_generation_prompt=True)
            else:
                text += f"User: {turn}\nAssistant:"
            with Transplant(model, shift):
                expected = model.complete(text, max_new_tokens=12, add_special_tokens=not chat)[0]
            assert reply == expected.partition("\nUser:")[0]
            history.append({"role": "assistant", "content": reply.strip()})
            text += f" {reply.strip()}\n"
    rows = {(r.arm, r.metric, r.window): r for r in result.window_rows}
    assert rows["own", "written", 0].n == 2
    assert rows["own", "perplexity", 2].n == 1
    assert result.unit == "turn"
    assert (rows["own", "written", 2].start, rows["own", "written", 2].end) == (2, 3)


def test_a_reply_ends_before_the_users_next_turn(model):
    """The model is made to recite; what it says in the user's name is no part of its reply."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = None
    steps = tokenizer("the cat\nUser: they", add_special_tokens=False)["input_ids"]
    wrapped = Model.wrap(tiny_model("llama", max_position_embeddings=1024), tokenizer, reference="tiny")
    done = []

    def recite(_module, _args, out):
        # the head of a pass that generates sees one position
        if out.shape[1] == 1 and len(done) < len(steps):
            out = torch.zeros_like(out)
            out[..., steps[len(done)]] = 100.0
            done.append(True)
        return out

    handle = wrapped.module.get_output_embeddings().register_forward_hook(recite)
    result = stability(wrapped, sampling=None).conversations([["one"]], {}, max_new_tokens=len(steps))
    handle.remove()
    assert result.texts["unsteered"] == [["the cat"]]
    assert len(done) < len(steps)


def test_the_same_reply_again_and_again_is_degenerate(model):
    result = stability(model, limits=Limits(dominance=1.0, surprise=math.inf), sampling=None).conversations(
        [["the cat"] * 3], {"own": {BLOCK: torch.zeros(32)}}, max_new_tokens=10
    )
    replies = result.texts["own"][0]
    again = [replies[k] in replies[:k] for k in range(3)]
    assert [value(result, "own", "repetition", k).value > 0.5 for k in range(3)] == again
