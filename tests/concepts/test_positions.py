"""Which tokens a position stands for: as tables, and in what `refine` reads."""

import pytest
import torch
from transformers import ByT5Tokenizer

from contrans.concepts import ContrastSet, refine
from contrans.concepts.positions import TokenPosition, overlapping, token_spans
from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.states.encode import Encoded, content_range
from tests.models.test_encoders import encoder, encoder_tokenizer
from tests.tiny import tiny, tiny_model

# "<s> the| cat| sat</s>", with the space before the word it leads
STARTS, ENDS = [0, 0, 3, 7, 0], [0, 3, 7, 11, 0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("last", TokenPosition("last")),
        ("last:1", TokenPosition("last")),
        ("last:12", TokenPosition("last", count=12)),
        ("mean", TokenPosition("mean")),
        ("answer", TokenPosition("answer")),
        ("span:the cat", TokenPosition("span", words="the cat")),
        ("span:a:b", TokenPosition("span", words="a:b")),
    ],
)
def test_positions_as_they_are_typed(text, expected):
    assert TokenPosition.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "first", "last:", "last:0", "last:-1", "last:two", "mean:2", "answer:1", "span", "span: "]
)
def test_positions_that_are_none(text):
    with pytest.raises(SpecError, match=r'is not known; use "last", "last:K"'):
        TokenPosition.parse(text)


@pytest.mark.parametrize(
    ("begin", "stop", "expected"),
    [
        (0, 3, (1, 2)),
        (4, 7, (2, 3)),
        (2, 8, (1, 4)),
        (3, 4, (2, 3)),
        (7, 7, None),
        (11, 20, None),
    ],
)
def test_tokens_that_share_a_character(begin, stop, expected):
    assert overlapping(STARTS, ENDS, begin, stop) == expected


def test_several_tokens_of_one_character_belong_together():
    assert overlapping([0, 1, 1, 1, 2], [1, 2, 2, 2, 3], 1, 2) == (1, 4)


@pytest.mark.parametrize(
    ("special", "expected"),
    [
        ([1, 0, 0, 1], (1, 3)),
        ([0, 0], (0, 2)),
        ([1, 1, 0, 1, 0, 1, 1], (2, 5)),
        ([1, 1], (0, 0)),
        ([], (0, 0)),
    ],
)
def test_special_tokens_at_the_ends_are_no_content(special, expected):
    assert content_range(special) == expected


@pytest.mark.parametrize(
    ("position", "expected"),
    [
        ("last", (3, 4)),
        ("last:2", (2, 4)),
        ("last:3", (1, 4)),
        ("mean", (1, 4)),
        ("answer", (3, 4)),
        ("span:at", (3, 4)),
    ],
)
def test_spans_of_a_text(position, expected):
    encoded = Encoded([[1, 5, 6, 7, 2]], [STARTS], [ENDS], [(1, 4)])
    assert token_spans(TokenPosition.parse(position), encoded, ["the cat sat"], ["sat"]) == [expected]


@pytest.mark.parametrize(
    ("position", "says"),
    [
        ("last:4", "has 3 tokens, not the last 4"),
        ("answer", "has no answer to read"),
        ("span:dog", "words 'dog' do not stand in text 0"),
    ],
)
def test_texts_without_the_tokens(position, says):
    encoded = Encoded([[1, 5, 6, 7, 2]], [STARTS], [ENDS], [(1, 4)])
    with pytest.raises(TextError, match=says):
        token_spans(TokenPosition.parse(position), encoded, ["the cat sat"], [""])


PAIRS = [(f"the cat {i} sat", f"one stone {i} sat") for i in range(5)]


def mean_of_tokens(model: Model, text: str, block: int, words: str) -> torch.Tensor:
    """Mean state of the tokens that overlap the last occurrence of some words, in one plain forward pass."""
    encoded = model.tokenizer(text, return_tensors="pt", return_offsets_mapping=True)
    begin = text.rindex(words)
    chosen = [
        i
        for i, (a, b) in enumerate(encoded["offset_mapping"][0].tolist())
        if set(range(a, b)) & set(range(begin, begin + len(words)))
    ]
    seen = []
    handle = model.blocks[block].register_forward_hook(lambda _m, _a, o: seen.append(o))
    with torch.inference_mode():
        model.module(input_ids=encoded["input_ids"])
    handle.remove()
    return seen[0][0, chosen].double().mean(0)


