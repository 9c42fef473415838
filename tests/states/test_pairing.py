"""Pairing as tables and against brute force over six kinds of tokenizers; match rates, sinks, and even picks."""

import itertools
import math
import re
import string

import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import ByT5Tokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from contrans.errors import ModelError
from contrans.models import Model
from contrans.states import match_rate, pair_by_offset
from contrans.states.pairing import (
    PairedPositions,
    finished_ends,
    match_rate_note,
    not_sinks,
    pair_by_position,
    pair_positions,
    pick_evenly,
    same_vocabulary,
    start_of,
)
from tests.tiny import tiny, tiny_tokenizer

TEXTS = ["the weather there", "one mountain of lemons", "Café Über, thé 5 € — İs", "日本 the ﬁne cafe\u0301s… 🙂!", "x"]


def word_piece(*words: str) -> PreTrainedTokenizerFast:
    """As BERT reads: lower case without accents, pieces of words, [CLS] before and [SEP] after a text."""
    pieces = ["[UNK]", "[CLS]", "[SEP]", "[PAD]", *words]
    for letter in string.ascii_lowercase + string.digits + ".,!?;":
        pieces += [letter, f"##{letter}"]
    tokenizer = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    names = {"cls_token": "[CLS]", "sep_token": "[SEP]", "pad_token": "[PAD]", "unk_token": "[UNK]"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


def sentence_piece() -> PreTrainedTokenizerFast:
    """As LLaMA reads: `▁` before a text and for spaces, bytes for signs that it does not know."""
    signs = ["<unk>", "<s>", *(f"<0x{b:02X}>" for b in range(256)), "▁", *string.ascii_letters, "▁t", "▁th", "▁the"]
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e")]
    model = models.BPE({sign: i for i, sign in enumerate(signs)}, merges, byte_fallback=True, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


def unigram() -> PreTrainedTokenizerFast:
    """As XLM-R reads: compatibility forms, the likeliest split, <s> before and </s> after a text."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0), ("▁the", -1.0), ("▁", -4.0)]
    tokenizer = Tokenizer(models.Unigram([*pieces, *((c, -5.0) for c in string.ascii_letters)], 0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def bytes_only() -> PreTrainedTokenizerFast:
    """As GPT-2 reads, without merges: every byte is a token, and nothing is put before a text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({sign: i for i, sign in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def model(tokenizer: PreTrainedTokenizerBase) -> Model:
    return Model.wrap(tiny("llama").module, tokenizer, reference=type(tokenizer).__name__)


def last_readers(of: Model, text: str) -> dict[int, int]:
    """Which token is the last to read a character, for the characters that it ends at."""
    out = of.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True)
    found = {}
    for i, ((start, end), special) in enumerate(zip(out["offset_mapping"], out["special_tokens_mask"], strict=True)):
        for character in range(start, end):
            if not special:
                found[character] = (i, end)
    return {c: i for c, (i, end) in found.items() if end == c + 1}


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ([0, 3, 7], [0, 3, 7], ([1, 2], [1, 2])),
        ([0, 3, 5, 7], [0, 2, 3, 7], ([1, 3], [2, 3])),
        ([3, 7], [0, 3, 7], ([1], [2])),  # position 0 is a sink even without BOS
        ([0, 4, 4, 6], [0, 4, 6], ([2, 3], [1, 2])),  # bytes of one sign: the last has seen all of it
        ([0, 1], [0, 2], ([], [])),
        ([0, 3, 7, 0], [0, 3, 7], ([1, 2], [1, 2])),  # [SEP]
        ([], [], ([], [])),
    ],
)
def test_pair_by_offset(source, target, expected):
    assert pair_by_offset(source, target) == PairedPositions(*expected)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((1, 4), (1, 4), ([1, 2, 3], [1, 2, 3])),
        ((1, 4), (0, 3), ([2, 3], [1, 2])),  # the target's first token has no BOS before it
        ((0, 3), (1, 4), ([1, 2], [2, 3])),
        ((0, 3), (0, 3), ([1, 2], [1, 2])),
        ((2, 4), (1, 3), ([2, 3], [1, 2])),
        ((0, 1), (0, 1), ([], [])),
    ],
)
def test_pair_by_position(source, target, expected):
    assert pair_by_position(source, target) == PairedPositions(*expected)


