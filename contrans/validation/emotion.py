"""The emotion protocol: which of a family's labels does the model name after a scenario?

Labelled scenarios, one a label, stand before the one that is asked about (Dong et al. 2024, §4.2, with correct labels).
On the *negatives* of a concept, scenarios of the other labels, an arm is right if the model names the concept. Any
family of labels will do, and a pair of opposites such as polite and rude (`contrans.validation.items.sides`).

Of two labels a model often gives one to every scenario, the one that it read last, say; then no answer changes until a
shift outweighs that bias, and all do as soon as it has. So a pair's log-probabilities are read from their means over
the items in the unsteered model (batch calibration, Zhou et al. 2023, arXiv 2309.17249, which needs no labels).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from contrans.concepts.contrast import ContrastSet, Example
from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.states.encode import encode
from contrans.validation.engine import ScoringEngine
from contrans.validation.items import few_shot_prefix, ordered
from contrans.validation.labels import label_tokens, told_apart_by_first_token
from contrans.validation.protocol import Hits
from contrans.validation.shares import ACCURACY, SELECTIVITY
from contrans.validation.vocabulary import total_and_best

REQUEST = "For the next scenario, answer {label}.\n\n"
"""What the arm `prompt` says in words."""
EFFECTS = (ACCURACY, SELECTIVITY)
"""Metrics that the protocol can be about."""


@dataclass(frozen=True)
class _Asked:
    """Prompts made ready for scoring.

    Attributes:
        engine: over the rows.
        rows_of: per item the row of each tail of label tokens.
        n_tokens: tokens of all rows and their prefix.
    """

    engine: ScoringEngine
    rows_of: list[dict[tuple[int, ...], int]]
    n_tokens: int


@dataclass(frozen=True)
class Scores:
    """What a model answers to every item under one shift.

    Attributes:
        label_logprob: float64 [items, labels], log-probability of each label as a whole word.
        greedy_label: int64 [items], the label that greedy decoding over the whole vocabulary writes; −1 if none.
        first_logprob: float64 [items, labels], log-probability of each label's first token.
    """

    label_logprob: np.ndarray
    greedy_label: np.ndarray
    first_logprob: np.ndarray

    def logit_hits(self, label: int) -> np.ndarray:
        """Bool [items]: the label is the likeliest of the family's labels."""
        return self.label_logprob.argmax(1) == label

    def probability(self, label: int) -> np.ndarray:
        """Float64 [items]: the label's probability among the family's labels alone."""
        return np.exp(self.label_logprob[:, label] - np.logaddexp.reduce(self.label_logprob, axis=1))

    def token_hits(self, label: int) -> np.ndarray:
        """Bool [items]: greedy decoding writes the label; for a label of one token, it is the likeliest of all."""
        return self.greedy_label == label