def expected_direction(model: Model, pairs, block: int, words: list[tuple[str, str]]) -> torch.Tensor:
    gaps = [
        mean_of_tokens(model, p, block, w) - mean_of_tokens(model, n, block, x)
        for (p, n), (w, x) in zip(pairs, words, strict=True)
    ]
    return torch.stack(gaps).mean(0).float()


@pytest.mark.parametrize("vocab", ["bytes", "pieces"])
def test_refine_at_a_span(vocab):
    model = tiny("llama", vocab=vocab)
    made = refine(model, ContrastSet.from_pairs("c", PAIRS), split=None, blocks=[2], position="span: sat")
    torch.testing.assert_close(
        made.directions[2], expected_direction(model, PAIRS, 2, [(" sat", " sat")] * 5), rtol=1e-3, atol=1e-4
    )
    assert made.provenance["position"] == "span: sat"


def test_refine_over_the_answers_of_the_same_questions():
    model = tiny("llama")
    questions = [(f"who {i}", f"who {i}") for i in range(5)]
    answers = [(f"the cat {i}", f"one of them there {i}") for i in range(5)]
    contrast = ContrastSet.from_pairs("c", questions, template="Ask: {text}?", answers=answers)
    assert contrast.positives[1].prompt == "Ask: who 1? the cat 1"
    assert contrast.positives[1].question == "Ask: who 1?"
    made = refine(model, contrast, split=None, blocks=[2], position="answer")
    texts = [(f"Ask: {q}? {a}", f"Ask: {q}? {b}") for (q, _), (a, b) in zip(questions, answers, strict=True)]
    torch.testing.assert_close(made.directions[2], expected_direction(model, texts, 2, answers), rtol=1e-3, atol=1e-4)


def test_refine_over_the_last_tokens_averages_their_differences():
    model = tiny("llama")
    contrast = ContrastSet.from_pairs("c", PAIRS)
    made = refine(model, contrast, split=None, blocks=[1], position="last:2")
    # " sat" is two tokens of this tokenizer, so the two ways of naming them agree
    assert len(model.tokenizer(" sat", add_special_tokens=False)["input_ids"]) == 2
    same = refine(model, contrast, split=None, blocks=[1], position="span: sat")
    torch.testing.assert_close(made.directions[1], same.directions[1])


def test_refine_over_all_tokens_of_an_encoder():
    """Texts of different lengths, whose special tokens do not count."""
    model = Model.wrap(encoder("bert"), encoder_tokenizer())
    pairs = [(f"the cat {i} sat there all day", f"one stone {i}") for i in range(5)]
    made = refine(model, ContrastSet.from_pairs("c", pairs), split=None, blocks=[2], position="mean")
    gaps = []
    for pair in pairs:
        means = []
        for text in pair:
            ids = model.tokenizer(text, return_tensors="pt")["input_ids"]
            assert ids[0, [0, -1]].tolist() == [1, 2]
            seen = []
            handle = model.blocks[2].register_forward_hook(lambda _m, _a, o, seen=seen: seen.append(o))
            with torch.inference_mode():
                model.module(input_ids=ids)
            handle.remove()
            out = seen[0] if isinstance(seen[0], torch.Tensor) else seen[0][0]
            means.append(out[0, 1:-1].double().mean(0))
        gaps.append(means[0] - means[1])
    torch.testing.assert_close(made.directions[2], torch.stack(gaps).mean(0).float(), rtol=1e-3, atol=1e-4)


def test_a_tokenizer_without_offsets():
    model = Model.wrap(tiny_model("llama", vocab_size=400), ByT5Tokenizer())
    contrast = ContrastSet.from_pairs("c", PAIRS)
    with pytest.raises(TextError, match="does not tell which characters"):
        refine(model, contrast, split=None, position="span:sat")
    made = refine(model, contrast, split=None, blocks=[1], position="last:2")
    plain = torch.stack([torch.stack([state_before_eos(model, text, 2) for text in pair]) for pair in PAIRS])
    torch.testing.assert_close(made.directions[1], (plain[:, 0] - plain[:, 1]).mean(0), rtol=1e-3, atol=1e-4)


def state_before_eos(model: Model, text: str, count: int) -> torch.Tensor:
    ids = model.tokenizer(text)["input_ids"]
    assert ids[-1] == model.tokenizer.eos_token_id
    seen = []
    handle = model.blocks[1].register_forward_hook(lambda _m, _a, o: seen.append(o))
    model.module(input_ids=torch.tensor([ids]))
    handle.remove()
    return seen[0][0, -1 - count : -1].mean(0)