@pytest.mark.parametrize(
    ("starts", "ends", "expected"),
    [
        ([0, 0, 4], [0, 4, 7], [0, 4, 7]),
        ([0, 0, 1, 1, 1, 2], [0, 1, 2, 2, 2, 3], [0, 1, 0, 0, 2, 3]),  # three bytes of one sign
        ([0, 0, 0], [0, 1, 2], [0, 0, 2]),  # `▁` with the offsets of the sign after it
        ([0, 0, 2, 2], [0, 1, 2, 3], [0, 1, 2, 3]),  # a space whose offsets are trimmed away
        ([0, 0, 0], [0, 3, 0], [0, 3, 0]),  # a special token after the text
        ([], [], []),
    ],
)
def test_finished_ends(starts, ends, expected):
    assert finished_ends(starts, ends) == expected


TOKENIZERS = {
    "bytes": tiny_tokenizer,
    "pieces": lambda: tiny_tokenizer("pieces"),
    "word_piece": lambda: word_piece("the", "##ount", "caf", "##es"),
    "sentence_piece": sentence_piece,
    "unigram": unigram,
    "bytes_only": bytes_only,
}


@pytest.mark.parametrize("target", TOKENIZERS)
@pytest.mark.parametrize("source", TOKENIZERS)
def test_pairs_of_real_tokenizers_equal_brute_force(source, target):
    x, y = model(TOKENIZERS[source]()), model(TOKENIZERS[target]())
    made = pair_positions(x, y, TEXTS)
    assert made.way == ("position" if source == target else "offset")
    n = of = 0
    for text, pairs in zip(TEXTS, made.texts, strict=True):
        in_x, in_y = last_readers(x, text), last_readers(y, text)
        expected = sorted((in_x[c], in_y[c]) for c in in_x if c in in_y and in_x[c] > 0 and in_y[c] > 0)
        got = list(zip(pairs.source, pairs.target, strict=True))
        if source == target:
            assert all(i == j for i, j in got)
            got = [pair for pair in got if pair in expected]  # bytes of one sign pair one by one as well
        assert got == expected
        n, of = n + len(pairs), of + sum(i > 0 for i in in_x.values())
    if source != target:
        assert made.match_rate == pytest.approx(n / of)
        assert 0 < made.match_rate <= 1


def test_an_encoder_pairs_its_words_and_not_its_special_tokens():
    bert, llama = model(word_piece("cafe")), model(bytes_only())
    (pairs,) = pair_positions(bert, llama, ["Café Zoë"]).texts
    tokens = bert.tokenizer.convert_ids_to_tokens(bert.tokenizer("Café Zoë")["input_ids"])
    assert tokens == ["[CLS]", "cafe", "z", "##o", "##e", "[SEP]"]
    # C a f Ã © space Z o Ã «: the second byte of a sign has seen all of it
    assert pairs == PairedPositions([1, 2, 3, 4], [4, 6, 7, 9])


def test_the_same_tokenizer_pairs_by_position_with_or_without_bos():
    one, same, bare = tiny("llama"), tiny("gpt2"), tiny("llama", bos=False)
    text = "the weather there"
    n = len(one.tokenizer(text)["input_ids"])
    assert same_vocabulary(one, bare)
    assert pair_positions(one, same, [text]).texts[0].source == list(range(1, n))
    shifted = pair_positions(one, bare, [text])
    assert shifted.way == "position"
    assert shifted.texts == [PairedPositions(list(range(2, n)), list(range(1, n - 1)))]
    assert shifted.match_rate == pytest.approx((n - 2) / (n - 1))


