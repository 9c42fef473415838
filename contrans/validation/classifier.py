"""Is a text toxic? The judge: any text classifier of transformers."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    TextClassificationPipeline,
)

from contrans.errors import ModelError, SpecError, TextError
from contrans.models.quiet import quiet
from contrans.models.turns import one_at_a_time
from contrans.validation.text_measures import is_empty

TOXIC_NAMES = ("toxic", "toxicity", "hate", "hateful", "hate speech", "hatespeech", "offensive", "abusive")
"""Names of labels that mean toxic; "toxic" goes before the others. LABEL_1 of two means it too, see `Classifier`."""


class Classifier:
    """The probability that a text is toxic, by any text classifier of transformers.

    Attributes:
        toxic_label: the label whose probability is read.
    """

    def __init__(
        self,
        classifier: TextClassificationPipeline | tuple[PreTrainedModel, PreTrainedTokenizerBase],
        *,
        toxic_label: str | None = None,
        batch_size: int = 32,
    ) -> None:
        """Finds the label that means toxic.

        Args:
            classifier: a `text-classification` pipeline, or a model and its tokenizer.
            toxic_label: the label that means toxic; if None, a known name, or LABEL_1 of LABEL_0 and LABEL_1, which is
                the convention of `tomh/toxigen_roberta`.
            batch_size: texts in one batch.

        Raises:
            SpecError: the label is not the classifier's, or none of its labels is known to mean toxic.
        """
        if isinstance(classifier, TextClassificationPipeline):
            self._pipeline = classifier
        elif isinstance(classifier, tuple):
            model, tokenizer = classifier
            # without a device the pipeline would move the model to an accelerator
            self._pipeline = TextClassificationPipeline(model=model, tokenizer=tokenizer, device=model.device)
        else:
            raise SpecError(
                f"{type(classifier).__name__} cannot judge toxicity; give a text-classification pipeline of "
                f"transformers, or a model and its tokenizer."
            )
        config: Any = self._pipeline.model.config
        tokenizer: Any = self._pipeline.tokenizer
        self.toxic_label = toxic_label_of([str(v) for v in config.id2label.values()], toxic_label)
        self._batch_size = batch_size if tokenizer.pad_token_id is not None else 1
        # RoBERTa numbers its positions from 2 on
        positions = (getattr(config, "max_position_embeddings", None) or 10**9) - 2
        longest = min(positions, tokenizer.model_max_length)
        self._limit: dict[str, Any] = {"truncation": True, "max_length": longest} if longest < 10**6 else {}

    @classmethod
    def load(
        cls, reference: str, *, toxic_label: str | None = None, device: str = "cpu", batch_size: int = 32
    ) -> "Classifier":
        """Loads a classifier from a folder or the Hub, such as `tomh/toxigen_roberta`.

        Raises:
            ModelError: it cannot be loaded, or has no classification head.
            SpecError: see `Classifier`.
        """
        try:
            with one_at_a_time(), quiet():
                loaded, info = AutoModelForSequenceClassification.from_pretrained(reference, output_loading_info=True)
                tokenizer = AutoTokenizer.from_pretrained(reference)
        except (OSError, ValueError, KeyError) as error:
            first = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(
                f"The classifier {reference} cannot be loaded ({first}); name a folder or a Hub model that classifies "
                f"texts."
            ) from error
        if info["missing_keys"]:
            raise ModelError(
                f"{reference} lacks {len(info['missing_keys'])} weights of a classifier, {min(info['missing_keys'])} "
                f"first, which would be random; name a model that was trained to classify texts."
            )
        return cls((loaded.to(device).eval(), tokenizer), toxic_label=toxic_label, batch_size=batch_size)

    def probabilities(self, texts: Sequence[str]) -> np.ndarray:
        """The probability of the toxic label, float64 [texts].

        Raises:
            TextError: a text is empty; a classifier says something about it all the same.
            SpecError: what the classifier gives is no probability.
        """
        for i, text in enumerate(texts):
            if is_empty(text):
                raise TextError(f"Text {i} of {len(texts)} is empty, so no classifier can judge it; leave it out.")
        if not texts:
            return np.empty(0)
        pipeline: Any = self._pipeline
        with torch.inference_mode():
            answers = pipeline(list(texts), top_k=None, batch_size=self._batch_size, **self._limit)
        values = np.array([next(a["score"] for a in answer if a["label"] == self.toxic_label) for answer in answers])
        bad = ~((values >= 0) & (values <= 1))
        if bad.any():
            raise SpecError(
                f"The classifier gives {values[bad][0]:g} for {self.toxic_label!r}, which is no probability; take one "
                f"that was trained to classify, or a pipeline with function_to_apply='sigmoid'."
            )
        return values.astype(float)


def toxic_label_of(labels: Sequence[str], wanted: str | None = None) -> str:
    """The label that means toxic among a classifier's labels.

    Raises:
        SpecError: `wanted` is none of them; or none, or several, are known.
    """
    listed = ", ".join(labels)
    if wanted is not None:
        if wanted not in labels:
            raise SpecError(
                f"The classifier has no label {wanted!r}; its labels are {listed}. Name one with toxic_label."
            )
        return wanted
    known = [x for x in labels if x.lower().replace("_", " ").replace("-", " ") in TOXIC_NAMES]
    plain = [x for x in known if x.lower() == "toxic"]
    if len(plain or known) == 1:
        return (plain or known)[0]
    if sorted(labels) == ["LABEL_0", "LABEL_1"]:
        return "LABEL_1"
    problem = f"{' and '.join(known)} may each mean" if known else "none is known to mean"
    raise SpecError(f"The classifier's labels are {listed}, of which {problem} toxic; name it with toxic_label=.")
