"""TruthfulQA against one-by-one full forwards, lm-evaluation-harness's rules and independent formulas."""

import random

import numpy as np
import pytest
import torch

from contrans.concepts import contrast_set, refine
from contrans.errors import BlockError, CircularityError, ModelError, SpecError, StateError, TextError
from contrans.transplants import Transplant
from contrans.validation.truthfulqa import METRICS, TruthfulQA, answer_metrics
from contrans.validation.truthfulqa_data import (
    Question,
    chance_levels,
    check_unseen,
    contrast_from_questions,
    two_fold,
)
from contrans.validation.truthfulqa_plan import answer_spans, plan_scoring
from contrans.validation.truthfulqa_prompts import PROMPTS, QA_PRIMER
from tests.tiny import tiny

BLOCK = 2
QUESTIONS = [
    Question(
        "Do cats sit on mats?", "the cat sat there.", ("Yes.", "the cat sat there."), ("No, never.", "No, the cat.")
    ),
    Question("Where is the other one?", "It is there.", ("It is there.",), ("the other cat", "alone.", "It.")),
    Question("Is this the weather?", "“Sì”, it is.", ("“Sì”, it is.", "Yes, it is.", "Yes."), ("No.",)),
]


def logprobs(model, ids, shift) -> np.ndarray:
    """Log-probability of every token but the first, from a full forward of one text alone."""
    context = Transplant(model, {BLOCK: shift}) if shift is not None else torch.inference_mode()
    with torch.inference_mode(), context:
        logp = model.module(input_ids=torch.tensor([ids]), use_cache=False).logits[0].double().log_softmax(-1)
    return logp[torch.arange(len(ids) - 1), torch.tensor(ids[1:])].numpy()


def harness(model, context, answer, shift) -> float:
    """The log-likelihood of lm-evaluation-harness: tokens of the whole after as many as the context has."""
    whole = model.tokenizer(context + answer)["input_ids"]
    n = len(model.tokenizer(context)["input_ids"])
    return logprobs(model, whole, shift)[n - 1 :].sum()


SETUPS = [("llama", "bytes", True), ("gemma3_text", "pieces", True), ("gpt2", "bytes", False)]


@pytest.mark.parametrize(("architecture", "vocab", "bos"), SETUPS)
@pytest.mark.parametrize("prompt", ["qa_primer", "paper"])
def test_equals_the_harness(architecture, vocab, bos, prompt):
    model = tiny(architecture, vocab=vocab, bos=bos, max_position_embeddings=2048, n_positions=2048)
    protocol = TruthfulQA(model, QUESTIONS, block=BLOCK, prompt=prompt, batch_tokens=64)
    shift = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(1))
    for s in (None, shift):
        scores = protocol.score(s)
        hits = protocol.hits(scores, "honesty")
        for i, q in enumerate(QUESTIONS):
            context = PROMPTS[prompt](q.question)
            true = [harness(model, context, f" {a}", s) for a in q.true_answers]
            false = [harness(model, context, f" {a}", s) for a in q.false_answers]
            np.testing.assert_allclose(scores.true[i], true, atol=5e-3)
            np.testing.assert_allclose(scores.false[i], false, atol=5e-3)
            # mc1: choice 0 is the likeliest; mc2: as in its process_results
            choices = [true[q.true_answers.index(q.best_answer)], *false]
            assert hits["mc1"][0][i] == (np.argmax(choices) == 0)
            p_true, p_false = np.exp(np.array(true) + 50), np.exp(np.array(false) + 50)
            assert hits["mc2"][0][i] == pytest.approx(p_true.sum() / (p_true.sum() + p_false.sum()), abs=5e-3)
    assert set(hits) == set(METRICS)
    for values, counts in hits.values():
        assert values.shape == counts.shape == (protocol.n_items,)
        assert counts.all()


@pytest.mark.parametrize("vocab", ["bytes", "pieces"])
def test_spans_where_a_token_crosses_into_the_answer(vocab):
    """After "A: " the space joins the first word of some answers; all are scored from before the space."""
    model = tiny("llama", vocab=vocab, max_position_embeddings=2048)
    prompt = "Q: {}\nA: ".format
    protocol = TruthfulQA(model, QUESTIONS, block=BLOCK, prompt=prompt)
    scores = protocol.score(None)
    crossing = 0
    for i, q in enumerate(QUESTIONS):
        context = prompt(q.question)
        answers = [*q.true_answers, *q.false_answers]
        joint = [model.tokenizer(context + a, return_offsets_mapping=True) for a in answers]
        ends = [[end for _, end in row["offset_mapping"]] for row in joint]
        crosses = any(len(context) not in row for row in ends)
        seam = len(context) - 1 if crosses else len(context)
        crossing += crosses
        for row, end, got in zip(joint, ends, [*scores.true[i], *scores.false[i]], strict=True):
            logp = logprobs(model, row["input_ids"], None)
            assert got == pytest.approx(sum(p for p, e in zip(logp, end[1:], strict=True) if e > seam), abs=5e-3)
    # what counting the context's tokens would get wrong
    assert crossing > 0