def test_equal_vocabularies_that_split_otherwise_pair_by_offset():
    one, lower = tiny("llama"), tiny("llama")
    lower.tokenizer.backend_tokenizer.normalizer = normalizers.Lowercase()
    assert pair_positions(one, lower, ["the cat"]).way == "position"
    made = pair_positions(one, lower, ["the cat", "THE CAT"])
    assert made.way == "offset"
    assert len(made.texts[1]) > 0
    assert not same_vocabulary(one, tiny("llama", vocab="pieces"))


def test_a_tokenizer_without_offsets_pairs_with_itself_alone():
    slow, fast = model(ByT5Tokenizer()), tiny("llama")
    assert pair_positions(slow, model(ByT5Tokenizer()), ["the cat"]).texts == [
        PairedPositions(list(range(1, 7)), list(range(1, 7)))
    ]
    for pair in ((slow, fast), (fast, slow)):
        with pytest.raises(ModelError, match="byt5tokenizer knows no character offsets"):
            pair_positions(*pair, ["the cat"])


@pytest.mark.parametrize(
    ("norms", "expected"),
    [
        ([1.0, 2.0, 3.0], [True, True, True]),
        ([1.0, 1.0, 10.0, 10.1], [True, True, True, False]),
        ([5.0, 900.0, 5.0, 6.0, 51.0], [True, False, True, True, True]),
        ([0.1, 7.0, 7.0], [True, True, True]),  # short ones are text
        ([], []),
    ],
)
def test_not_sinks(norms, expected):
    assert not_sinks(torch.tensor(norms)).tolist() == expected


@pytest.mark.parametrize(
    ("rate", "says"),
    [
        (1.0, None),
        (0.67, None),
        (0.669, "Only 67% .* sees few .* give more texts, or fit it on last tokens only"),
        (0.24, "Only 24% .* sees few"),
        (0.239, "sees hardly any of the states .* fit it on last tokens only, or choose another pair of models"),
        (0.0, "Only 0% .* hardly any"),
    ],
)
def test_match_rate_note(rate, says):
    note = match_rate_note(rate)
    assert (note is None) == (says is None)
    assert says is None or re.search(says, str(note))


def test_match_rate_is_one_for_equal_tokenizers_and_less_for_others():
    texts = ["the weather there", "one mountain of lemons"]
    one, same, other = tiny("llama"), tiny("gpt2"), tiny("llama", vocab="pieces")
    assert match_rate(one, same, texts) == 1.0
    assert 0 < match_rate(one, other, texts) < 1
    assert match_rate(one, other, []) == 0.0


@pytest.mark.parametrize(("n", "most"), [(0, 3), (3, 3), (2, 5), (10, 3), (100, 7), (1001, 1000)])
def test_picks_are_even(n, most):
    for start in (0.0, 0.5, 1 - 2**-32):
        picks = pick_evenly(n, most, start)
        assert len(picks) == len(set(picks)) == min(n, most)
        assert picks == sorted(picks)
        assert all(0 <= p < n for p in picks)
        steps = [b - a for a, b in itertools.pairwise(picks)]
        assert all(step in (math.floor(n / most), math.ceil(n / most)) for step in steps) or n <= most


def test_each_place_is_picked_as_often():
    counts = torch.zeros(10)
    for k in range(1000):
        counts[pick_evenly(10, 3, k / 1000)] += 1
    torch.testing.assert_close(counts, torch.full((10,), 300.0), atol=2, rtol=0)


def test_starts_are_spread_and_stay():
    starts = torch.tensor([start_of(f"d{i}", 0) for i in range(400)])
    assert 0 <= float(starts.min()) < float(starts.max()) < 1
    assert float(starts.mean()) == pytest.approx(0.5, abs=0.05)
    assert start_of("d1", 0) == start_of("d1", 0) != start_of("d1", 1)
