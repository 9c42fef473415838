"""A transplant shifts exactly one block's output, at the right positions, on every architecture."""

from contextlib import ExitStack

import pytest
import torch

from contrans.concepts import ConceptVector
from contrans.errors import ArtifactError, BlockError, FitError, SpecError, StateError
from contrans.transplants import COMBINATIONS, Transplant, combine, transplant
from contrans.transplants.apply import shift_of
from contrans.transplants.compose import parts
from tests.tiny import ARCHITECTURES, tiny

TEXTS = ["the cat sat there", "one", "they think the weather"]
BLOCK = 2


def vector_for(model, seed: int = 3, **changes) -> ConceptVector:
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))
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


@pytest.mark.parametrize("method", COMBINATIONS)
def test_several_vectors_at_one_block(method):
    model = tiny("llama")
    vectors, doses = [vector_for(model, seed=s, residual_norm={BLOCK: 4.0 + s}) for s in (1, 2, 3)], [0.3, -0.2, 0.5]
    ids, mask = padded(model, TEXTS, "right")
    inputs = {"input_ids": ids, "attention_mask": mask, "use_cache": False}
    directions = torch.stack([v.directions[BLOCK] for v in vectors])
    shift = combine(directions, doses, method, [5.0, 6.0, 7.0])
    with Transplant(model, {BLOCK: shift}):
        expected = model.module(**inputs).logits
    with transplant(model, vectors, dose=doses, combine=method):
        torch.testing.assert_close(model.module(**inputs).logits, expected, rtol=1e-4, atol=1e-5)
    if method == "sum":
        with ExitStack() as stack:
            for vector, dose in zip(vectors, doses, strict=True):
                stack.enter_context(transplant(model, vector, dose=dose))
            torch.testing.assert_close(model.module(**inputs).logits, expected, rtol=1e-4, atol=1e-5)


def test_vectors_at_blocks_of_their_own_and_one_vector_at_several():
    model = tiny("llama")
    first, second = vector_for(model, seed=1), vector_for(model, seed=2)
    elsewhere = vector_for(model, directions={1: second.directions[BLOCK]}, residual_norm={1: 2.0})
    made = transplant(model, [first, elsewhere], dose=0.4)
    assert made.shifts.keys() == {1, BLOCK}
    assert torch.equal(made.shifts[BLOCK], shift_of(first, 0.4, BLOCK))
    torch.testing.assert_close(made.shifts[1], 0.8 * second.directions[BLOCK] / second.directions[BLOCK].norm())
    many = vector_for(
        model, directions={b: torch.randn(32) for b in range(4)}, residual_norm={b: 1.0 + b for b in range(4)}
    )
    both = transplant(model, many, dose=0.4, block=[1, 3, 3])
    assert {b: round(float(s.norm()), 4) for b, s in both.shifts.items()} == {1: 0.8, 3: 1.6}
    ids, mask = padded(model, TEXTS, "right")
    with both:
        together = model.module(input_ids=ids, attention_mask=mask).logits
    with transplant(model, many, dose=0.4, block=3), transplant(model, many, dose=0.4, block=1):
        torch.testing.assert_close(model.module(input_ids=ids, attention_mask=mask).logits, together)


@pytest.mark.parametrize("method", ["loewdin", "gram_schmidt"])
def test_several_vectors_are_clamped_and_ablated_each(method):
    model = tiny("llama")
    vectors = [vector_for(model, seed=s) for s in (1, 2)]
    directions = torch.stack([v.directions[BLOCK] for v in vectors])
    ids, mask = padded(model, TEXTS, "left")
    edited = mask.bool() & (ids != model.tokenizer.bos_token_id)
    inputs = {"input_ids": ids, "attention_mask": mask}
    before, _ = block_outputs(model, **inputs)
    with transplant(model, vectors, dose=0.0, operation="ablate", combine=method):
        after, _ = block_outputs(model, **inputs)
    # the whole span of both is gone, and nothing else
    torch.testing.assert_close(after[edited] @ directions.T, torch.zeros(int(edited.sum()), 2), rtol=0, atol=1e-4)
    q = torch.linalg.qr(directions.T).Q
    torch.testing.assert_close(after[edited], before[edited] - before[edited] @ q @ q.T, rtol=1e-3, atol=1e-4)
    with transplant(model, vectors, dose=[0.4, -0.6], operation="clamp", combine=method):
        after, _ = block_outputs(model, **inputs)
    axes = parts(directions, [1.0, 1.0], method, 1.0).float()
    torch.testing.assert_close(
        after[edited] @ axes.T, torch.tensor([[2.0, -3.0]]).expand(int(edited.sum()), 2), rtol=1e-3, atol=1e-4
    )
    for operation in ("clamp", "ablate"):
        with pytest.raises(SpecError, match="must be orthogonal"):
            transplant(model, vectors, operation=operation)


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
    with pytest.raises(SpecError, match="Combination 'mean' is not known"):
        transplant(model, vector_for(model), combine="mean")
    with pytest.raises(SpecError, match="3 doses were given for 2 vectors"):
        transplant(model, [vector_for(model)] * 2, dose=[1, 2, 3])
    with pytest.raises(SpecError, match="for 0 vectors"):
        transplant(model, [])
    with pytest.raises(FitError, match="nearly dependent"):
        transplant(model, [vector_for(model)] * 2, combine="loewdin")
    with pytest.raises(SpecError, match='no direction for "clamp"'):
        transplant(model, vector_for(model), dose=0.0, operation="clamp")
    for shape in ((7,), (2, 7), (0, 32), ()):
        with pytest.raises(BlockError, match="must have 32 values"):
            Transplant(model, {1: torch.ones(shape)})
    with pytest.raises(BlockError, match="must have 32 values"):
        Transplant(model, {1: torch.ones(7)})
    with pytest.raises(BlockError, match="has no block 9"):
        Transplant(model, {9: torch.ones(32)})
    with pytest.raises(StateError, match="not finite"):
        Transplant(model, {1: torch.full((32,), float("inf"))})
    entered = Transplant(model, {1: torch.ones(32)})
    with entered, pytest.raises(SpecError, match="already in"):
        entered.__enter__()
