"""Windows of long texts against full forwards."""

import math

import numpy as np
import pytest
import torch

from contrans.errors import BlockError, SpecError, StateError, TextError
from contrans.models import Model
from contrans.validation.generation import Sampling, continue_prompts
from contrans.validation.stability import mentions
from contrans.validation.text_measures import Limits, distinct_n, repetition
from tests.tiny import tiny
from tests.validation.long_texts import NORM, PROMPTS, embedding, stability, towards, value


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama", max_position_embeddings=1024)


def full_forward(model, prompt, ids, block) -> tuple[torch.Tensor, torch.Tensor]:
    """−log p and block output of every token of a text, in one plain pass."""
    kept = []
    handle = model.blocks[block].register_forward_hook(lambda _m, _a, out: kept.append(out[0]))
    logp = model.module(input_ids=torch.tensor([prompt + ids])).logits[0].log_softmax(-1)
    handle.remove()
    at = torch.arange(len(prompt) - 1, len(prompt) + len(ids) - 1)
    return -logp[at, torch.tensor(ids)], kept[0][len(prompt) :]


def test_windows_equal_full_forwards(model):
    shift = towards(model, "b", 2.0)
    scorer = lambda text: text.count("b") / 7  # noqa: E731
    result = stability(model, scorer=scorer, seed=3).long_texts(
        PROMPTS, {"own": shift}, max_new_tokens=40, window=16, to_the_end=True
    )
    unit = embedding(model, "b") / embedding(model, "b").norm()
    settings = {"max_new_tokens": 40, "min_new_tokens": 40, "seed": 3, "sampling": Sampling()}
    made = {
        "unsteered": continue_prompts(model, PROMPTS, **settings),
        "own": continue_prompts(model, PROMPTS, shift=shift, **settings),
    }
    read = {arm: [full_forward(model, c.prompt_ids, c.ids, 0) for c in texts] for arm, texts in made.items()}
    for window, (a, b) in enumerate([(0, 16), (16, 32), (32, 40)]):
        for arm, texts in made.items():
            parts = [model.tokenizer.decode(c.ids[a:b], skip_special_tokens=True) for c in texts]
            assert [t[window] for t in result.texts[arm]] == parts
            projection = np.array([float((states[a:b] @ unit).mean()) for _, states in read[arm]])
            base = np.array([float((states[a:b] @ unit).mean()) for _, states in read["unsteered"]])
            nll = torch.cat([n[a:b] for n, _ in read[arm]])
            expected = {
                "effect": np.mean((projection - base) / NORM),
                "score": np.mean([scorer(p) for p in parts]),
                "repetition": np.mean([repetition(c.ids[:b], start=a) for c in texts]),
                "distinct_2": np.mean([distinct_n([c.ids[a:b]], 2) for c in texts]),
                "perplexity": math.exp(nll.mean()),
                "degenerate": 0.0,
                "written": 1.0,
            }
            for metric, number in expected.items():
                row = value(result, arm, metric, window)
                assert row.value == pytest.approx(number, rel=1e-3, abs=1e-4), (arm, metric, window)
                assert (row.start, row.end, row.n) == (a, b, 3)
                assert row.low is not None
                assert row.high is not None
                assert row.low - 1e-6 <= row.value <= row.high + 1e-6
    gains = [value(result, "own", "score", w).value - value(result, "unsteered", "score", w).value for w in range(3)]
    assert [value(result, "own", "score_gain", w).value for w in range(3)] == pytest.approx(gains)
    assert {value(result, "unsteered", "effect", w).value for w in range(3)} == {0.0}


def test_a_planted_effect_holds_and_no_shift_has_none(model):
    arms = {"own": towards(model, "b", 40.0), "opposite": towards(model, "b", -40.0), "nothing": {1: torch.zeros(32)}}
    result = stability(model, batch_size=12).long_texts(
        PROMPTS * 4, arms, max_new_tokens=60, window=20, to_the_end=True
    )
    assert "the effect holds over 60 tokens (" in result.verdicts["own"]
    assert result.verdicts["nothing"] == "nothing: there is no clear effect in the first window."
    assert value(result, "own", "effect", 2).low > 0  # type: ignore[operator]
    assert value(result, "opposite", "effect", 0).value < value(result, "own", "effect", 0).value
    assert "unsteered" not in result.verdicts


def test_another_direction_shares_what_the_unsteered_model_writes(model):
    asked = []
    shift = towards(model, "b", 4.0)
    first = stability(model, progress=asked.append)
    settings = {"max_new_tokens": 12, "window": 6}
    first.long_texts(PROMPTS, {"own": shift}, **settings)
    other = first.along(-2 * embedding(model, "b"))
    found = other.long_texts(PROMPTS, {"own": shift}, **settings)
    assert sum(asked) == 3 * len(PROMPTS)
    other.long_texts(PROMPTS, {"own": shift}, **settings, to_the_end=True)
    assert sum(asked) == 5 * len(PROMPTS)
    alone = stability(model, direction=-embedding(model, "b")).long_texts(PROMPTS, {"own": shift}, **settings)
    assert found.window_rows == alone.window_rows
    assert found.texts == alone.texts
    with pytest.raises(StateError, match="finite values that are not all zero"):
        first.along(torch.zeros(32))


