"""How well does a model predict whole documents? Perplexity per word and byte by rolling log-likelihood.

The numbers are those of lm-evaluation-harness (`output_type: loglikelihood_rolling`; Gao et al. 2024,
doi:10.5281/zenodo.12608602), so they may stand beside published ones: every document alone, cut into windows that
each predict the tokens after the last one, and one prefix token (BOS, else EOS) before the first. Where the tokenizer
adds a BOS itself, that BOS is predicted too, as it is there: 18 nats a document for Gemma, so that short documents look
worse than they are. No shift acts on that prediction, so differences between arms are free of it.
"""

import math
import re
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch

from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.states.encode import batches, pad_right
from contrans.states.precision import autocast, resolve_precision
from contrans.transplants import Transplant
from contrans.validation.engine import ScoringEngine
from contrans.validation.protocol import Hits
from contrans.validation.resampling import cluster_bootstrap
from contrans.validation.rolling import RollingWindows
from contrans.validation.statistics import Estimate

METRICS = ("word_perplexity", "byte_perplexity", "bits_per_byte")


@dataclass(frozen=True, eq=False)
class Perplexity:
    """How surprised a model is by each document.

    Attributes:
        token_nll: per document, float64 [tokens]: negative log-likelihood of each token in nats.
        n_words: int64 [documents], pieces between white space.
        n_bytes: int64 [documents], bytes in UTF-8.
    """

    token_nll: tuple[np.ndarray, ...]
    n_words: np.ndarray
    n_bytes: np.ndarray

    @property
    def document_nll(self) -> np.ndarray:
        """Negative log-likelihood of each document in nats, float64 [documents]."""
        return np.array([nll.sum() for nll in self.token_nll])

    @property
    def word_perplexity(self) -> float:
        """exp(Σ nats / Σ words)."""
        return self.value("word_perplexity")

    @property
    def byte_perplexity(self) -> float:
        """exp(Σ nats / Σ bytes)."""
        return self.value("byte_perplexity")

    @property
    def bits_per_byte(self) -> float:
        """Σ nats / (Σ bytes · ln 2)."""
        return self.value("bits_per_byte")

    def value(self, metric: str) -> float:
        """One of `METRICS` over all documents."""
        return float(self._of(metric, np.ones((1, len(self.token_nll))))[0])

    def interval(self, metric: str = "word_perplexity", *, seed: int = 0) -> Estimate:
        """A metric with its 95 % interval by bootstrap over documents; −∞ to ∞ if there is only one."""
        return mean_perplexity([self], metric, seed=seed)

    def ratio_to(self, base: "Perplexity", metric: str = "word_perplexity", *, seed: int = 0) -> Estimate:
        """This metric over the base's, with a paired bootstrap interval: 1 is no cost.

        Args:
            base: the same documents under another arm, or by another model.
            metric: one of `METRICS`.
            seed: of the bootstrap.

        Raises:
            TextError: the documents are not the same.
        """
        return mean_perplexity([self], metric, base=base, seed=seed)

    def _of(self, metric: str, weights: np.ndarray) -> np.ndarray:
        """The metric for weights of documents [draws, documents]."""
        if metric not in METRICS:
            raise SpecError(f"Metric {metric!r} is not known; use one of {', '.join(METRICS)}.")
        units = self.n_words if metric == "word_perplexity" else self.n_bytes
        rate = (weights @ self.document_nll) / (weights @ units.astype(float))
        return rate / math.log(2) if metric == "bits_per_byte" else np.exp(rate)


def mean_perplexity(
    arms: Sequence[Perplexity], metric: str = "word_perplexity", *, base: Perplexity | None = None, seed: int = 0
) -> Estimate:
    """The mean of a metric over several readings of the same documents, such as one for each concept put in.

    Args:
        arms: the readings.
        metric: one of `METRICS`.
        base: if given, each metric is divided by that of this reading, so that 1 is no cost.
        seed: of the bootstrap.

    Returns:
        The mean with its 95 % interval by bootstrap over documents, the same ones drawn in all readings, so that
        ratios are paired; −∞ to ∞ if there is only one.

    Raises:
        TextError: the documents are not the same.
        SpecError: the metric is not known.
    """
    n = len(arms[0].token_nll)
    for other in (*arms, *([] if base is None else [base])):
        if not (np.array_equal(arms[0].n_bytes, other.n_bytes) and np.array_equal(arms[0].n_words, other.n_words)):
            raise TextError("The two perplexities are of different documents; score the same ones under both arms.")

    def statistic(weights: np.ndarray) -> np.ndarray:
        mean = np.mean([arm._of(metric, weights) for arm in arms], axis=0)
        return mean if base is None else mean / base._of(metric, weights)

    low, high = cluster_bootstrap(statistic, n, seed=seed) if n > 1 else (-math.inf, math.inf)
    return Estimate(float(statistic(np.ones((1, n)))[0]), low, high, n)


