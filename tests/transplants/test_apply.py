"""A transplant shifts exactly one block's output, at the right positions, on every architecture."""

import pytest
import torch

from contrans.concepts import ConceptVector
from contrans.errors import ArtifactError, BlockError, SpecError, StateError
from contrans.transplants import Transplant, transplant
from tests.tiny import ARCHITECTURES, tiny

TEXTS = ["the cat sat there", "one", "they think the weather"]
BLOCK = 2


def vector_for(model, **changes) -> ConceptVector:
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))
    facts = {
        "concept": "test",
        "model": model.record,
        "directions": {BLOCK: direction},
        "spread": {BLOCK: 1.0},
        "residual_norm": {BLOCK: 5.0},
    } | changes
    return ConceptVector(**facts)


def padded(model, texts, side):
    rows = [model.tokenizer(t)["input_ids"] for t in texts]
    width = max(map(len, rows))
    blank = lambda row: [0] * (width - len(row))  # noqa: E731
    join = (lambda row, fill: fill + row) if side == "left" else (lambda row, fill: row + fill)
    ids = torch.tensor([join(r, [model.pad_token_id] * (width - len(r))) for r in rows])
    mask = torch.tensor([join([1] * len(r), blank(r)) for r in rows])
    return ids, mask


def block_outputs(model, **inputs) -> list[torch.Tensor]:
    """Outputs of the transplanted block in every forward pass, read after the shift."""
    seen = []
    handle = model.blocks[BLOCK].register_forward_hook(
        lambda _m, _a, o: seen.append((o if isinstance(o, torch.Tensor) else o[0]).clone())
    )
    with torch.inference_mode():
        out = model.module(**inputs)
    handle.remove()
    return [*seen, out]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("side", "texts"), [("right", TEXTS), ("left", TEXTS), ("right", TEXTS[:1])])
def test_shifts_real_tokens_but_bos_and_nothing_else(architecture, side, texts):
    model = tiny(architecture)
    vector = vector_for(model)
    ids, mask = padded(model, texts, side)
    before, _ = block_outputs(model, input_ids=ids, attention_mask=mask, use_cache=False)
    with transplant(model, vector, dose=0.4):
        after, _ = block_outputs(model, input_ids=ids, attention_mask=mask, use_cache=False)
    shift = vector.directions[BLOCK] / vector.directions[BLOCK].norm() * 0.4 * 5.0
    edited = mask.bool() & (ids != model.tokenizer.bos_token_id)
    torch.testing.assert_close(after - before, edited[..., None] * shift, rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_equal_with_and_without_kv_cache(architecture):
    model = tiny(architecture)
    ids = torch.tensor([model.tokenizer(TEXTS[0])["input_ids"]])
    with torch.inference_mode(), transplant(model, vector_for(model), dose=0.4):
        whole = model.module(input_ids=ids, use_cache=False).logits
        first = model.module(input_ids=ids[:, :-2], use_cache=True)
        second = model.module(input_ids=ids[:, -2:-1], past_key_values=first.past_key_values, use_cache=True)
        third = model.module(input_ids=ids[:, -1:], past_key_values=second.past_key_values, use_cache=True)
    stepwise = torch.cat([first.logits, second.logits, third.logits], dim=1)
    torch.testing.assert_close(stepwise, whole, rtol=1e-3, atol=2e-4)


@pytest.mark.parametrize("scope", ["all", "prompt", "generated", "last"])
@pytest.mark.parametrize("batch", [TEXTS[:1], TEXTS])
def test_generation_is_the_same_with_and_without_cache(scope, batch):
    model = tiny("llama")
    ids, mask = padded(model, batch, "left")
    made = {}
    for cache in (True, False):
        with transplant(model, vector_for(model), dose=2.0, positions=scope):
            made[cache] = model.generate(
                input_ids=ids,
                attention_mask=mask,
                max_new_tokens=6,
                do_sample=False,
                use_cache=cache,
                pad_token_id=0,
            )
    assert torch.equal(made[True], made[False])
    plain = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=6, do_sample=False, pad_token_id=0)
    assert not torch.equal(made[True], plain)