class EmotionProtocol:
    """Scenarios of a family, the few-shot prompt before them, and a model that answers under shifts of one block.

    Attributes:
        name: "emotion".
        effect: one of `EFFECTS`.
        graded: "label_probability".
        concepts: the family's concepts.
        labels: the word for each of them.
        items: the scenarios, all labels together.
        truth: int64 [items], index of each scenario's own concept.
        label_bias: float64 [labels], taken from the log-probabilities before labels are compared: for a pair their mean
            over the items in the unsteered model, else 0.
        n_tokens: tokens of all prompts.
    """

    name = "emotion"
    graded = "label_probability"

    def __init__(
        self,
        model: Model,
        family: Sequence[ContrastSet],
        *,
        block: int,
        split: str,
        per_label: int | None = None,
        effect: str = ACCURACY,
        precision: str = "float32",
        batch_tokens: int = 4096,
    ) -> None:
        """Runs the unsteered model once over all prompts, up to the block.

        Args:
            model: the model that answers.
            family: contrast sets that share a template and labels, one per label.
            block: the block whose output will be shifted.
            split: "dev" or "test".
            per_label: most scenarios of each label; all if None.
            effect: the metric that arms are judged and doses chosen by, one of `EFFECTS`.
            precision: "float32" or "bfloat16" products.
            batch_tokens: most tokens in one batch.

        Raises:
            TextError: the sets are no family, a split is empty, or two labels are the same tokens.
            SpecError: an unknown effect.
        """
        if effect not in EFFECTS:
            raise SpecError(f"The emotion protocol has no effect {effect!r}; use one of {', '.join(EFFECTS)}.")
        self.effect = effect
        templates = {c.template for c in family}
        if len(templates) != 1 or len(family) < 2:
            raise TextError(
                "The emotion protocol needs at least two contrast sets with one template; name a whole family."
            )
        self.concepts = [c.concept for c in family]
        self.labels = [c.label for c in family]
        self.items: list[Example] = []
        truth: list[int] = []
        for i, contrast in enumerate(family):
            part = ordered(contrast.split(split).positives)[:per_label]
            self.items += part
            truth += [i] * len(part)
        self.truth = np.array(truth)
        self._model, self._block, self._precision, self._batch_tokens = model, block, precision, batch_tokens
        self._prefix_text = few_shot_prefix(family)
        self._label_ids = label_tokens(model, self._prefix_text + self.items[0].prompt, self.labels)
        self._by_first_token = told_apart_by_first_token(model, self.labels, self._label_ids)
        self._asked = self._prepared("")
        self.n_tokens = self._asked.n_tokens
        self.label_bias = np.zeros(len(self.labels))
        self._unsteered: Scores | None = None
        if len(self.labels) == 2:
            self._unsteered = self.score(None)
            self.label_bias = self._unsteered.label_logprob.mean(0)

    def _prepared(self, request: str) -> "_Asked":
        whole = encode(self._model, [self._prefix_text + request + e.prompt for e in self.items]).ids
        shared = _common_prefix(whole)
        # at least one token must follow the prefix
        shared = min(shared, min(map(len, whole)) - 1)
        rows: list[list[int]] = []
        rows_of = []
        # the last token of a label is never fed: what stands before it predicts it
        tails = sorted({tuple(ids[:k]) for ids in self._label_ids for k in range(len(ids))})
        for suffix in (row[shared:] for row in whole):
            rows_of.append({tail: len(rows) + i for i, tail in enumerate(tails)})
            rows += [[*suffix, *tail] for tail in tails]
        engine = ScoringEngine(
            self._model,
            self._block,
            rows,
            prefix=whole[0][:shared],
            precision=self._precision,
            batch_tokens=self._batch_tokens,
        )
        return _Asked(engine, rows_of, shared + sum(map(len, rows)))

    def score(self, shift: torch.Tensor | None) -> Scores:
        """What the model answers with the block's output shifted by [d], or unsteered."""
        return self.score_many([shift])[0]

    def score_many(self, shifts: Sequence[torch.Tensor | None]) -> list[Scores]:
        """The same under each of many shifts, several of which go through the model at once."""
        if self._unsteered is None or all(s is not None for s in shifts):
            return self._scores(self._asked, shifts)
        steered = [s for s in shifts if s is not None]
        found = iter(self._scores(self._asked, steered) if steered else [])
        return [self._unsteered if s is None else next(found) for s in shifts]

    def prompted(self, concept: str) -> Scores:
        """What the unsteered model answers if it is asked in words, right before the scenario, to name a concept."""
        label = self.labels[self.concepts.index(concept)]
        return self._scores(self._prepared(REQUEST.format(label=label)), [None])[0]

    def _scores(self, asked: "_Asked", shifts: Sequence[torch.Tensor | None]) -> list[Scores]:
        wanted = sorted({t for ids in self._label_ids for t in ids})
        n_rows = sum(map(len, asked.rows_of))
        logprob = np.empty((len(shifts), n_rows, len(wanted)))
        best = np.empty((len(shifts), n_rows), dtype=np.int64)
        for number, indices, logits in asked.engine.stacked(shifts):
            total, likeliest = total_and_best(logits)
            logprob[number, indices] = (logits[:, wanted].float() - total[:, None]).double().cpu().numpy()
            best[number, indices] = likeliest.cpu().numpy()
        column = {t: i for i, t in enumerate(wanted)}
        return [self._of_words(asked, column, *read) for read in zip(logprob, best, strict=True)]

    def _of_words(self, asked: "_Asked", column: dict[int, int], logprob: np.ndarray, best: np.ndarray) -> Scores:
        labels = np.array(
            [[self._word(logprob, column, where, ids) for ids in self._label_ids] for where in asked.rows_of]
        )
        first = np.array([[logprob[where[()], column[ids[0]]] for ids in self._label_ids] for where in asked.rows_of])
        greedy = np.full(len(asked.rows_of), -1)
        for i, where in enumerate(asked.rows_of):
            for j, ids in enumerate(self._label_ids):
                if all(best[where[tuple(ids[:k])]] == t for k, t in enumerate(ids)):
                    greedy[i] = j
        return Scores(labels, greedy, first)

    @staticmethod
    def _word(logprob: np.ndarray, column: dict[int, int], where: dict[tuple[int, ...], int], ids: list[int]) -> float:
        return sum(logprob[where[tuple(ids[:k])], column[t]] for k, t in enumerate(ids))

    @property
    def n_items(self) -> int:
        """Number of scenarios."""
        return len(self.items)

    def hits(self, scores: Scores, concept: str) -> Hits:
        """Whether the model named a concept: on scenarios of the others, and (`…_positives`) on its own.

        `first_token_accuracy`, where a label has several tokens, compares the first of each alone, as the paper did.
        `uncalibrated_accuracy` is the share for a pair of labels without `label_bias`.
        `label_probability` is what the model gives to the concept's label among the family's. It tells two shifts apart
        where no answer has changed yet, or all have, and so serves to choose among them and to rank them.
        `selectivity` is the share of the others' scenarios that get the concept's label, less the mean share of its own
        that each other label gets. A shift that only disturbs the model takes answers from the right labels and gives
        them to all wrong ones alike: that raises the accuracy and leaves this where it is. Of answers that do not
        depend on the concept the mean over concepts is about 0, whatever they are.

        Raises:
            TextError: the concept is none of the family's.
        """
        if concept not in self.concepts:
            raise TextError(f"The concept {concept!r} is none of those scored here: {', '.join(self.concepts)}.")
        label = self.concepts.index(concept)
        negative = self.truth != label
        raw, scores = scores, replace(scores, label_logprob=scores.label_logprob - self.label_bias)
        n_others = len(self.labels) - 1
        logit = scores.logit_hits(label).astype(float)
        found = {
            ACCURACY: (logit, negative),
            "token_accuracy": (scores.token_hits(label).astype(float), negative),
            "logit_accuracy_positives": (logit, ~negative),
            "label_probability": (scores.probability(label), negative),
        }
        found[SELECTIVITY] = (np.where(negative, logit, (logit - 1) / n_others), np.where(negative, 1, 2))
        if self._by_first_token:
            found["first_token_accuracy"] = ((scores.first_logprob.argmax(1) == label).astype(float), negative)
        if n_others == 1:
            found["uncalibrated_accuracy"] = (raw.logit_hits(label).astype(float), negative)
        return {self.effect: found[self.effect], **found}


def _common_prefix(rows: Sequence[Sequence[int]]) -> int:
    def same() -> Iterator[bool]:
        for column in zip(*rows, strict=False):
            yield len(set(column)) == 1

    n = 0
    for equal in same():
        if not equal:
            break
        n += 1
    return n
