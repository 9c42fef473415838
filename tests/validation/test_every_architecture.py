"""The engine equals full steered forwards on every architecture; which of them resume is written down."""

import pytest
import torch

from contrans.transplants import Transplant
from contrans.validation.engine import ScoringEngine
from tests.tiny import ARCHITECTURES, tiny

PREFIX = "they think this is the weather there and one more"
SUFFIXES = [" the cat", " and the other one sat there", " x", " their mother", " she is there with the other cat"]
RUN_IN_FULL: dict[bool, set[str]] = {True: set(), False: set()}
"""With and without a shared prefix, the architectures that cannot resume."""


def whole(model, ids, shift, block):
    with torch.inference_mode(), Transplant(model, {block: shift}):
        return model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equals_full_forwards(architecture, shared):
    """First, middle and last block; several padded batches; a prefix longer than the sliding window of 8 tokens."""
    model = tiny(architecture)
    prefix = model.tokenizer(PREFIX)["input_ids"]
    assert len(prefix) > 8
    suffixes = [model.tokenizer(s, add_special_tokens=False)["input_ids"] for s in SUFFIXES]
    fed = suffixes if shared else [prefix + s for s in suffixes]
    generator = torch.Generator().manual_seed(1)
    shifts = [torch.randn(model.hidden_size, generator=generator) * size for size in (2.0, 0.5)]
    resumed = []
    for block in (0, 2, model.n_blocks - 1):
        longest = max(map(len, fed))
        engine = ScoringEngine(
            model, block, fed, prefix=prefix if shared else (), batch_tokens=2 * longest, shifts_at_once=2
        )
        resumed.append(engine.resumes)
        assert len(engine._batches) > 1
        assert any(not bool(b.mask.all()) for b in engine._batches)
        seen = set()
        for number, indices, logits in engine.stacked(shifts):
            for i, got in zip(indices, logits, strict=True):
                expected = whole(model, prefix + suffixes[i], shifts[number], block)
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)
                seen.add((number, i))
        assert len(seen) == len(shifts) * len(suffixes)
    assert resumed == [architecture not in RUN_IN_FULL[shared]] * 3
    assert not any("forward" in vars(m) for m in model.module.modules())