def test_the_verdict_goes_by_the_scorer_where_there_is_one(model):
    result = stability(model, scorer=lambda text: float("b" in text)).long_texts(
        PROMPTS, {"own": towards(model, "b", 30.0)}, max_new_tokens=24, window=8, to_the_end=True
    )
    assert value(result, "own", "score", 2).value == 1.0
    gain = value(result, "own", "score_gain", 0).value
    assert f"({gain:.2f} at first" in result.verdicts["own"]


def test_looping_and_empty_texts_are_said_so(model, caplog):
    arms = {"loop": towards(model, "b", 1e4), "silent": towards(model, "</s>", 1e4)}
    result = stability(model, limits=Limits(surprise=math.inf), sampling=None).long_texts(
        PROMPTS, arms, max_new_tokens=32, window=16
    )
    assert result.verdicts["loop"].startswith("loop: the text degenerates after token 0")
    assert result.verdicts["silent"] == "silent: the texts are empty, so nothing can be said about the effect."
    assert "Under silent all texts are empty" in caplog.text
    assert [r.metric for r in result.window_rows if r.arm == "silent"] == ["written"] * 2
    assert value(result, "silent", "written", 0).value == 0
    assert value(result, "loop", "repetition", 1).value == 1.0
    assert all(math.isfinite(r.value) for r in result.window_rows)


def test_texts_that_end_sooner_leave_later_windows(model):
    config = model.module.generation_config
    free = continue_prompts(model, PROMPTS, max_new_tokens=32, min_new_tokens=32, sampling=Sampling())
    ends_at = free[1].ids[19]
    lengths = [c.ids.index(ends_at) if ends_at in c.ids else 32 for c in free]
    old, config.eos_token_id = config.eos_token_id, [ends_at]
    try:
        result = stability(model).long_texts(PROMPTS, {}, max_new_tokens=32, window=8)
    finally:
        config.eos_token_id = old
    # at least half of a window, but for the first one
    expected = [sum(n > 0 if w == 0 else n - 8 * w >= 4 for n in lengths) for w in range(4)]
    assert [round(value(result, "unsteered", "written", w).value * 3) for w in range(4)] == expected
    assert expected[3] < 3
    with_text = [r.n for r in result.window_rows if r.metric == "perplexity"]
    assert with_text == [n for n in expected if n]


def test_greedy_and_one_text_have_no_interval(model):
    result = stability(model, sampling=None).long_texts(
        PROMPTS[:1], {"own": towards(model, "b", 3.0)}, max_new_tokens=8, window=8
    )
    assert all(r.low is None and r.high is None and r.n == 1 for r in result.window_rows)
    assert result.texts["unsteered"][0][0] == model.complete(PROMPTS[0], max_new_tokens=8)[0]
    assert result.settings["sampling"] is None


def test_mentions():
    scorer = mentions(["Anger", "angry"])
    assert [scorer(t) for t in ("an ANGRY cat.", "anger!", "angrily", "")] == [1.0, 1.0, 0.0, 0.0]


def test_bad_settings(model):
    with pytest.raises(BlockError, match="no block 9"):
        stability(model, block=9)
    for wrong in (torch.ones(7), torch.zeros(32), torch.full((32,), float("nan"))):
        with pytest.raises(StateError, match="needs 32 finite values that are not all zero"):
            stability(model, direction=wrong)
    for norm in (0.0, -1.0, float("inf")):
        with pytest.raises(StateError, match="is no unit"):
            stability(model, residual_norm=norm)
    s = stability(model)
    for window in (0, 33):
        with pytest.raises(SpecError, match="do not fit texts of 32; give 1 to 32"):
            s.long_texts(PROMPTS, {}, max_new_tokens=32, window=window)
    with pytest.raises(TextError, match="no prompts"):
        s.long_texts([], {})
    with pytest.raises(TextError, match="exceeds the 1,024"):
        s.long_texts(PROMPTS, {}, max_new_tokens=1024)
    with pytest.raises(SpecError, match="The arm 'unsteered' has a shift"):
        s.long_texts(PROMPTS, {"unsteered": {1: torch.zeros(32)}}, max_new_tokens=8, window=8)
    for turns in ([], [["a"], []], [["a", " "]]):
        with pytest.raises(TextError, match="no user turns, or an empty one"):
            s.conversations(turns, {})


def test_a_silent_model_and_a_scorer_without_a_number(model):
    with pytest.raises(SpecError, match="The scorer gives nan for window 0"):
        stability(model, scorer=lambda _: float("nan")).long_texts(PROMPTS, {}, max_new_tokens=8, window=4)
    config = model.module.generation_config
    old, config.eos_token_id = config.eos_token_id, list(range(128))
    try:
        with pytest.raises(TextError, match="writes nothing after these prompts"):
            stability(model).long_texts(PROMPTS, {}, max_new_tokens=8, window=4)
    finally:
        config.eos_token_id = old
