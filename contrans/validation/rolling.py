"""Documents of any length as windows that a model reads, so that every token is predicted once."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from contrans.errors import ModelError, SpecError, StateError, TextError
from contrans.models import Model
from contrans.validation.vocabulary import total

LONGEST = 2048
"""Window of a model that reads more: over Gemma's vocabulary the logits of 2,048 tokens take 2 GB."""


def rolling_windows(
    ids: Sequence[int], *, prefix: int, length: int, stride: int | None = None
) -> Iterator[tuple[list[int], list[int]]]:
    """Cuts a document into what a model reads and what it must predict, each token once.

    Args:
        ids: the document's tokens.
        prefix: token before the first one.
        length: most tokens that are read at once.
        stride: tokens that each window after the first predicts; None for `length`.

    Yields:
        Token ids that are read, and those that follow each of the last of them; the lists may differ in length.
    """
    end = min(length, len(ids))
    if end:
        yield [prefix, *ids[: end - 1]], list(ids[:end])
    while end < len(ids):
        start, end = end, min(end + (stride or length), len(ids))
        yield list(ids[end - length - 1 : end - 1]), list(ids[start:end])


class RollingWindows:
    """Documents as windows, and windows put together to documents again.

    Attributes:
        inputs: per window the token ids that are read.
        n_documents: documents.
    """

    def __init__(
        self, model: Model, documents: Sequence[str], *, context: int | None = None, stride: int | None = None
    ) -> None:
        """Tokenises documents as the harness does, BOS included if the tokenizer adds one, and cuts them.

        Args:
            model: who will read them.
            documents: the texts.
            context: most tokens in one window; None for the model's own context, at most `LONGEST`.
            stride: tokens that each window after the first predicts; None for all of the window's.

        Raises:
            TextError: there are no documents, or one is empty or no text.
            SpecError: a window or stride does not fit the model.
            ModelError: the model has no language-model head, or its tokenizer neither BOS nor EOS.
        """
        if isinstance(documents, str) or not documents:
            raise TextError("There are no documents to read; give a list with at least one text.")
        if model.module.get_output_embeddings() is None:
            raise ModelError(f"{model.name} has no language-model head, so it predicts nothing; use a decoder model.")
        length = _window(model, context)
        if stride is not None and not 1 <= stride <= length:
            raise SpecError(f"A stride must lie between 1 and the window of {length} tokens, not be {stride}.")
        prefix = _prefix(model)
        self._name, self.n_documents = model.name, len(documents)
        self.inputs: list[list[int]] = []
        self._targets: list[list[int]] = []
        self._owner: list[int] = []
        for i, document in enumerate(documents):
            for inputs, targets in rolling_windows(
                _tokens(model, prefix, document, i), prefix=prefix, length=length, stride=stride
            ):
                self.inputs.append(inputs)
                self._targets.append(targets)
                self._owner.append(i)

    def score(self, window: int, logits: torch.Tensor) -> np.ndarray:
        """Nats of each token that a window predicts, float64 [targets].

        Args:
            window: which.
            logits: after every token that was read [inputs, vocabulary].

        Raises:
            StateError: a score is not finite.
        """
        targets = torch.tensor(self._targets[window], device=logits.device)
        read = logits[-len(targets) :]
        nll = total(read) - read.gather(1, targets[:, None])[:, 0].float()
        if not bool(torch.isfinite(nll).all()):
            raise StateError(
                f"{self._name} gives document {self._owner[window]} scores that are not finite; lower the dose, or "
                f"load the model in float32."
            )
        return nll.double().cpu().numpy()

    def by_document(self, nll: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Nats of each token per document [tokens], from those of every window."""
        parts: list[list[np.ndarray]] = [[] for _ in range(self.n_documents)]
        for i, values in zip(self._owner, nll, strict=True):
            parts[i].append(values)
        return [np.concatenate(p) for p in parts]


def _window(model: Model, context: int | None) -> int:
    limit = model.context_length
    if context is None:
        return min(limit or LONGEST, LONGEST)
    if context < 1 or (limit is not None and context > limit):
        reach = "1 or more" if limit is None else f"between 1 and {limit:,}"
        raise SpecError(f"A window of {context:,} tokens does not fit {model.name}; give one {reach}.")
    return context


def _prefix(model: Model) -> int:
    for token in (model.tokenizer.bos_token_id, model.tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    raise ModelError(
        f"The tokenizer of {model.name} has neither BOS nor EOS, so nothing precedes a first token; set its bos_token."
    )


def _tokens(model: Model, prefix: int, document: object, i: int) -> list[int]:
    if not isinstance(document, str):
        raise TextError(f"Document {i} is {document!r}, not a text; remove it.")
    if not document.strip():
        raise TextError(f"Document {i} is empty; remove it or give it words.")
    # a text that begins with its BOS in writing has it already
    has_prefix = document.startswith(str(model.tokenizer.decode([prefix])))
    ids = model.tokenizer(document, add_special_tokens=not has_prefix, verbose=False)["input_ids"]
    if not ids:
        raise TextError(f"Document {i} ({document[:40]!r}) has no tokens in {model.name}; remove it.")
    return list(ids)
