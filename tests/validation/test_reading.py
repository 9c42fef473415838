"""Reading a text back equals one forward pass, in however many parts."""

import pytest
import torch

from contrans.errors import BlockError, StateError, TextError
from contrans.states import capture
from contrans.transplants import Transplant
from contrans.validation import reading
from contrans.validation.reading import read_back, vocabulary_size
from tests.tiny import ARCHITECTURES, tiny

PROMPTS = ["the cat", "one stone alone on a mountain", "they think", "there with their mother"]
BLOCK = 2


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def shift_of(model, size=2.0):
    return {BLOCK: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(4)) * size}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reading_in_parts_equals_one_forward_pass(architecture, monkeypatch):
    model = tiny(architecture)
    whole = model.tokenizer(" ".join(PROMPTS))["input_ids"]
    prompt, ids = whole[:5], whole[5:]
    logp = model.module(input_ids=torch.tensor([whole]), **model.no_cache).logits[0].log_softmax(-1)
    expected = -logp[torch.arange(4, len(whole) - 1), torch.tensor(ids)]
    states = capture(model, [" ".join(PROMPTS)] * len(ids), blocks=[BLOCK], position=list(range(5, len(whole))))
    for most in (2**25, 7 * 128):
        monkeypatch.setattr(reading, "MAX_LOGITS", most)
        nll, hidden = read_back(model, prompt, ids, block=BLOCK)
        torch.testing.assert_close(nll, expected, rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(hidden, states[BLOCK], rtol=1e-3, atol=1e-3)
    assert not model.blocks[BLOCK]._forward_hooks


def test_reading_sees_an_entered_transplant_and_nothing_where_no_block_is_named(model):
    ids = model.tokenizer(PROMPTS[1])["input_ids"]
    plain, hidden = read_back(model, ids[:1], ids[1:])
    assert hidden is None
    with Transplant(model, shift_of(model)):
        assert not torch.allclose(read_back(model, ids[:1], ids[1:])[0], plain)


def test_reading_bad_input(model):
    with pytest.raises(TextError, match="at least one token"):
        read_back(model, [], [5])
    with pytest.raises(TextError, match="exceeds the 256"):
        read_back(model, [1], [5] * 256)
    with pytest.raises(BlockError, match="has no block 9"):
        read_back(model, [1], [5], block=9)
    broken = tiny("llama")
    broken.module.get_output_embeddings().weight[7] = float("nan")
    with pytest.raises(StateError, match="not finite"):
        read_back(broken, [1], [5, 6])


def test_the_vocabulary_is_that_of_the_head(model):
    assert vocabulary_size(model) == model.module.get_output_embeddings().weight.shape[0]
