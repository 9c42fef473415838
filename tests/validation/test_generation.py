"""Continuations equal the plain library's, draws are paired between arms, and text measures equal brute force."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from contrans.errors import BlockError, SpecError, StateError, TextError
from contrans.states import capture
from contrans.transplants import Transplant
from contrans.validation import generation
from contrans.validation.generation import (
    Limits,
    Sampling,
    continue_prompts,
    copy_rate,
    distinct_n,
    empty_share,
    is_degenerate,
    is_empty,
    read_back,
    relative_surprise,
    repetition,
)
from tests.tiny import ARCHITECTURES, tiny

PROMPTS = ["the cat", "one stone alone on a mountain", "they think", "there with their mother"]
BLOCK = 2


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def shift_of(model, size=2.0):
    return {BLOCK: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(4)) * size}


# -- writing ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text", "bloom", "qwen2_vl"])
@pytest.mark.parametrize("positions", ["all", "generated"])
def test_greedy_equals_one_prompt_at_a_time(architecture, positions):
    model = tiny(architecture)
    got = continue_prompts(model, PROMPTS, shift=shift_of(model), positions=positions, max_new_tokens=6, batch_size=3)
    with Transplant(model, shift_of(model), positions=positions):
        alone = [model.complete(p, max_new_tokens=6)[0] for p in PROMPTS]
    assert [c.text for c in got] == alone
    assert [c.prompt for c in got] == PROMPTS
    assert [c.prompt_ids for c in got] == [model.tokenizer(p)["input_ids"] for p in PROMPTS]
    assert all(c.text == model.tokenizer.decode(c.ids, skip_special_tokens=True) for c in got)
    plain = continue_prompts(model, PROMPTS, max_new_tokens=6)
    assert [c.text for c in plain] == [model.complete(p, max_new_tokens=6)[0] for p in PROMPTS]
    assert [c.text for c in plain] != alone


def test_draws_do_not_depend_on_the_batch_and_are_those_of_the_prompt(model):
    settings = {"max_new_tokens": 8, "sampling": Sampling(temperature=1.5), "seed": 3}
    small = continue_prompts(model, PROMPTS, batch_size=1, **settings)
    large = continue_prompts(model, PROMPTS, batch_size=4, **settings)
    assert [c.ids for c in small] == [c.ids for c in large]
    assert [c.ids for c in continue_prompts(model, PROMPTS, **settings | {"seed": 4})] != [c.ids for c in small]
    # a shift of nothing is the unsteered arm, token by token
    still = continue_prompts(model, PROMPTS, shift={BLOCK: torch.zeros(model.hidden_size)}, **settings)
    assert [c.ids for c in still] == [c.ids for c in small]
    same = continue_prompts(model, [PROMPTS[0]] * 4, **settings)
    assert len({tuple(c.ids) for c in same}) > 1


@pytest.mark.parametrize(
    "sampling", [Sampling(temperature=1.3, top_p=1.0), Sampling(temperature=2, top_p=0.7, top_k=9)]
)
def test_draws_follow_the_softmax(model, sampling):
    ids = model.tokenizer(PROMPTS[0], return_tensors="pt")["input_ids"]
    logits = model.module(input_ids=ids).logits[0, -1].double() / sampling.temperature
    if sampling.top_k:
        logits[logits < logits.topk(sampling.top_k).values[-1]] = -torch.inf
    p = logits.softmax(-1).numpy()
    order = np.argsort(-p)
    kept = order[: int((np.cumsum(p[order]) < sampling.top_p).sum()) + 1] if sampling.top_p < 1 else order
    p = np.where(np.isin(np.arange(len(p)), kept), p, 0)
    p /= p.sum()
    n = 3000
    drawn = continue_prompts(model, [PROMPTS[0]] * n, max_new_tokens=1, batch_size=n, sampling=sampling)
    # an end of sequence leaves no token
    counts = Counter(c.ids[0] if c.ids else model.tokenizer.eos_token_id for c in drawn)
    assert set(counts) <= set(np.flatnonzero(p))
    often = np.flatnonzero(p * n >= 5)
    observed = np.array([counts[int(t)] for t in often] + [n - sum(counts[int(t)] for t in often)])
    expected = np.append(p[often], max(1 - p[often].sum(), 1e-12)) * n
    use = expected > 1
    assert chisquare(observed[use], expected[use] * observed[use].sum() / expected[use].sum()).pvalue > 1e-3


def test_a_text_ends_at_the_end_of_sequence_or_by_the_stop_rule(model):
    free = continue_prompts(model, PROMPTS, max_new_tokens=8)
    ends_at = free[0].ids[3]
    first = free[0].ids.index(ends_at)
    config = model.module.generation_config
    old, config.eos_token_id = config.eos_token_id, [2, ends_at]
    try:
        cut = continue_prompts(model, PROMPTS, max_new_tokens=8)
        held = continue_prompts(model, PROMPTS, max_new_tokens=8, min_new_tokens=8)
    finally:
        config.eos_token_id = old
    assert cut[0].ids == free[0].ids[:first]
    assert cut[0].ended
    assert all(len(c.ids) == 8 and ends_at not in c.ids and not c.ended for c in held)
    stopped = continue_prompts(model, PROMPTS, max_new_tokens=8, stop=lambda ids: ends_at in ids or len(ids) == 6)
    for a, b in zip(stopped, free, strict=True):
        n = min([i + 1 for i, t in enumerate(b.ids) if t == ends_at or i == 5], default=len(b.ids))
        assert a.ids == b.ids[:n]
        assert a.ended


def test_progress_and_nothing_to_do(model):
    done = []
    continue_prompts(model, PROMPTS, max_new_tokens=1, batch_size=3, progress=done.append)
    assert done == [3, 1]
    assert continue_prompts(model, []) == []


def test_bad_input(model):
    with pytest.raises(TextError, match="is empty"):
        continue_prompts(model, ["the", " "])
    with pytest.raises(TextError, match="with 250 new ones it exceeds the 256"):
        continue_prompts(model, PROMPTS, max_new_tokens=250)
    for wrong in ({"max_new_tokens": 0}, {"batch_size": 0}, {"max_new_tokens": 3, "min_new_tokens": 4}):
        with pytest.raises(SpecError, match="cannot be; give at least one token"):
            continue_prompts(model, PROMPTS, **wrong)
    for wrong in ({"temperature": 0}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}):
        with pytest.raises(SpecError, match="is not possible; give temperature > 0"):
            Sampling(**wrong)


# -- reading ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_reading_in_parts_equals_one_forward_pass(architecture, monkeypatch):
    model = tiny(architecture)
    whole = model.tokenizer(" ".join(PROMPTS))["input_ids"]
    prompt, ids = whole[:5], whole[5:]
    logp = model.module(input_ids=torch.tensor([whole]), **model.no_cache).logits[0].log_softmax(-1)
    expected = -logp[torch.arange(4, len(whole) - 1), torch.tensor(ids)]
    states = capture(model, [" ".join(PROMPTS)] * len(ids), blocks=[BLOCK], position=list(range(5, len(whole))))
    for most in (2**25, 7 * 128):
        monkeypatch.setattr(generation, "MAX_LOGITS", most)
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


# -- measures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("n", [1, 2, 4])
def test_distinct_and_repetition_equal_brute_force(seed, n):
    rng = np.random.default_rng(seed)
    texts = [rng.integers(0, 4, size=rng.integers(0, 25)).tolist() for _ in range(4)]
    grams = [tuple(t[i : i + n]) for t in texts for i in range(len(t)) if i + n <= len(t)]
    assert distinct_n(texts, n) == pytest.approx(len(set(grams)) / len(grams))
    for text in texts:
        for start in (0, 3, 10):
            places = range(start, len(text) - n + 1)
            again = [any(text[j : j + n] == text[i : i + n] for j in range(i)) for i in places]
            assert repetition(text, n=n, start=start) == pytest.approx(np.mean(again) if again else 0.0)


@pytest.mark.parametrize(
    ("tokens", "expected"), [([], 0.0), ([1], 1.0), ([1, 1, 1, 1], 0.25), ([1, 2, 3], 1.0), ([1, 2, 1, 2], 0.5)]
)
def test_distinct_by_hand(tokens, expected):
    assert distinct_n([tokens], 1) == expected


@pytest.mark.parametrize(
    ("continuation", "expected"),
    [
        ("", 0.0),
        ("...", 0.0),
        ("Cats sleep on warm roofs.", 1.0),
        ("cats, sleep on WARM roofs; some", 0.5),
        ("dogs sleep on warm roofs all day", 2 / 3),
        ("dogs run", 0.0),
        # too short for five words: it is compared as a whole
        ("warm roofs", 1.0),
        ("roofs warm", 0.0),
    ],
)
def test_copy_rate(continuation, expected):
    prompt = "- Cats sleep on warm roofs.\n- They sleep on warm roofs all day long.\n-"
    assert copy_rate(prompt, continuation) == pytest.approx(expected)


def test_copy_rate_equals_brute_force():
    rng = np.random.default_rng(0)
    for _ in range(30):
        prompt, text = (["abc"[i] for i in rng.integers(0, 3, size=k)] for k in rng.integers(5, 40, size=2))
        places = range(len(text) - 4)
        copied = [any(prompt[j : j + 5] == text[i : i + 5] for j in range(len(prompt) - 4)) for i in places]
        assert copy_rate(" ".join(prompt), " ".join(text)) == pytest.approx(np.mean(copied))


@pytest.mark.parametrize(
    ("text", "empty"),
    [("", True), (" \n\t", True), ("-...!?", True), ("__", True), ("a", False), ("7", False), ("猫", False)],
)
def test_empty(text, empty):
    assert is_empty(text) is empty


def test_empty_share():
    assert empty_share(["", "a", " -", "b"]) == 0.5
    with pytest.raises(TextError, match="no texts has no value"):
        empty_share([])


@pytest.mark.parametrize(
    ("tokens", "surprise", "expected"),
    [
        ([], None, False),
        ([7, 7, 7], None, False),  # too short to judge
        ([7, 7, 7, 7], None, True),
        ([1, 2, 3, 4, 5, 6], None, False),
        ([1, 2, 3, 4] * 3, None, True),
        ([1, 2, 3, 4, 5, 6, 1, 2, 3, 4], None, False),
        ([1, 1, 2, 1, 1, 3, 1, 1, 4], None, True),  # one token, in changing company
        ([1, 2, 3, 4, 5, 6], 0.4, False),
        ([1, 2, 3, 4, 5, 6], 0.9, True),
    ],
)
def test_degenerate(tokens, surprise, expected):
    assert is_degenerate(tokens, surprise=surprise) is expected


def test_degenerate_in_a_window_and_with_other_limits():
    sentence = list(range(20))
    assert not is_degenerate(sentence, start=10)
    # the window by itself repeats nothing; the text before it holds all of it
    assert is_degenerate(sentence + sentence, start=20)
    assert not is_degenerate([7, 7, 7, 7], limits=Limits(dominance=1.0))


def test_relative_surprise_of_uniform_tokens_is_one():
    assert relative_surprise(torch.full((5,), float(np.log(128))), 128) == pytest.approx(1.0)
    assert relative_surprise(torch.empty(0), 128) == 0.0
