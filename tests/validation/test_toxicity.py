"""The Toxigen protocol with a real pipeline whose classifier detects one planted token, on harmless sentences."""

import logging

import numpy as np
import pytest
import torch

from contrans.errors import BlockError, SpecError, TextError
from contrans.transplants import Transplant
from contrans.validation.classifier import Classifier
from contrans.validation.generation import Sampling
from contrans.validation.protocol import ItemProtocol
from contrans.validation.text_measures import Limits, copy_rate, distinct_n
from contrans.validation.toxicity import Toxicity, _item
from contrans.validation.toxigen import Demonstration, toxigen_prompts
from tests.tiny import tiny
from tests.validation.toxic_texts import BAD, demonstrations, planted_classifier, prompts

BLOCK = 3
ANYTHING = Limits(repetition=1.0, dominance=1.0, surprise=float("inf"))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(planted_classifier())


@pytest.fixture(scope="module")
def model():
    return tiny("llama", max_position_embeddings=512)


def towards(model, token: str) -> torch.Tensor:
    """A shift of the last block after which the model writes nothing but this token."""
    row = model.module.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids(token)]
    return row / row.norm() * 1e4


def test_scores_equal_the_library_and_brute_force(model, classifier):
    items = prompts()
    protocol: ItemProtocol = Toxicity(
        model, items, classifier, block=BLOCK, max_new_tokens=12, limits=ANYTHING, batch_size=5
    )
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0)) * 3
    scores = protocol.score(shift)
    with Transplant(model, {BLOCK: shift}):
        whole = [model.complete(p.text, max_new_tokens=12)[0] for p in items]
    for got, text, flaw, prompt in zip(scores.texts, whole, scores.flaws, items, strict=True):
        lines = [line.strip().removeprefix("-").strip() for line in text.splitlines()]
        assert got == next((line for line in lines if any(c.isalnum() for c in line)), "")
        expected = "empty" if not got else "copied" if copy_rate(prompt.text, got) > 0.5 else ""
        assert flaw == expected
    assert protocol.n_items == 12
    assert protocol.n_tokens == sum(len(model.tokenizer(p.text)["input_ids"]) + 12 for p in items)
    assert scores.groups == [p.group for p in items]
    plain = protocol.score(None)
    assert plain.texts != scores.texts


def test_toxic_texts_are_those_that_the_classifier_sees(model, classifier):
    drawn = Sampling(temperature=3.0, top_p=1.0)
    protocol = Toxicity(
        model, prompts(per_group=40), classifier, block=BLOCK, max_new_tokens=30, limits=ANYTHING, sampling=drawn
    )
    scores = protocol.score(None)
    bad = np.array([BAD in t for t in scores.texts])
    assert 0 < bad.sum() < len(bad)
    np.testing.assert_allclose(scores.probability, bad, atol=1e-2)
    hits = protocol.hits(scores, "fairness")
    valid = np.array([f == "" for f in scores.flaws])
    np.testing.assert_array_equal(hits["toxic"][0], bad)
    np.testing.assert_array_equal(hits["non_toxic"][0], ~bad & valid)
    assert all(counts.all() and values.dtype == float for values, counts in hits.values())
    assert protocol.score(None).texts == scores.texts


@pytest.mark.parametrize(
    ("token", "bad_prompt", "flaw", "toxic"),
    [
        ("</s>", False, "empty", 0.0),
        ("-", False, "empty", 0.0),
        ("b", False, "degenerate", 0.0),
        (BAD, False, "degenerate", 1.0),
        ("b", True, "copied", 0.0),
    ],
)
def test_flawed_output_is_never_safe(model, classifier, caplog, token, bad_prompt, flaw, toxic):
    shown = (
        [Demonstration(f"{'b' * 8} {i}", "cats", True) for i in range(5)] if bad_prompt else demonstrations(["cats"])
    )
    items = toxigen_prompts(shown, per_group=4, shots=3)
    protocol = Toxicity(model, items, classifier, block=BLOCK, max_new_tokens=8)
    with caplog.at_level(logging.WARNING):
        scores = protocol.score(towards(model, token))
    assert scores.flaws == [flaw] * 4
    means = {name: float(values.mean()) for name, (values, _) in protocol.hits(scores, "fairness").items()}
    assert means["non_toxic"] == means["valid"] == 0
    assert means["toxic"] == toxic
    assert means[flaw] == 1
    assert all(np.isfinite(list(means.values())))
    assert "4 of 4 continuations of tiny-llama-0 are empty, copied or degenerate" in caplog.text


def test_word_salad_is_degenerate(model, classifier):
    """Random tokens repeat nothing; only the unsteered model's surprise tells them from text."""
    salad = towards(model, "</s>") * -1
    protocol = Toxicity(
        model, prompts(per_group=4), classifier, block=BLOCK, sampling=Sampling(temperature=50000.0, top_p=1.0)
    )
    flaws = protocol.score(salad).flaws
    assert flaws.count("degenerate") >= 6
    lenient = Toxicity(
        model,
        prompts(per_group=4),
        classifier,
        block=BLOCK,
        sampling=Sampling(temperature=50000.0, top_p=1.0),
        limits=Limits(surprise=float("inf")),
    )
    assert "degenerate" not in lenient.score(salad).flaws


@pytest.mark.parametrize(
    ("text", "item"),
    [
        (" cats are there\n- dogs", "cats are there"),
        ("\n- cats are there", "cats are there"),
        ("\n\n", ""),
        (" - cats", "cats"),
        ("...\ncats", "cats"),
    ],
)
def test_an_item_is_one_line(text, item):
    assert _item(text) == item


def test_protocol_bad_input(model, classifier):
    with pytest.raises(TextError, match="no Toxigen prompts"):
        Toxicity(model, [], classifier, block=BLOCK)
    with pytest.raises(BlockError, match="no block 7"):
        Toxicity(model, prompts(), classifier, block=7)
    protocol = Toxicity(model, prompts(), classifier, block=BLOCK, concepts=["fairness", "civility"], max_new_tokens=2)
    with pytest.raises(SpecError, match="does not judge 'anger'; it was set up for fairness, civility"):
        protocol.hits(protocol.score(None), "anger")


def test_distinct_counts_the_tokens_that_were_written(model, classifier):
    protocol = Toxicity(model, prompts(per_group=2), classifier, block=BLOCK, max_new_tokens=6)
    scores = protocol.score(towards(model, "b"))
    np.testing.assert_allclose(scores.metrics["distinct_1"], distinct_n([["b"] * 6], 1))
    np.testing.assert_allclose(scores.metrics["distinct_2"], 1 / 5)
