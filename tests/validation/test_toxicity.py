"""The Toxigen protocol with a real pipeline whose classifier detects one planted token, on harmless sentences."""

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from transformers import AutoModelForSequenceClassification, BertConfig, BertModel, TextClassificationPipeline

from contrans.errors import BlockError, ModelError, SpecError, TextError
from contrans.transplants import Transplant
from contrans.validation.generation import Continuation, Limits, Sampling, copy_rate, distinct_n
from contrans.validation.protocol import ItemProtocol
from contrans.validation.samples import flaw_of
from contrans.validation.toxicity import (
    Classifier,
    Demonstration,
    Toxicity,
    ToxicityResult,
    ToxicityScores,
    _item,
    read_toxigen,
    toxic_label_of,
    toxigen_prompts,
)
from tests.tiny import tiny, tiny_tokenizer

SHARED = Path(__file__).parents[3] / "shared" / "data" / "toxigen_demonstrations"
BAD = "Q"  # a letter that is a token of its own, and stands for toxic text
BLOCK = 3
ANYTHING = Limits(repetition=1.0, dominance=1.0, surprise=float("inf"))


def planted_classifier(*, labels: tuple[str, ...] = ("LABEL_0", "LABEL_1"), **extra):
    """A BERT that averages its tokens and whose head looks for one of them."""
    tokenizer = tiny_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=64,
        id2label=dict(enumerate(labels)),
        label2id={label: i for i, label in enumerate(labels)},
        **extra,
    )
    torch.manual_seed(0)
    model = AutoModelForSequenceClassification.from_config(config).eval().requires_grad_(False)
    for name, weight in model.named_parameters():
        if "LayerNorm" not in name:
            weight.zero_()
    words = model.bert.embeddings.word_embeddings.weight
    words[:, 1] = 1.0
    words[tokenizer.convert_tokens_to_ids(BAD)] = torch.eye(8)[0]
    layer = model.bert.encoder.layer[0]
    # no query and no key: every token looks at all of them alike
    for dense in (layer.attention.self.value, layer.attention.output.dense, model.bert.pooler.dense):
        dense.weight.copy_(torch.eye(8))
    clean = tokenizer("the cat sat there", return_tensors="pt")
    level = model.bert(clean["input_ids"], attention_mask=clean["attention_mask"]).pooler_output[0, 0]
    model.classifier.weight[-1, 0] = 4000.0
    model.classifier.bias[-1] = -4000.0 * (level + 0.005)
    return model, tokenizer


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    return Classifier(planted_classifier())


@pytest.fixture(scope="module")
def model():
    return tiny("llama", max_position_embeddings=512)


def demonstrations(groups=("cats", "stones"), n=7) -> list[Demonstration]:
    return [Demonstration(f"the {g} are there {i}", g, i % 2 == 0) for g in groups for i in range(2 * n)]


def prompts(**settings):
    return toxigen_prompts(demonstrations(), **({"per_group": 6, "shots": 3} | settings))


def towards(model, token: str) -> torch.Tensor:
    """A shift of the last block after which the model writes nothing but this token."""
    row = model.module.get_output_embeddings().weight[model.tokenizer.convert_tokens_to_ids(token)]
    return row / row.norm() * 1e4


# -- items --------------------------------------------------------------------------------------------------


def test_reads_a_folder(tmp_path):
    (tmp_path / "hate_cats_sentences.txt").write_text("one is bad\n\n two is bad \n")
    (tmp_path / "hate_cats.txt").write_text("ONE is  bad\nthree is bad\n")
    (tmp_path / "neutral_grey_cats.txt").write_text("one is good\n")
    (tmp_path / "readme.txt").write_text("not a demonstration\n")
    assert read_toxigen(tmp_path) == [
        # the same sentence in both files of a group counts once
        Demonstration("ONE is bad", "cats", True),
        Demonstration("three is bad", "cats", True),
        Demonstration("two is bad", "cats", True),
        Demonstration("one is good", "grey_cats", False),
    ]


def test_reads_a_csv(tmp_path):
    path = tmp_path / "sentences.csv"
    path.write_text('\ufefflabel,group,text,extra\n1,cats,"one, ""two"" bad",x\nneutral,cats,three good,y\n', "utf-8")
    assert read_toxigen(path) == [
        Demonstration('one, "two" bad', "cats", True),
        Demonstration("three good", "cats", False),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("text,label\na,1\n", "lacks the column group: it has text, label"),
        ("sentence\na\n", "lacks the column text and group and label: it has sentence"),
        ("", "lacks the column text and group and label: it has none"),
        ("text,group,label\n", "no rows below its header"),
        ("text,group,label\na,cats,1\nb,cats,maybe\n", "Line 3 .* label 'maybe'"),
        ("text,group,label\n ,cats,1\n", "Line 2 .* has text ''"),
        ("text,group,label\na,cats\n", "Line 2 .* label ''"),
    ],
)
def test_csv_bad_input(tmp_path, text, message):
    path = tmp_path / "sentences.csv"
    path.write_text(text)
    with pytest.raises(TextError, match=message):
        read_toxigen(path)


def test_reading_bad_input(tmp_path):
    with pytest.raises(TextError, match="There is no"):
        read_toxigen(tmp_path / "nowhere")
    with pytest.raises(TextError, match=r"holds no sentences in files such as hate_<group>\.txt"):
        read_toxigen(tmp_path)
    (tmp_path / "hate_cats.txt").write_bytes(b"caf\xe9 is bad\n")
    with pytest.raises(TextError, match="no UTF-8 text"):
        read_toxigen(tmp_path)


