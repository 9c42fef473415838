"""Capture against plain hooks and one-by-one forwards, on every architecture."""

import tracemalloc

import pytest
import torch
from tokenizers import processors
from transformers import ByT5Tokenizer

from contrans.errors import BlockError, ModelError, StateError, TextError
from contrans.models import Model
from contrans.states import capture, iter_states
from contrans.states.encode import CHUNK, batches, encode, encode_ahead
from contrans.states.gathering import token_ranges
from tests.tiny import ARCHITECTURES, tiny

TEXTS = ["the cat sat", "one stone alone on a mountain", "x", "they think the weather is the weather there"]


def plain_states(model, text: str) -> list[torch.Tensor]:
    """All block outputs [width, d] of one text, by plain hooks in one plain forward."""
    out = []
    handles = [
        b.register_forward_hook(lambda _m, _a, o: out.append((o if isinstance(o, torch.Tensor) else o[0])[0]))
        for b in model.blocks
    ]
    with torch.inference_mode():
        model.module(**model.tokenizer(text, return_tensors="pt"))
    for handle in handles:
        handle.remove()
    return out


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_one_by_one_forwards(architecture):
    model = tiny(architecture)
    last = capture(model, TEXTS)
    second = capture(model, TEXTS, position=1, blocks=[2], batch_tokens=1)
    for i, text in enumerate(TEXTS):
        expected = plain_states(model, text)
        assert len(expected) == model.n_blocks
        for block, states in enumerate(expected):
            # the tolerance that `capture` states: batches of other shapes round differently
            torch.testing.assert_close(last[block][i], states[-1], rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(second[2][i], expected[2][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("batch_tokens", [1, 2048])
def test_means_over_spans(batch_tokens):
    model = tiny("llama")
    spans = [(1, 3), (0, 9), (1, 2), (4, 14)]
    made = capture(model, TEXTS, spans=spans, batch_tokens=batch_tokens)
    for i, (text, (start, stop)) in enumerate(zip(TEXTS, spans, strict=True)):
        for block, states in enumerate(plain_states(model, text)):
            torch.testing.assert_close(made[block][i], states[start:stop].mean(0), rtol=1e-4, atol=1e-4)


def test_the_last_token_is_the_texts_own():
    model = tiny("llama")
    with_eos = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    plain = capture(model, TEXTS, blocks=[1]), capture(model, TEXTS[:2], blocks=[1], position=-2)
    model.tokenizer.backend_tokenizer.post_processor = with_eos
    assert model.tokenizer(TEXTS[0])["input_ids"][-1] == 2
    # what stands after a token changes nothing for it in a decoder
    torch.testing.assert_close(capture(model, TEXTS, blocks=[1])[1], plain[0][1], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(capture(model, TEXTS[:2], blocks=[1], position=-2)[1], plain[1][1], rtol=1e-4, atol=1e-4)
    after = [len(model.tokenizer(t)["input_ids"]) - 1 for t in TEXTS]
    for i, text in enumerate(TEXTS):
        expected = plain_states(model, text)[1][-1]
        torch.testing.assert_close(
            capture(model, TEXTS, blocks=[1], position=after)[1][i], expected, rtol=1e-4, atol=1e-4
        )


def test_offsets_and_content_of_encoded_texts():
    model = tiny("llama")
    made = encode(model, ["the cat", "</s> x"])
    assert made.ids[1][1] == 2
    # a special token that stands in the text is the text's own
    assert made.content == [(1, len(made.ids[0])), (1, len(made.ids[1]))]
    for text, starts, ends in zip(["the cat", "</s> x"], made.starts, made.ends, strict=True):
        assert (starts[0], ends[0]) == (0, 0)
        assert "".join(text[a:b] for a, b in zip(starts, ends, strict=True)) == text


class Odd(ByT5Tokenizer):
    """A tokenizer without offsets that makes `ids` of every text and calls those of `mask` special."""

    ids: list[int]
    mask: list[int]

    def __call__(self, texts, **_):
        return {"input_ids": [self.ids for _ in texts], "special_tokens_mask": [self.mask for _ in texts]}


@pytest.mark.parametrize(
    ("ids", "mask", "error", "says"),
    [([1], [1], TextError, "has no tokens"), ([1, 9], [0], ModelError, "does not tell its special tokens")],
)
def test_odd_tokenizers(ids, mask, error, says):
    tokenizer = Odd()
    tokenizer.ids, tokenizer.mask = ids, mask
    with pytest.raises(error, match=says):
        encode(Model.wrap(tiny("llama").module, tokenizer), ["the cat"])


def test_all_tokens_come_with_their_offsets():
    model = tiny("llama")
    seen = {}
    for batch in iter_states(model, TEXTS, blocks=[1], batch_tokens=20):
        for row, index in enumerate(batch.indices):
            n = int(batch.lengths[row])
            seen[index] = batch.hidden[1][row, :n]
            assert len(batch.ends[row]) == n
            assert batch.ends[row][-1] == len(TEXTS[index])
    for i, text in enumerate(TEXTS):
        torch.testing.assert_close(seen[i], plain_states(model, text)[1], rtol=1e-4, atol=1e-4)


def test_nothing_above_the_deepest_block_runs():
    model = tiny("llama")
    ran = []
    handles = [b.register_forward_hook(lambda _m, _a, _o, i=i: ran.append(i)) for i, b in enumerate(model.blocks)]
    capture(model, TEXTS, blocks=[0, 1], batch_tokens=10_000)
    for handle in handles:
        handle.remove()
    assert ran == [0, 1]


def test_hooks_are_gone_after_an_error():
    model = tiny("llama")
    with pytest.raises(TextError):
        capture(model, ["fine", "  "])
    with pytest.raises(ZeroDivisionError):
        capture(model, TEXTS, progress=lambda _: 1 // 0)
    assert not any(b._forward_hooks for b in model.blocks)


def test_bfloat16_products_stay_near_float32():
    model = tiny("llama", hidden_size=64)
    exact, fast = (
        capture(model, TEXTS, blocks=[3])[3],
        capture(model, TEXTS, blocks=[3], precision="bfloat16")[3],
    )
    assert fast.dtype == torch.float32
    assert torch.nn.functional.cosine_similarity(exact, fast).min() > 0.999
    assert not torch.equal(exact, fast)


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [
        ([3, 3, 3], 9, [[0, 1, 2]]),
        ([3, 3, 3], 8, [[0, 1], [2]]),
        ([1, 5, 2], 6, [[1], [2, 0]]),
        ([9], 4, [[0]]),
        ([], 4, []),
    ],
)
def test_batches_keep_to_the_budget(lengths, budget, expected):
    assert batches(lengths, batch_tokens=budget) == expected


@pytest.mark.parametrize(
    ("kwargs", "error", "says"),
    [
        ({"blocks": [4]}, BlockError, "has no block 4"),
        ({"blocks": [-1]}, BlockError, "has no block -1"),
        ({"position": 50}, TextError, "none at position 50"),
        ({"position": [0, 0]}, TextError, "2 positions were given for 4 texts"),
        ({"position": -50}, TextError, "none at position -50"),
        ({"spans": [(0, 1)]}, TextError, "1 spans were given for 4 texts"),
        ({"spans": [(0, 1), (2, 2), (0, 1), (0, 1)]}, TextError, "Text 1 has .* no span from 2 to 2"),
        ({"spans": [(0, 1), (0, 1), (0, 90), (0, 1)]}, TextError, "Text 2 has .* no span from 0 to 90"),
        ({"spans": [(-1, 1)] * 4}, TextError, "no span from -1 to 1"),
    ],
)
def test_bad_input(kwargs, error, says):
    with pytest.raises(error, match=says):
        capture(tiny("llama"), TEXTS, **kwargs)


def test_many_texts_are_tokenised_ahead_in_their_order():
    model, texts = tiny("llama", layers=2), ["x", "a b", "cat"]
    alone = capture(model, texts, blocks=[1])[1]
    order = [(i * i) % 3 for i in range(CHUNK + 5)]
    made = capture(model, [texts[i] for i in order], blocks=[1], batch_tokens=512)
    torch.testing.assert_close(made[1], alone[order], rtol=1e-4, atol=1e-4)
    assert made.n_tokens == sum(len(model.tokenizer(texts[i])["input_ids"]) for i in order)


def test_chunks_hold_what_encode_makes_of_the_whole():
    model = tiny("llama")
    whole = encode(model, TEXTS)
    chunks = list(encode_ahead(model, TEXTS, chunk=3))
    assert [first for first, _ in chunks] == [0, 3]
    assert [row for _, part in chunks for row in part.ids] == whole.ids
    assert [content for _, part in chunks for content in part.content] == whole.content
    assert list(encode_ahead(model, [])) == []


def test_errors_of_a_later_chunk_name_the_text_by_its_number():
    model = tiny("gpt2")
    texts = ["the cat"] * 5 + ["word " * 300]
    with pytest.raises(TextError, match=r"Text 5 .*reads at most"):
        list(encode_ahead(model, texts, chunk=2))
    with pytest.raises(TextError, match="Text 5 of 6 is empty"):
        next(encode_ahead(model, [*texts[:5], " "], chunk=2))
    encoded = encode(model, ["the cat"])
    with pytest.raises(TextError, match=r"Text 7 has .* none at position 90"):
        token_ranges(model, encoded, [90], None, first=7)


def test_a_text_beyond_the_context():
    model = tiny("gpt2")
    with pytest.raises(TextError, match="reads at most"):
        capture(model, ["word " * (model.context_length or 0)])


def test_states_that_are_not_finite():
    model = tiny("llama")
    with torch.no_grad():
        next(model.blocks[1].parameters()).fill_(float("nan"))
    with pytest.raises(StateError, match="not finite at block 1"):
        capture(model, TEXTS, blocks=[1])


def test_memory_does_not_grow_with_the_number_of_texts():
    model = tiny("llama")

    def peak(n: int) -> int:
        tracemalloc.start()
        for _ in iter_states(model, TEXTS[:1] * n, blocks=[1], batch_tokens=64):
            pass
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return top

    peak(8)
    # ids and offsets of the texts stay; states do not
    assert peak(400) < peak(40) + 400 * 2000