def rolling_nll(
    model: Model,
    documents: Sequence[str],
    *,
    shifts: Mapping[int, torch.Tensor] | None = None,
    context: int | None = None,
    stride: int | None = None,
    precision: str = "float32",
    batch_tokens: int = 1024,
) -> Perplexity:
    """Perplexity of whole documents, however long, by rolling log-likelihood.

    Called inside a `with contrans.transplant(...)` it is that of the steered model.

    Args:
        model: the model that reads.
        documents: the texts.
        shifts: per block what is added to its output [d], at all positions but BOS; None for the model as it is.
        context: most tokens in one window; None for the model's own context, at most 2,048. The harness takes the
            model's whole context unless it is given `max_length`.
        stride: tokens that each window after the first predicts; None for all of the window's, as in the harness,
            so that windows do not overlap but for the last one, which is filled up from before.
        precision: "float32", "bfloat16" or "auto" products.
        batch_tokens: most tokens, padding included, in one batch; a longer window is a batch of its own. Logits
            take 4 bytes · tokens · vocabulary.

    Raises:
        TextError: there are no documents, or one is empty or no text.
        SpecError: a window or stride does not fit the model.
        ModelError: the model has no language-model head, or its tokenizer neither BOS nor EOS.
        StateError: scores are not finite.
    """
    rolling = RollingWindows(model, documents, context=context, stride=stride)
    precision = resolve_precision(precision, model.device)
    nll: list[np.ndarray] = [np.empty(0)] * len(rolling.inputs)
    steering = Transplant(model, shifts) if shifts else nullcontext()
    with torch.inference_mode(), autocast(model.device, precision), steering:
        for group in batches([len(w) for w in rolling.inputs], batch_tokens=batch_tokens):
            ids, mask = pad_right([rolling.inputs[i] for i in group], model.pad_token_id)
            out = model.module(input_ids=ids.to(model.device), attention_mask=mask.to(model.device), **model.no_cache)
            for i, logits in zip(group, out.logits, strict=True):
                nll[i] = rolling.score(i, logits[: len(rolling.inputs[i])])
    return _perplexity(documents, rolling.by_document(nll))


class PerplexityProtocol:
    """Perplexity as a protocol: documents that a model reads under shifts of one block.

    Attributes:
        name: "perplexity".
        effect: "negative_nll_per_byte": minus nats per byte of each document, so that more is more fluent.
        concepts: concepts whose shifts are judged; what a shift costs does not depend on its concept.
        documents: the texts.
        n_tokens: tokens of one scoring.
    """

    name = "perplexity"
    effect = "negative_nll_per_byte"

    def __init__(
        self,
        model: Model,
        documents: Sequence[str],
        *,
        block: int,
        concepts: Sequence[str],
        context: int | None = None,
        stride: int | None = None,
        precision: str = "float32",
        batch_tokens: int = 1024,
    ) -> None:
        """Runs the unsteered model once over all documents, up to the block.

        Args:
            model: the model that reads.
            documents: the texts.
            block: the block whose output will be shifted.
            concepts: concepts whose shifts will be judged.
            context: as for `rolling_nll`.
            stride: as for `rolling_nll`.
            precision: "float32", "bfloat16" or "auto" products.
            batch_tokens: as for `rolling_nll`.

        Raises:
            TextError, SpecError, ModelError: as for `rolling_nll`.
        """
        self.concepts = list(concepts)
        self._rolling = RollingWindows(model, documents, context=context, stride=stride)
        self.documents = list(documents)
        self.n_tokens = sum(map(len, self._rolling.inputs))
        self._engine = ScoringEngine(
            model,
            block,
            self._rolling.inputs,
            every_position=True,
            precision=resolve_precision(precision, model.device),
            batch_tokens=batch_tokens,
        )

    @property
    def n_items(self) -> int:
        """Number of documents."""
        return len(self.documents)

    def score(self, shift: torch.Tensor | None) -> Perplexity:
        """The documents' perplexity with the block's output shifted by [d], or unsteered.

        Raises:
            StateError: scores are not finite.
        """
        return self.score_many([shift])[0]

    def score_many(self, shifts: Sequence[torch.Tensor | None]) -> list[Perplexity]:
        """The same under each of many shifts, several of which go through the model at once.

        Raises:
            StateError: scores are not finite.
        """
        rolling = self._rolling
        nll = [[np.empty(0)] * len(rolling.inputs) for _ in shifts]
        for number, indices, logits in self._engine.stacked(shifts):
            rows = logits.split([len(rolling.inputs[i]) for i in indices])
            for i, row in zip(indices, rows, strict=True):
                nll[number][i] = rolling.score(i, row)
        return [_perplexity(self.documents, rolling.by_document(n)) for n in nll]

    def hits(self, scores: Perplexity, concept: str) -> Hits:
        """Minus nats per byte and per word of each document; the same for every concept."""
        nll, every = scores.document_nll, np.ones(self.n_items, dtype=bool)
        return {
            "negative_nll_per_byte": (-nll / scores.n_bytes, every),
            "negative_nll_per_word": (-nll / scores.n_words, every),
        }


def _perplexity(documents: Sequence[str], token_nll: Sequence[np.ndarray]) -> Perplexity:
    # words and bytes as the harness counts them
    n_words = np.array([len(re.split(r"\s+", d)) for d in documents])
    return Perplexity(tuple(token_nll), n_words, np.array([len(d.encode("utf-8")) for d in documents]))