def test_prompts_are_different_lists_of_one_group():
    made = prompts()
    assert [p.group for p in made] == ["cats"] * 6 + ["stones"] * 6
    assert len({p.text for p in made}) == 12
    hateful = {d.text for d in demonstrations() if d.hateful}
    for p in made:
        *lines, last = p.text.split("\n")
        assert last == "-"
        assert len({line.removeprefix("- ") for line in lines} & hateful) == 3
        assert all(p.group in line for line in lines)
    assert made == prompts()
    assert made != prompts(seed=1)
    # a group's prompts stay what they are when others are added
    assert made[:6] == toxigen_prompts(demonstrations(["cats", "dogs"]), per_group=6, shots=3)[:6]
    assert not {p.text for p in prompts(hateful=False)} & {p.text for p in made}
    # 7 · 6 ordered lists of two exist
    assert len(prompts(per_group=100, shots=2)) == 84


def test_prompts_bad_input():
    with pytest.raises(TextError, match="'cats' has 7 hateful sentences, fewer than the 8"):
        prompts(shots=8)
    with pytest.raises(TextError, match="no neutral sentences"):
        toxigen_prompts([Demonstration("a", "cats", True)], hateful=False)
    for wrong in ({"per_group": 0}, {"shots": 0}):
        with pytest.raises(SpecError, match="must be at least 1"):
            prompts(**wrong)


@pytest.mark.shared
@pytest.mark.skipif(not SHARED.is_dir(), reason="the public data sets are not there")
def test_the_public_demonstrations():
    found = read_toxigen(SHARED)
    made = toxigen_prompts(found, per_group=20)
    groups = {d.group for d in found}
    assert {"asian", "muslim", "native_american"} <= groups
    assert {p.group for p in made} == groups
    assert len(made) == 20 * len(groups)
    assert all(p.text.count("\n- ") == 4 for p in made)


# -- the judge ----------------------------------------------------------------------------------------------


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


# -- the protocol -------------------------------------------------------------------------------------------


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


def test_flaws_in_their_order():
    def written(text, ids):
        return Continuation("- one two three four five\n-", [1], text, ids, False)

    assert flaw_of(written("", [])) == "empty"
    assert flaw_of(written(" one two three four five", [5] * 9)) == "copied"
    assert flaw_of(written(" x x x x x", [5] * 5)) == "degenerate"
    assert flaw_of(written(" six seven", [5, 6])) == ""


def test_protocol_bad_input(model, classifier):
    with pytest.raises(TextError, match="no Toxigen prompts"):
        Toxicity(model, [], classifier, block=BLOCK)
    with pytest.raises(BlockError, match="no block 7"):
        Toxicity(model, prompts(), classifier, block=7)
    protocol = Toxicity(model, prompts(), classifier, block=BLOCK, concepts=["fairness", "civility"], max_new_tokens=2)
    with pytest.raises(SpecError, match="does not judge 'anger'; it was set up for fairness, civility"):
        protocol.hits(protocol.score(None), "anger")


# -- the result ---------------------------------------------------------------------------------------------


def scores_by_hand() -> ToxicityScores:
    shares = {
        "non_toxic": [1, 0, 0, 1],
        "toxic": [0, 1, 0, 0],
        "valid": [1, 1, 0, 1],
        "empty": [0, 0, 1, 0],
        "copied": [0, 0, 0, 0],
        "degenerate": [0, 0, 0, 0],
        "distinct_1": [0.5, 1, 0, 1],
        "distinct_2": [0.5, 1, 0, 0.5],
    }
    metrics = {k: np.array(v, dtype=float) for k, v in shares.items()}
    texts = ["a", "b", "", "c"]
    return ToxicityScores(["cats", "cats", "dogs", "dogs"], texts, ["", "", "empty", ""], np.zeros(4), metrics)


def test_result_rows_and_renderings():
    result = ToxicityResult({"unsteered": scores_by_hand(), "shuffled_map": scores_by_hand()})
    rows = {(r["arm"], r["group"], r["metric"]): r for r in result.rows()}
    assert len(rows) == 2 * 3 * 8
    interval = binomtest(2, 4).proportion_ci(method="wilson")
    row = rows["unsteered", "all", "non_toxic"]
    assert (row["value"], row["low"], row["high"], row["n"]) == pytest.approx((0.5, interval.low, interval.high, 4))
    assert rows["unsteered", "dogs", "empty"]["value"] == 0.5
    distinct = rows["unsteered", "all", "distinct_2"]
    assert distinct["value"] == 0.5
    assert distinct["low"] <= 0.5 <= distinct["high"]
    assert result.to_json() == {"rows": result.rows()}
    lines = result.markdown().splitlines()
    assert lines[0].startswith("| arm | group | n | non toxic | toxic | valid | empty |")
    assert "| shuffled\\_map | cats | 2 | 0.50 \\[0.09, 0.91\\] |" in lines[5]
    table = result.table()
    assert table.row_count == 6
    assert len(table.columns) == 10


def test_distinct_counts_the_tokens_that_were_written(model, classifier):
    protocol = Toxicity(model, prompts(per_group=2), classifier, block=BLOCK, max_new_tokens=6)
    scores = protocol.score(towards(model, "b"))
    np.testing.assert_allclose(scores.metrics["distinct_1"], distinct_n([["b"] * 6], 1))
    np.testing.assert_allclose(scores.metrics["distinct_2"], 1 / 5)
