"""The engine equals full steered forwards, one shift or many at once, and leaves the model as it was."""

import pytest
import torch

from contrans.errors import BlockError, TextError
from contrans.transplants import Transplant
from contrans.validation.engine import ScoringEngine
from tests.tiny import tiny

PREFIX = "they think this is the weather there"
SUFFIXES = [" the cat", " and the other one sat", " x"]
BLOCK = 2


def full(model, ids, shift):
    context = Transplant(model, {BLOCK: shift}) if shift is not None else torch.inference_mode()
    with torch.inference_mode(), context:
        return model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0]


def rows(model):
    prefix = model.tokenizer(PREFIX)["input_ids"]
    return prefix, [model.tokenizer(s, add_special_tokens=False)["input_ids"] for s in SUFFIXES]


@pytest.mark.parametrize("shared", [True, False])
def test_shifts_at_once_score_as_one_by_one(shared):
    """Also with so few tokens at once that only some shifts fit into a batch."""
    model = tiny("gemma3_text")
    prefix, suffixes = rows(model)
    fed = suffixes if shared else [prefix + s for s in suffixes]
    generator = torch.Generator().manual_seed(1)
    shifts = [None, *torch.randn(9, model.hidden_size, generator=generator)]
    for batch_tokens in (20, 4096):
        engine = ScoringEngine(
            model, BLOCK, fed, prefix=prefix if shared else (), batch_tokens=batch_tokens, shifts_at_once=4
        )
        seen = []
        for number, indices, logits in engine.stacked(shifts):
            for i, got in zip(indices, logits, strict=True):
                expected = full(model, prefix + suffixes[i], shifts[number])[-1]
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
                seen.append((number, i))
        assert sorted(seen) == [(n, i) for n in range(len(shifts)) for i in range(len(suffixes))]
    assert list(engine.stacked([])) == []


def test_modes_end_with_the_pass():
    """Whoever reads logits in between computes as outside."""
    model = tiny("llama")
    prefix, suffixes = rows(model)
    for _ in ScoringEngine(model, BLOCK, suffixes, prefix=prefix, precision="bfloat16").logits():
        assert not torch.is_inference_mode_enabled()
        assert not torch.is_autocast_enabled("cpu")


def test_the_last_feed_forward_layer_runs_on_wanted_tokens_only():
    model = tiny("llama")
    prefix, suffixes = rows(model)
    engine = ScoringEngine(model, BLOCK, suffixes, prefix=prefix)
    ran = []
    handle = (
        model.blocks[-1]
        .get_submodule("mlp.gate_proj")
        .register_forward_hook(lambda _m, args, _o: ran.append(args[0].shape[:-1]))
    )
    list(engine.logits(torch.ones(model.hidden_size)))
    handle.remove()
    assert ran == [(len(suffixes), 1)]


def test_every_position():
    model = tiny("llama")
    prefix, suffixes = rows(model)
    whole = [prefix + s for s in suffixes]
    shift = torch.ones(model.hidden_size)
    engine = ScoringEngine(model, BLOCK, whole, every_position=True)
    for indices, logits in engine.logits(shift):
        expected = torch.cat([full(model, whole[i], shift) for i in indices])
        torch.testing.assert_close(logits, expected, rtol=1e-3, atol=1e-4)


def test_a_model_that_cannot_resume_runs_in_full(monkeypatch, caplog):
    monkeypatch.setattr(ScoringEngine, "_agrees_with_full", lambda self: False)
    model = tiny("llama")
    prefix, suffixes = rows(model)
    engine = ScoringEngine(model, BLOCK, suffixes, prefix=prefix)
    assert not engine.resumes
    assert "slower" in caplog.text
    shift = torch.ones(model.hidden_size)
    for indices, logits in engine.logits(shift):
        for i, got in zip(indices, logits, strict=True):
            torch.testing.assert_close(got, full(model, prefix + suffixes[i], shift)[-1], rtol=1e-3, atol=1e-4)


def test_nothing_below_the_block_runs_again():
    model = tiny("llama")
    prefix, suffixes = rows(model)
    engine = ScoringEngine(model, BLOCK, suffixes, prefix=prefix)
    ran = []
    handles = [b.self_attn.register_forward_hook(lambda *_, i=i: ran.append(i)) for i, b in enumerate(model.blocks)]
    list(engine.logits(torch.ones(model.hidden_size)))
    for handle in handles:
        handle.remove()
    assert set(ran) == {3}


def test_bfloat16_stays_near():
    model = tiny("llama", hidden_size=64)
    prefix, suffixes = rows(model)
    head = model.module.get_output_embeddings().weight
    exact, fast = (
        torch.cat(
            [g for _, g in ScoringEngine(model, BLOCK, suffixes, prefix=prefix, precision=p).logits(torch.ones(64))]
        )
        for p in ("float32", "bfloat16")
    )
    assert torch.nn.functional.cosine_similarity(exact, fast).min() > 0.999
    assert model.module.get_output_embeddings().weight is head
    assert head.dtype == torch.float32
    assert model.module.config._attn_implementation == "sdpa"


def test_bad_input():
    model = tiny("gpt2")
    with pytest.raises(TextError, match="nothing to score"):
        ScoringEngine(model, 1, [])
    with pytest.raises(TextError, match="nothing to score"):
        ScoringEngine(model, 1, [[1], []])
    with pytest.raises(TextError, match="reads at most"):
        ScoringEngine(model, 1, [[1] * (model.context_length + 1)])
    with pytest.raises(BlockError, match="has no block 8"):
        ScoringEngine(model, 8, [[1]])


def test_a_model_whose_upper_blocks_read_lower_ones_is_refused(caplog):
    """A short-circuited block gives them something else; the check sees it, and the model runs in full."""
    model = tiny("llama")
    prefix, suffixes = rows(model)
    below = []
    handles = [
        model.blocks[0].register_forward_hook(lambda _m, _a, out: below.append(out)),
        model.blocks[3].register_forward_hook(lambda _m, _a, out: out + below[-1]),
    ]
    engine = ScoringEngine(model, BLOCK, suffixes, prefix=prefix)
    assert not engine.resumes
    assert "full forward passes" in caplog.text
    shift = torch.ones(model.hidden_size)
    for indices, logits in engine.logits(shift):
        for i, got in zip(indices, logits, strict=True):
            torch.testing.assert_close(got, full(model, prefix + suffixes[i], shift)[-1], rtol=1e-4, atol=1e-4)
    for handle in handles:
        handle.remove()
