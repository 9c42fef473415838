"""The engine equals full steered forwards, with and without a shared prefix, on every architecture."""

import pytest
import torch

from contrans.errors import BlockError, TextError
from contrans.transplants import Transplant
from contrans.validation.engine import ScoringEngine
from tests.tiny import ARCHITECTURES, TEXT_ARCHITECTURES, tiny

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


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shared", [True, False])
def test_equals_full_forwards(architecture, shared):
    model = tiny(architecture)
    prefix, suffixes = rows(model)
    if not shared:
        suffixes, prefix = [prefix + s for s in suffixes], []
    engine = ScoringEngine(model, BLOCK, suffixes, prefix=prefix, batch_tokens=16)
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(1)) * 2
    for s in (None, shift):
        seen = set()
        for indices, logits in engine.logits(s):
            for i, got in zip(indices, logits, strict=True):
                torch.testing.assert_close(got, full(model, prefix + suffixes[i], s)[-1], rtol=1e-3, atol=3e-4)
                seen.add(i)
        assert seen == {0, 1, 2}
    assert not any("forward" in vars(b) for b in model.blocks)


def test_most_architectures_resume():
    """Running in full is right but slow: it must stay the exception."""
    resuming = []
    for architecture in TEXT_ARCHITECTURES:
        model = tiny(architecture)
        prefix, suffixes = rows(model)
        if ScoringEngine(model, BLOCK, suffixes, prefix=prefix).resumes:
            resuming.append(architecture)
    assert set(TEXT_ARCHITECTURES) - set(resuming) <= {"mpt", "bloom", "gpt_neo", "falcon"}, resuming


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