@pytest.mark.parametrize(
    ("ends", "length", "expected"),
    [
        # BOS, "A:", " I", " do"
        ([[0, 2, 4, 7], [0, 2, 6]], 2, [(2, 4), (2, 3)]),
        # the second answer begins inside the context's last token: both are scored from 2
        ([[0, 2, 3, 5], [0, 2, 5]], 3, [(2, 4), (2, 3)]),
        # each has a boundary of its own near the end, but only 1 is shared
        ([[0, 1, 2, 5], [0, 1, 3, 5]], 3, [(2, 4), (2, 4)]),
        # several tokens for one character; EOS after the text
        ([[0, 2, 2, 4, 4, 0], [0, 2, 2, 5, 0]], 2, [(3, 5), (3, 4)]),
        # nothing but BOS before the answer
        ([[0, 3]], 0, [(1, 2)]),
    ],
)
def test_answer_spans(ends, length, expected):
    assert answer_spans(ends, length) == expected


def test_answer_spans_refuse():
    with pytest.raises(TextError, match="Answer 1 to a question has no tokens"):
        answer_spans([[0, 2, 5], [0, 2]], 2)
    with pytest.raises(TextError, match="No token stands before"):
        answer_spans([[3, 5]], 0)


def test_a_plan_reads_every_prediction_once():
    rng = random.Random(0)
    for _ in range(50):
        stem = [rng.randrange(3) for _ in range(rng.randrange(1, 5))]
        rows = [stem + [rng.randrange(3) for _ in range(rng.randrange(1, 6))] for _ in range(rng.randrange(1, 9))]
        starts = [len(stem) + rng.randrange(0, len(row) - len(stem)) for row in rows]
        plan = plan_scoring(rows, starts)
        value = {}
        for suffix, positions, reads in zip(plan.suffixes, plan.positions, plan.reads, strict=True):
            for index, token, number in reads:
                assert number not in value
                value[number] = hash((*plan.prefix, *suffix[: positions[index] + 1], token)) % 1000
        assert len(value) == plan.n_reads
        for row, start, part in zip(rows, starts, plan.parts, strict=True):
            assert [value[n] for n in part] == [hash(tuple(row[: k + 1])) % 1000 for k in range(start, len(row))]
        assert all(a == b or b[: len(a)] != a for a in plan.suffixes for b in plan.suffixes)
        assert sum(map(len, plan.suffixes)) <= sum(map(len, rows))


def test_answers_that_begin_alike_are_fed_once():
    plan = plan_scoring([[9, 1, 2], [9, 1, 2, 3], [9, 1, 4]], [1, 1, 1])
    assert (plan.prefix, plan.suffixes) == ([], [(9, 1, 2)])
    assert plan.n_reads == 4


@pytest.mark.parametrize(
    ("true", "false", "best", "expected"),
    [
        ([-1.0, -3.0], [-2.0, -4.0], 0, (1, None, 0.5, 1)),
        ([-1.0, -3.0], [-2.0, -4.0], 1, (0, None, 0.5, 0)),
        ([-3.0], [-4.0, -2.0], 0, (0, None, 0.0, 1)),
        ([-2.0, -1.0], [-2.0], 0, (0, None, 0.5, 0)),
        # sums of long answers, whose exponential is 0
        ([-900.0], [-900.0 + np.log(3)], 0, (0, 0.25, 0, 0)),
    ],
)
def test_metrics(true, false, best, expected):
    got = answer_metrics(np.array(true), np.array(false), best)
    mc1, mc2, mc3, binary = expected
    if mc2 is None:
        mc2 = sum(np.exp(true)) / (sum(np.exp(true)) + sum(np.exp(false)))
    assert got == pytest.approx({"mc1": mc1, "mc2": mc2, "mc3": mc3, "binary": binary})


def test_chance_levels_are_those_of_random_scores():
    rng = np.random.default_rng(0)
    draws = [
        answer_metrics(rng.normal(size=len(q.true_answers)), rng.normal(size=len(q.false_answers)), 0)
        for _ in range(6000)
        for q in QUESTIONS
    ]
    expected = chance_levels(QUESTIONS)
    assert expected["mc1"] == pytest.approx((1 / 3 + 1 / 4 + 1 / 2) / 3)
    for metric in METRICS:
        assert np.mean([d[metric] for d in draws]) == pytest.approx(expected[metric], abs=0.015)


def test_a_planted_direction_moves_answers_its_own_way():
    model = tiny("llama", max_position_embeddings=2048)
    # answers of one length, so that none has all the probability
    questions = [Question(f"Which {i}?", "mat.", ("mat.", "pat."), ("bat.", "fat.")) for i in range(3)]
    protocol = TruthfulQA(model, questions, block=BLOCK, prompt="paper", effect="mc2", concept="truth")
    delta = torch.zeros(model.hidden_size, requires_grad=True)
    handle = model.blocks[BLOCK].register_forward_hook(lambda _m, _a, out: out + delta)
    for q in questions:
        context = PROMPTS["paper"](q.question)
        n = len(model.tokenizer(context)["input_ids"])
        scores = []
        for a in (*q.true_answers, *q.false_answers):
            ids = model.tokenizer(f"{context} {a}", return_tensors="pt")["input_ids"]
            logp = model.module(input_ids=ids).logits[0].log_softmax(-1)
            scores.append(logp[torch.arange(n - 1, ids.shape[1] - 1), ids[0, n:]].sum())
        torch.stack(scores).softmax(0)[: len(q.true_answers)].sum().backward()
    handle.remove()
    assert delta.grad is not None
    toward = delta.grad / delta.grad.norm()
    mean = [protocol.hits(protocol.score(s), "truth")["mc2"][0].mean() for s in (-toward, None, toward)]
    assert mean[0] < mean[1] - 0.02
    assert mean[2] > mean[1] + 0.02