def test_left_padded_batch_generates_what_single_prompts_do():
    model = tiny("llama")
    with transplant(model, vector_for(model), dose=1.0):
        together = model.complete(TEXTS, max_new_tokens=5)
        alone = [model.complete(t, max_new_tokens=5)[0] for t in TEXTS]
    assert together == alone


def test_beam_search_runs_and_ends_clean():
    model = tiny("llama")
    with transplant(model, vector_for(model), dose=1.0):
        cached = model.complete(TEXTS, max_new_tokens=5, num_beams=3)
        plain = model.complete(TEXTS, max_new_tokens=5, num_beams=3, use_cache=False)
    assert cached == plain


def test_nested_transplants_add_up_and_leave_nothing():
    model = tiny("llama")
    vector = vector_for(model)
    ids, mask = padded(model, TEXTS, "right")
    inputs = {"input_ids": ids, "attention_mask": mask}
    clean = model.module(**inputs).logits
    with transplant(model, vector, dose=0.3), transplant(model, vector, dose=0.2):
        both = model.module(**inputs).logits
    with transplant(model, vector, dose=0.5):
        once = model.module(**inputs).logits
    torch.testing.assert_close(both, once, rtol=1e-4, atol=1e-5)
    with pytest.raises(RuntimeError, match="on purpose"), transplant(model, vector, dose=0.5):
        raise RuntimeError("on purpose")
    assert torch.equal(model.module(**inputs).logits, clean)
    assert not model.module._forward_pre_hooks
    assert not model.decoder._forward_pre_hooks


def test_negative_dose_undoes_the_positive_one():
    model = tiny("llama")
    ids, mask = padded(model, TEXTS, "right")
    clean = model.module(input_ids=ids, attention_mask=mask).logits
    with transplant(model, vector_for(model), dose=0.7), transplant(model, vector_for(model), dose=-0.7):
        torch.testing.assert_close(model.module(input_ids=ids, attention_mask=mask).logits, clean, rtol=1e-4, atol=1e-5)


def test_bfloat16_model_keeps_its_dtype():
    model = tiny("llama")
    model.module.to(torch.bfloat16)
    ids, mask = padded(model, TEXTS, "right")
    with transplant(model, vector_for(model), dose=0.5):
        after, out = block_outputs(model, input_ids=ids, attention_mask=mask)
    assert after.dtype == out.logits.dtype == torch.bfloat16


def test_embeddings_instead_of_ids():
    model = tiny("llama", bos=False)
    ids, _ = padded(model, TEXTS[:1], "right")
    embeds = model.module.get_input_embeddings()(ids)
    with transplant(model, vector_for(model), dose=0.5):
        by_ids = model.module(input_ids=ids).logits
        torch.testing.assert_close(model.module(inputs_embeds=embeds).logits, by_ids)
        torch.testing.assert_close(model.decoder(inputs_embeds=embeds)[0], model.decoder(ids)[0])


def test_bad_input():
    model, other = tiny("llama"), tiny("llama", hidden_size=64)
    with pytest.raises(ArtifactError, match="belongs to"):
        transplant(other, vector_for(model))
    with pytest.raises(BlockError, match="no direction at block 1"):
        transplant(model, vector_for(model), block=1)
    many = vector_for(model, directions={b: torch.ones(32) for b in (1, 2)})
    with pytest.raises(BlockError, match="say which"):
        transplant(model, many)
    with pytest.raises(SpecError, match="Positions"):
        transplant(model, vector_for(model), positions="some")
    with pytest.raises(SpecError, match="Operation"):
        transplant(model, vector_for(model), operation="multiply")
    with pytest.raises(BlockError, match="must have 32 values"):
        Transplant(model, {1: torch.ones(7)})
    with pytest.raises(BlockError, match="has no block 9"):
        Transplant(model, {9: torch.ones(32)})
    with pytest.raises(StateError, match="not finite"):
        Transplant(model, {1: torch.full((32,), float("inf"))})
    entered = Transplant(model, {1: torch.ones(32)})
    with entered, pytest.raises(SpecError, match="already in"):
        entered.__enter__()
