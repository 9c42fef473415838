"""The process that writes: one model, unsteered and steered side by side, token by token; it may die and be replaced.

Per new token it makes two passes: the model as it is, over both texts at once, and the steered model over its own.
So both next tokens are known, and for the steered text the distributions p of the model as it is and q of the
steered one, whose KL(p ‖ q) is what the shift costs at that place, as `contrans.validation.fluency` measures it.
"""

import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from inspect import signature
from math import exp
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING, Any

from contrans.errors import ContransError, TextError

if TYPE_CHECKING:
    import torch

    from contrans.models import Model

Event = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """What is to be written: vectors as the files of their wire format, a dose each, the prompt, how many tokens."""

    vectors: Sequence[Mapping[str, bytes]]
    doses: Sequence[float]
    prompt: str
    tokens: int


def main(pipe: Connection, reference: str) -> None:
    """Loads a model and writes for as long as the other end of the pipe is there.

    Args:
        pipe: Jobs come in; events go out, see `stream`, each job's last one being "end" or "error". Anything that comes
            in while a job is under way stops it.
        reference: The model.
    """
    # Where other programs want the cores too, threads that spin while they wait for each other slow it a hundredfold.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the server, which ends this process
    try:
        from contrans.models import load_model

        model = load_model(reference)
    except ContransError as error:
        pipe.send({"kind": "error", "text": str(error), "fatal": True})
        return
    pipe.send({"kind": "ready"})
    while True:
        try:
            job = pipe.recv()
            if isinstance(job, Job):
                _answer(pipe, model, job)
        except (EOFError, BrokenPipeError):
            return


def _answer(pipe: Connection, model: "Model", job: Job) -> None:
    try:
        for event in stream(model, job):
            pipe.send(event)
            if pipe.poll():
                pipe.recv()
                pipe.send({"kind": "end", "stopped": True})
                return
    except ContransError as error:
        pipe.send({"kind": "error", "text": str(error)})
        return
    pipe.send({"kind": "end", "stopped": False})


def stream(model: "Model", job: Job) -> Iterator[Event]:
    """Writes greedily with and without the concepts.

    Args:
        model: The model.
        job: What is to be written.

    Yields:
        Events "token" with `side` ("unsteered" or "steered"), `text` and, for the steered side, `kl` in nats; and after
        each pair "price": the mean `kl` of the steered text, and the `perplexity` that the unsteered model gives to the
        steered text and, as `unsteered_perplexity`, to its own.

    Raises:
        TextError: The prompt has no tokens, or does not fit into the context.
        ContransError: A vector does not belong to the model.
    """
    import torch

    from contrans.concepts import ConceptVector
    from contrans.transplants import transplant

    vectors = [ConceptVector.from_files(dict(files)) for files in job.vectors]
    ids = _prompt_ids(model, job)
    steering = transplant(model, vectors, dose=list(job.doses)) if vectors else nullcontext()
    plain, steered = _Pass(model, torch.tensor([ids, ids])), _Pass(model, torch.tensor([ids]))
    sides = {"unsteered": _Side(model), "steered": _Side(model)}
    ends = _ends(model)
    kl_sum = 0.0
    for _ in range(job.tokens):
        own, beside = plain.step()
        with steering:
            (moved,) = steered.step()
        ids_own, ids_moved = int(own.argmax()), int(moved.argmax())
        if not sides["unsteered"].done:
            yield from sides["unsteered"].add(ids_own, own, ends)
        if not sides["steered"].done:
            kl = float((beside.exp() * (beside - moved)).sum())
            kl_sum += max(kl, 0.0)
            yield from sides["steered"].add(ids_moved, beside, ends, kl=max(kl, 0.0))
        n = max(sides["steered"].n, 1)
        yield {
            "kind": "price",
            "kl": kl_sum / n,
            "perplexity": sides["steered"].perplexity,
            "unsteered_perplexity": sides["unsteered"].perplexity,
        }
        if all(side.done for side in sides.values()):
            return
        plain.feed(torch.tensor([[ids_own], [ids_moved]]))
        steered.feed(torch.tensor([[ids_moved]]))


class _Pass:
    """A model that reads on from where it was, with its KV cache."""

    def __init__(self, model: "Model", ids: "torch.Tensor") -> None:
        self._model, self._next, self._cache = model, ids.to(model.device), None
        # Of a long prompt only the last place is wanted; over a large vocabulary the others cost more than the blocks.
        known = "logits_to_keep" in signature(model.module.forward).parameters
        self._last_only: dict[str, Any] = {"logits_to_keep": 1} if known else {}

    def feed(self, ids: "torch.Tensor") -> None:
        self._next = ids.to(self._model.device)

    def step(self) -> "torch.Tensor":
        """Log-probabilities of the next token, float32 [batch, vocabulary]."""
        import torch

        with torch.inference_mode():
            out = self._model.module(
                input_ids=self._next, past_key_values=self._cache, use_cache=True, **self._last_only
            )
        self._cache = out.past_key_values
        return out.logits[:, -1].float().log_softmax(-1)


class _Side:
    """One of the two texts: what is written, and what the unsteered model thinks of it."""

    def __init__(self, model: "Model") -> None:
        self._tokenizer = model.tokenizer
        self._ids: list[int] = []
        self._shown = ""
        self._nll = 0.0
        self.done = False

    @property
    def n(self) -> int:
        return len(self._ids)

    @property
    def perplexity(self) -> float | None:
        return exp(min(self._nll / self.n, 80.0)) if self.n else None

    def add(self, token: int, unsteered: "torch.Tensor", ends: set[int], **more: float) -> Iterator[Event]:
        self._ids.append(token)
        self._nll -= float(unsteered[token])
        self.done = token in ends
        # The whole is decoded each time: a token may be a part of a sign, and shows with the one that completes it.
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        if text.endswith("\N{REPLACEMENT CHARACTER}") and not self.done:
            text = self._shown
        new, self._shown = text[len(self._shown) :], text
        yield {"kind": "token", "side": "steered" if more else "unsteered", "text": new, **more}


def _prompt_ids(model: "Model", job: Job) -> list[int]:
    ids = list(model.tokenizer(job.prompt)["input_ids"])  # type: ignore[arg-type]  of one text it is a list of ids
    if not ids:
        raise TextError(f"The prompt has no tokens for {model.name}; type at least one word.")
    limit = model.context_length
    if limit is not None and len(ids) + job.tokens > limit:
        raise TextError(
            f"The prompt has {len(ids)} tokens; with {job.tokens} new ones it exceeds the {limit} that {model.name} "
            "can read. Shorten it or ask for fewer."
        )
    return ids


def _ends(model: "Model") -> set[int]:
    settings = getattr(model.module, "generation_config", None)
    found = getattr(settings, "eos_token_id", None)
    known = found if isinstance(found, list) else [found]
    return {i for i in [*known, model.tokenizer.eos_token_id] if isinstance(i, int)}