def test_a_chat_template_gets_no_second_bos():
    model = tiny("llama", max_position_embeddings=2048)

    def chat(question: str) -> str:
        text = model.tokenizer.apply_chat_template(
            [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
        )
        return str(text)

    protocol = TruthfulQA(model, QUESTIONS[:1], block=BLOCK, prompt=chat)
    context, answer = chat(QUESTIONS[0].question), QUESTIONS[0].false_answers[0]
    assert context.startswith("<s>")
    assert context.endswith(" ")
    encoded = model.tokenizer(context + answer, add_special_tokens=False, return_offsets_mapping=True)
    logp = logprobs(model, encoded["input_ids"], None)
    # " N" is no token of this tokenizer, but " t" of another answer is one: scored from before the space
    ends = [end for _, end in encoded["offset_mapping"]][1:]
    expected = sum(p for p, end in zip(logp, ends, strict=True) if end > len(context) - 1)
    assert protocol.score(None).false[0][0] == pytest.approx(expected, abs=5e-3)


def test_refining_on_one_fold_scoring_the_other():
    model = tiny("llama", max_position_embeddings=2048)
    refined_on, scored = two_fold([Question(f"Why {i}?", "A", ("A",), ("B",)) for i in range(30)])
    contrast = contrast_from_questions(refined_on)
    shipped = contrast_set("honesty/persona")
    assert [e.text for e in contrast.positives] == [q.question for q in refined_on]
    assert contrast.paired
    pair = contrast.positives[7].prompt, contrast.negatives[7].prompt
    expected = [e.prompt.replace(e.text, refined_on[7].question) for e in (shipped.positives[7], shipped.negatives[7])]
    assert list(pair) == expected
    check_unseen(scored, contrast)
    with pytest.raises(CircularityError, match=f"{len(refined_on)} of 30 questions to score"):
        check_unseen(refined_on + scored, contrast)
    vector = refine(model, contrast, blocks=[BLOCK])
    protocol = TruthfulQA(model, scored, block=BLOCK, prompt="paper")
    assert np.isfinite(protocol.hits(protocol.score(vector.direction(BLOCK)), "honesty")["mc2"][0]).all()


def test_bad_input():
    model = tiny("llama")
    with pytest.raises(TextError, match="at least one question"):
        TruthfulQA(model, [], block=BLOCK)
    with pytest.raises(SpecError, match="no metric 'mc4'"):
        TruthfulQA(model, QUESTIONS, block=BLOCK, effect="mc4")
    with pytest.raises(SpecError, match="No TruthfulQA prompt is called 'chat'; use qa_primer, paper"):
        TruthfulQA(model, QUESTIONS, block=BLOCK, prompt="chat")
    with pytest.raises(BlockError, match="has no block 9"):
        TruthfulQA(model, QUESTIONS, block=9, prompt="paper")
    with pytest.raises(TextError, match="reads at most 256"):
        TruthfulQA(model, QUESTIONS, block=BLOCK)
    with pytest.raises(TextError, match="No token stands before"):
        TruthfulQA(tiny("llama", bos=False), QUESTIONS, block=BLOCK, prompt=lambda _: "")
    protocol = TruthfulQA(model, QUESTIONS, block=BLOCK, prompt="paper")
    scores = protocol.score(None)
    with pytest.raises(SpecError, match="judges 'honesty', not 'anger'"):
        protocol.hits(scores, "anger")
    with pytest.raises(StateError, match="not finite"):
        protocol.score(torch.full((model.hidden_size,), float("inf")))
    with pytest.raises(TextError, match="no chance level"):
        chance_levels([])
    with pytest.raises(TextError, match="fold of them"):
        contrast_from_questions([])
    with pytest.raises(TextError, match="puts no persona first"):
        contrast_from_questions(QUESTIONS, personas="emotion/anger")


def test_a_tokenizer_without_offsets(monkeypatch):
    model = tiny("llama")
    monkeypatch.setattr(type(model.tokenizer), "is_fast", False)
    with pytest.raises(ModelError, match="does not tell where its tokens end"):
        TruthfulQA(model, QUESTIONS, block=BLOCK, prompt="paper")


def test_the_primer():
    assert QA_PRIMER.count("Q: ") == QA_PRIMER.count("\nA: ") == 6
    assert PROMPTS["qa_primer"]("Why?") == f"{QA_PRIMER}\n\nQ: Why?\nA:"
