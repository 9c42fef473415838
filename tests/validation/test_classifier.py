"""A real pipeline whose classifier detects one planted token."""

import numpy as np
import pytest
from transformers import BertModel, TextClassificationPipeline

from contrans.errors import ModelError, SpecError, TextError
from contrans.validation.classifier import Classifier, toxic_label_of
from tests.tiny import tiny_tokenizer
from tests.validation.toxic_texts import BAD, planted_classifier


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(planted_classifier())


@pytest.mark.parametrize(
    ("labels", "wanted", "toxic"),
    [
        (["LABEL_0", "LABEL_1"], None, "LABEL_1"),
        (["benign", "toxic"], None, "toxic"),
        (["nothate", "hate"], None, "hate"),
        (["Hate-Speech", "normal"], None, "Hate-Speech"),
        (["toxic", "severe_toxic", "obscene", "hate"], None, "toxic"),
        (["a", "b"], "b", "b"),
        (["toxic", "b"], "b", "b"),
    ],
)
def test_which_label_is_toxic(labels, wanted, toxic):
    assert toxic_label_of(labels, wanted) == toxic


@pytest.mark.parametrize(
    ("labels", "wanted", "message"),
    [
        (
            ["POSITIVE", "NEGATIVE"],
            None,
            "labels are POSITIVE, NEGATIVE, of which none is known .* name it with toxic_label",
        ),
        (["LABEL_0", "LABEL_1", "LABEL_2"], None, "none is known"),
        (["hate", "offensive", "normal"], None, "hate and offensive may each mean toxic"),
        (["a", "b"], "c", "no label 'c'; its labels are a, b"),
    ],
)
def test_unknown_labels(labels, wanted, message):
    with pytest.raises(SpecError, match=message):
        toxic_label_of(labels, wanted)


def test_the_planted_classifier_detects_its_token(classifier):
    texts = ["the cat", f"the {BAD} cat sat there", "one stone alone on a mountain", f"they think{BAD}"]
    np.testing.assert_allclose(classifier.probabilities(texts), [0, 1, 0, 1], atol=1e-3)
    assert classifier.probabilities([]).shape == (0,)


def test_probabilities_equal_the_models_softmax():
    model, tokenizer = planted_classifier()
    model.classifier.weight[-1, 0] = 3.0
    model.classifier.bias[-1] = -0.5
    texts = ["the cat", f"the {BAD}", "one stone alone on a mountain"]
    expected = [float(model(**tokenizer(t, return_tensors="pt")).logits.softmax(-1)[0, 1]) for t in texts]
    pair = Classifier((model, tokenizer), batch_size=2)
    pipeline = Classifier(TextClassificationPipeline(model=model, tokenizer=tokenizer, device="cpu"))
    for judge in (pair, pipeline, Classifier((model, tiny_tokenizer(pad=False)))):
        np.testing.assert_allclose(judge.probabilities(texts), expected, atol=1e-6)
    swapped = Classifier((model, tokenizer), toxic_label="LABEL_0")
    np.testing.assert_allclose(swapped.probabilities(texts), 1 - np.array(expected), atol=1e-6)


def test_texts_longer_than_the_classifier_reads_are_cut(classifier):
    assert classifier.probabilities([f"{BAD} " + "the cat " * 200])[0] > 0.99
    assert classifier.probabilities(["the cat " * 200 + BAD])[0] < 0.01


def test_one_label_is_a_sigmoid_and_a_regression_no_probability():
    judge = Classifier(planted_classifier(labels=("toxicity",)))
    np.testing.assert_allclose(judge.probabilities(["the cat", BAD]), [0, 1], atol=1e-3)
    with pytest.raises(SpecError, match="which is no probability"):
        Classifier(planted_classifier(labels=("toxicity",), problem_type="regression")).probabilities([BAD])


def test_classifier_bad_input(classifier, tmp_path):
    with pytest.raises(TextError, match="Text 1 of 2 is empty"):
        classifier.probabilities(["the cat", " -"])
    with pytest.raises(SpecError, match="str cannot judge toxicity"):
        Classifier("tomh/toxigen_roberta")  # type: ignore[arg-type]
    with pytest.raises(SpecError, match="its labels are LABEL_0, LABEL_1"):
        Classifier(planted_classifier(), toxic_label="bad")
    with pytest.raises(ModelError, match="cannot be loaded"):
        Classifier.load(str(tmp_path / "nowhere"))


def test_loading(tmp_path):
    model, tokenizer = planted_classifier()
    model.save_pretrained(tmp_path / "whole")
    tokenizer.save_pretrained(tmp_path / "whole")
    np.testing.assert_allclose(
        Classifier.load(str(tmp_path / "whole")).probabilities(["the cat", BAD]), [0, 1], atol=1e-3
    )
    BertModel(model.config).save_pretrained(tmp_path / "headless")
    tokenizer.save_pretrained(tmp_path / "headless")
    with pytest.raises(ModelError, match=r"lacks 2 weights of a classifier, classifier\.bias first"):
        Classifier.load(str(tmp_path / "headless"))
