"""Generation under a transplant equals full passes over the finished text, edited by hand (see `oracle`)."""

from functools import cache

import pytest
import torch

from contrans.transplants import OPERATIONS, SCOPES, Transplant
from tests.tiny import tiny
from tests.transplants.oracle import BLOCK, edited_columns, left_padded, steered_logits

FAMILIES = ["llama", "gemma3_text", "gpt2", "falcon", "bloom"]
TEXTS = ["the cat sat there", "one", "they think the weather"]
NEW = 4

model_of = cache(tiny)


def shift_for(model, length: float = 3.0) -> torch.Tensor:
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))
    return length * direction / direction.norm()


def oracle(model, ids, prompt, scope, operation):
    chosen = edited_columns(scope, ids, prompt, model.tokenizer.bos_token_id)
    return steered_logits(model, ids, chosen, operation, shift_for(model))


def steered(model, scope, operation, inputs, **settings):
    with Transplant(model, {BLOCK: shift_for(model)}, positions=scope, operation=operation):
        return model.generate(
            **inputs,
            max_new_tokens=NEW,
            min_new_tokens=NEW,
            pad_token_id=0,
            return_dict_in_generate=True,
            **{"do_sample": False} | settings,
        )


@cache
def unsteered_logits(family):
    model = model_of(family)
    settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
    out = model.generate(**left_padded(model, TEXTS)[1], **settings, return_dict_in_generate=True, output_logits=True)
    return torch.stack(out.logits)


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_left_padded_batch_with_cache(family, scope, operation):
    model = model_of(family)
    prompts, inputs = left_padded(model, TEXTS)
    out = steered(model, scope, operation, inputs, output_logits=True)
    assert not torch.allclose(torch.stack(out.logits), unsteered_logits(family), rtol=1e-2, atol=5e-2)
    for i, prompt in enumerate(prompts):
        text = prompt + out.sequences[i, -NEW:].tolist()
        expected = oracle(model, text, len(prompt), scope, operation)[len(prompt) - 1 : -1]
        got = torch.stack([step[i] for step in out.logits])
        torch.testing.assert_close(got, expected, rtol=1e-3, atol=5e-4)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", ["llama", "gemma3_text"])
@pytest.mark.parametrize("settings", [{"use_cache": False}, {"cache_implementation": "static"}])
def test_other_caches_and_none(family, scope, settings):
    model = model_of(family)
    _, inputs = left_padded(model, TEXTS)
    usual = steered(model, scope, "add", inputs, output_logits=True)
    other = steered(model, scope, "add", inputs, output_logits=True, **settings)
    assert torch.equal(usual.sequences, other.sequences)
    torch.testing.assert_close(torch.stack(other.logits), torch.stack(usual.logits), rtol=1e-3, atol=5e-4)


def beams_by_brute_force(model, prompt, scope, operation, width):
    """Sequences and scores of a beam search that reads every beam anew at every step."""
    beams = [(0.0, list(prompt))]
    for _ in range(NEW):
        grown = []
        for score, text in beams:
            logprob = oracle(model, text, len(prompt), scope, operation)[-1].log_softmax(-1)
            logprob[model.module.generation_config.eos_token_id] = float("-inf")
            best = logprob.topk(width)
            grown += [(score + v, [*text, t]) for v, t in zip(best.values.tolist(), best.indices.tolist(), strict=True)]
        beams = sorted(grown, reverse=True)[:width]
    return [text for _, text in beams], [score / NEW for score, _ in beams]


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_beam_search_equals_brute_force(family, scope):
    model = model_of(family)
    prompts, inputs = left_padded(model, TEXTS[:2])
    out = steered(
        model, scope, "add", inputs, num_beams=3, num_return_sequences=3, output_scores=True, length_penalty=1.0
    )
    width = inputs["input_ids"].shape[1]
    for i, prompt in enumerate(prompts):
        expected, scores = beams_by_brute_force(model, prompt, scope, "add", 3)
        rows = slice(3 * i, 3 * i + 3)
        assert out.sequences[rows, width - len(prompt) :].tolist() == expected
        torch.testing.assert_close(out.sequences_scores[rows], torch.tensor(scores), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("operation", [o for o in OPERATIONS if o != "add"])
def test_beam_scores_of_other_operations(operation):
    model = model_of("llama")
    prompts, inputs = left_padded(model, TEXTS)
    out = steered(model, "all", operation, inputs, num_beams=3, output_scores=True, length_penalty=1.0)
    for i, prompt in enumerate(prompts):
        new = out.sequences[i, -NEW:]
        logits = oracle(model, prompt + new.tolist(), len(prompt), "all", operation)[len(prompt) - 1 : -1]
        score = logits.log_softmax(-1).gather(1, new[:, None]).sum() / NEW
        torch.testing.assert_close(out.sequences_scores[i], score, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("scope", SCOPES)
def test_a_second_turn_on_the_kept_cache_has_a_prompt_of_its_own(scope):
    model = model_of("llama")
    prompt = model.tokenizer(TEXTS[0])["input_ids"]
    turn = model.tokenizer(" and one", add_special_tokens=False)["input_ids"]
    shift = shift_for(model)
    with Transplant(model, {BLOCK: shift}, positions=scope):
        settings = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False, "pad_token_id": 0}
        settings |= {"return_dict_in_generate": True, "output_logits": True}
        first = model.generate(input_ids=torch.tensor([prompt]), **settings)
        given = first.sequences[0].tolist() + turn
        second = model.generate(input_ids=torch.tensor([given]), past_key_values=first.past_key_values, **settings)
    text = second.sequences[0].tolist()
    bos = model.tokenizer.bos_token_id
    # the last token of the first turn was written, but never read in it
    kept = len(prompt) + NEW - 1
    chosen = edited_columns(scope, text, len(given), bos)
    chosen[:kept] = edited_columns(scope, text, len(prompt), bos)[:kept]
    expected = steered_logits(model, text, chosen, "add", shift)[len(given) - 1 : -1]
    torch.testing.assert_close(torch.cat(second.logits), expected, rtol=1e-3, atol=5e-4)


def test_bos_is_spared_in_embeddings_too():
    for family in ("llama", "gemma3_text"):
        model = model_of(family)
        prompts, _ = left_padded(model, TEXTS[:1])
        ids = torch.tensor(prompts)
        embeds = model.module.get_input_embeddings()(ids)
        with Transplant(model, {BLOCK: shift_for(model)}):
            by_ids, by_embeds = model.module(input_ids=ids).logits, model.module(inputs_embeds=embeds).logits
        torch.testing.assert_close(by_embeds, by_ids)
        torch.testing.assert_close(by_ids[0], oracle(model, prompts[0], len(prompts[0]), "all", "add"))
