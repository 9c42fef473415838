"""Continuations equal the plain library's, and draws are paired between arms."""

from collections import Counter

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from contrans.errors import SpecError, TextError
from contrans.transplants import Transplant
from contrans.validation.generation import Sampling, continue_prompts
from tests.tiny import tiny

PROMPTS = ["the cat", "one stone alone on a mountain", "they think", "there with their mother"]
BLOCK = 2


@pytest.fixture(scope="module")
def model():
    return tiny("llama")


def shift_of(model, size=2.0):
    return {BLOCK: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(4)) * size}


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
