"""Perplexity of whole documents against one forward pass per token, and its bad inputs."""

import math

import numpy as np
import pytest
import torch

from contrans.errors import ModelError, SpecError, StateError, TextError
from contrans.models import Model
from contrans.transplants import Transplant
from contrans.validation.perplexity import METRICS, Perplexity, PerplexityProtocol, mean_perplexity, rolling_nll
from contrans.validation.rolling import rolling_windows
from tests.tiny import EOS, tiny, tiny_model

BLOCK = 2
WINDOW = 16
DOCUMENTS = [
    "the cat and the other cat sat there with their mother; she thinks this is the weather. " * 2,
    "one stone alone\n\n on  a mountain",
    "lemons from London",
    "x",
]


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama")


def shift_of(model: Model, size: float = 2.0) -> torch.Tensor:
    return size * torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))


def token_by_token(model: Model, document: str, *, window: int, stride: int) -> list[float]:
    """Nats of each token, every one in a forward pass of its own."""
    prefix = model.tokenizer.bos_token_id or EOS
    ids = model.tokenizer(document)["input_ids"]
    out = []
    for k in range(len(ids)):
        if k < window:
            context = [prefix, *ids[:k]]
        else:
            end = min(window + ((k - window) // stride + 1) * stride, len(ids))
            context = ids[end - window - 1 : k]
        with torch.inference_mode():
            logits = model.module(input_ids=torch.tensor([context])).logits[0, -1].double()
        out.append(float(torch.logsumexp(logits, -1) - logits[ids[k]]))
    return out


@pytest.mark.parametrize("stride", [None, 5])
@pytest.mark.parametrize("bos", [True, False])
@pytest.mark.parametrize("architecture", ["llama", "gemma2", "gpt2"])
def test_equals_a_forward_pass_per_token(architecture, bos, stride):
    model = tiny(architecture, bos=bos)
    got = rolling_nll(model, DOCUMENTS, context=WINDOW, stride=stride, batch_tokens=40)
    for nll, document in zip(got.token_nll, DOCUMENTS, strict=True):
        expected = token_by_token(model, document, window=WINDOW, stride=stride or WINDOW)
        np.testing.assert_allclose(nll, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n", [0, 1, 6, 7, 8, 13, 14, 15, 29])
@pytest.mark.parametrize("stride", [None, 1, 3, 7])
def test_windows_predict_each_token_once_from_those_before(n, stride):
    ids = list(range(100, 100 + n))
    windows = list(rolling_windows(ids, prefix=9, length=7, stride=stride))
    assert [t for _, targets in windows for t in targets] == ids
    before = dict(zip(ids, [9, *ids[:-1]], strict=True)) if ids else {}
    for inputs, targets in windows:
        assert len(targets) <= len(inputs) <= 7
        assert inputs[-len(targets) :] == [before[t] for t in targets]
    assert all(len(inputs) == 7 for inputs, _ in windows[1:])


def test_metrics_by_hand():
    p = Perplexity((np.array([1.0, 2.0]), np.array([4.0])), np.array([2, 3]), np.array([10, 20]))
    assert p.document_nll.tolist() == [3.0, 4.0]
    assert p.word_perplexity == pytest.approx(math.exp(7 / 5))
    assert p.byte_perplexity == pytest.approx(math.exp(7 / 30))
    assert p.bits_per_byte == pytest.approx(7 / 30 / math.log(2))
    with pytest.raises(SpecError, match="is not known; use one of word_perplexity"):
        p.value("perplexity")


def test_words_and_bytes(model):
    p = rolling_nll(model, ["one  two\nthree", "café"])
    assert p.n_words.tolist() == [3, 1]
    assert p.n_bytes.tolist() == [14, 5]


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_cover_and_arms_are_paired(metric):
    rng = np.random.default_rng(0)
    words = rng.integers(20, 200, 60)
    rate = rng.gamma(9.0, 0.4, 60)

    def of(cost: float) -> Perplexity:
        return Perplexity(tuple(np.array([n]) for n in rate * words + cost * words), words, words * 5)

    base, dearer = of(0.0), of(0.1)
    interval = base.interval(metric)
    assert interval.low < interval.value == base.value(metric) < interval.high
    assert interval.n == 60
    ratio = dearer.ratio_to(base, metric)
    assert ratio.value == pytest.approx(dearer.value(metric) / base.value(metric))
    assert ratio.low <= ratio.value <= ratio.high
    if metric == "word_perplexity":
        # the cost is the same in every document: paired, nothing of their spread is left
        assert (ratio.low, ratio.high) == pytest.approx((math.exp(0.1), math.exp(0.1)))
        assert interval.high / interval.low > 1.3


def test_the_mean_over_readings_is_over_metrics_and_paired():
    words = np.array([10, 20, 30])
    a, b, base = (Perplexity(tuple(np.array([n * k]) for n in words), words, words) for k in (1.0, 3.0, 2.0))
    found = mean_perplexity([a, b], base=base)
    assert found.value == pytest.approx((math.e + math.e**3) / 2 / math.e**2)
    # every document costs the same, so that nothing is uncertain
    assert (found.low, found.high) == pytest.approx((found.value, found.value))
    assert mean_perplexity([a, b], "bits_per_byte").value == pytest.approx(2 / math.log(2))
    with pytest.raises(TextError, match="different documents"):
        mean_perplexity([a, Perplexity(a.token_nll, words + 1, words)])


def test_one_document_has_no_interval(model):
    p = rolling_nll(model, DOCUMENTS[:1])
    assert (p.interval().low, p.interval().high) == (-math.inf, math.inf)


def test_only_the_same_documents_compare(model):
    with pytest.raises(TextError, match="different documents"):
        rolling_nll(model, DOCUMENTS[:1]).ratio_to(rolling_nll(model, DOCUMENTS[1:2]))


def test_the_protocol_equals_full_passes_under_a_shift(model):
    protocol = PerplexityProtocol(model, DOCUMENTS, block=BLOCK, concepts=["calm"], context=WINDOW, batch_tokens=40)
    assert protocol._engine.resumes
    assert protocol.n_items == len(DOCUMENTS)
    for shift in (None, shift_of(model)):
        scores = protocol.score(shift)
        full = rolling_nll(model, DOCUMENTS, context=WINDOW, shifts=None if shift is None else {BLOCK: shift})
        for got, expected in zip(scores.token_nll, full.token_nll, strict=True):
            np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
        hits = protocol.hits(scores, "calm")
        values, counts = hits[protocol.effect]
        np.testing.assert_allclose(values, -full.document_nll / full.n_bytes, rtol=1e-3)
        assert counts.all()
        assert set(hits) == {"negative_nll_per_byte", "negative_nll_per_word"}


def test_steered_inside_a_transplant(model):
    shift = shift_of(model)
    plain, steered = (rolling_nll(model, DOCUMENTS, shifts=s) for s in (None, {BLOCK: shift}))
    with Transplant(model, {BLOCK: shift}):
        inside = rolling_nll(model, DOCUMENTS)
    for a, b, c in zip(steered.token_nll, inside.token_nll, plain.token_nll, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6)
        # BOS predicts the first token, and nothing is added to BOS
        assert a[0] == pytest.approx(c[0], rel=1e-6)
        assert not np.allclose(a[1:], c[1:], rtol=1e-3)


def test_several_blocks_at_once(model):
    one, two = shift_of(model), shift_of(model, -1.0)
    with Transplant(model, {1: one}), Transplant(model, {3: two}):
        expected = rolling_nll(model, DOCUMENTS)
    got = rolling_nll(model, DOCUMENTS, shifts={1: one, 3: two})
    np.testing.assert_allclose(got.document_nll, expected.document_nll, rtol=1e-6)


def test_a_written_bos_is_not_doubled(model):
    once, written = rolling_nll(model, ["the cat"]), rolling_nll(model, ["<s>the cat"])
    np.testing.assert_allclose(once.token_nll[0], written.token_nll[0], rtol=1e-5)


def test_bad_documents(model):
    with pytest.raises(TextError, match="no documents"):
        rolling_nll(model, [])
    with pytest.raises(TextError, match="give a list"):
        rolling_nll(model, "the cat")
    with pytest.raises(TextError, match="Document 1 is empty"):
        rolling_nll(model, ["the cat", " \n"])
    with pytest.raises(TextError, match="Document 1 is nan, not a text"):
        rolling_nll(model, ["the cat", float("nan")])  # pyright: ignore[reportArgumentType]
    with pytest.raises(TextError, match="Document 0 is empty"):
        PerplexityProtocol(model, [""], block=BLOCK, concepts=["calm"])


def test_bad_windows(model):
    with pytest.raises(SpecError, match="does not fit tiny-llama-0; give one between 1 and 256"):
        rolling_nll(model, DOCUMENTS, context=257)
    with pytest.raises(SpecError, match="does not fit"):
        rolling_nll(model, DOCUMENTS, context=0)
    with pytest.raises(SpecError, match="between 1 and the window of 8"):
        rolling_nll(model, DOCUMENTS, context=8, stride=9)


def test_scores_that_are_not_finite(model):
    broken = tiny("llama")
    broken.module.get_output_embeddings().weight[7] = math.nan
    with pytest.raises(StateError, match="document 0 scores that are not finite; lower the dose"):
        rolling_nll(broken, DOCUMENTS[:1])
    protocol = PerplexityProtocol(model, DOCUMENTS[:1], block=BLOCK, concepts=["calm"])
    with pytest.raises(StateError, match="not finite"):
        protocol.score(torch.full((model.hidden_size,), math.nan))


def test_models_that_predict_nothing():
    model = tiny("llama", bos=False)
    model.tokenizer.bos_token = model.tokenizer.eos_token = None
    with pytest.raises(ModelError, match="neither BOS nor EOS"):
        rolling_nll(model, DOCUMENTS)
    headless = Model.wrap(tiny_model("llama").model, tiny("llama").tokenizer, reference="headless")
    with pytest.raises(ModelError, match="no language-model head"):
        rolling_nll(headless, DOCUMENTS)


def test_bfloat16_stays_near(model):
    exact, fast = (rolling_nll(model, DOCUMENTS, precision=p) for p in ("float32", "bfloat16"))
    assert fast.word_perplexity == pytest.approx(exact.word_perplexity, rel=0.1)
