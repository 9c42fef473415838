"""What does a model write under a shift?

Where tokens are sampled, each prompt has a random stream of its own, so that the arms of a validation write from the
same draws whatever the batches are.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import (
    LogitsProcessor,
    LogitsProcessorList,
    StoppingCriteria,
    StoppingCriteriaList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from contrans.errors import ModelError, SpecError, TextError
from contrans.models import Model
from contrans.states.encode import encode
from contrans.transplants import Transplant

Shifts = Mapping[int, torch.Tensor]
"""Per block what is added to its output [d]."""
Stop = Callable[[Sequence[int]], bool]
"""Whether a text is complete, told by the ids of its new tokens so far."""
Progress = Callable[[int], None]
"""Called after every batch with the number of prompts that it held."""


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How tokens are drawn; where a protocol takes None instead, decoding is greedy.

    Attributes:
        temperature: above 0; below 1 sharpens.
        top_p: the likeliest tokens that hold this share of the probability are kept (Holtzman et al. 2020).
        top_k: tokens kept; 0 for all.
    """

    temperature: float = 0.8
    top_p: float = 0.95
    top_k: int = 0

    def __post_init__(self) -> None:
        if not (self.temperature > 0 and 0 < self.top_p <= 1 and self.top_k >= 0):
            raise SpecError(f"{self} is not possible; give temperature > 0, 0 < top_p ≤ 1 and top_k ≥ 0.")

    def warpers(self) -> LogitsProcessorList:
        """The settings as transformers' own changes of logits."""
        warpers = LogitsProcessorList([TemperatureLogitsWarper(float(self.temperature))])
        if self.top_k:
            warpers.append(TopKLogitsWarper(self.top_k))
        if self.top_p < 1:
            warpers.append(TopPLogitsWarper(self.top_p))
        return warpers


@dataclass(frozen=True)
class Continuation:
    """What a model wrote after a prompt.

    Attributes:
        prompt: the prompt.
        prompt_ids: its token ids, special ones included.
        text: the new text, without special tokens.
        ids: the new token ids, up to and without the end of sequence.
        ended: whether the model (or the stop rule) ended the text before the limit of new tokens.
    """

    prompt: str
    prompt_ids: list[int] = field(repr=False)
    text: str
    ids: list[int] = field(repr=False)
    ended: bool


SAMPLING = Sampling()
"""Usual settings for text that should read like text."""


class _PairedSampling(LogitsProcessor):
    """Adds Gumbel noise of each row's own stream: the argmax is then a draw from the softmax (Gumbel 1954)."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int]) -> None:
        self._warpers = sampling.warpers()
        self._streams = [torch.Generator().manual_seed(s) for s in seeds]

    def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
        warped: torch.Tensor = self._warpers(input_ids, scores)
        noise = torch.stack([torch.empty(scores.shape[-1]).exponential_(generator=g) for g in self._streams])
        return warped - noise.clamp_min(1e-30).log().to(scores.device)


class _StopRule(StoppingCriteria):
    def __init__(self, stop: Stop, width: int) -> None:
        self._stop, self._width = stop, width

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        # transformers remembers which rows are done
        return torch.tensor([self._stop(row) for row in input_ids[:, self._width :].tolist()], device=input_ids.device)


def continue_prompts(
    model: Model,
    prompts: Sequence[str],
    *,
    shift: Shifts | None = None,
    positions: str = "all",
    max_new_tokens: int = 40,
    min_new_tokens: int = 0,
    batch_size: int = 16,
    seed: int = 0,
    sampling: Sampling | None = None,
    stop: Stop | None = None,
    special_tokens: bool = True,
    progress: Progress | None = None,
) -> list[Continuation]:
    """Continues prompts in left-padded batches of about equal length, under a shift of some blocks.

    Args:
        model: the model that writes.
        prompts: what it continues.
        shift: per block what is added to its output [d]; None for the unsteered model.
        positions: where it is added, one of `contrans.transplants.SCOPES`.
        max_new_tokens: most tokens of a continuation.
        min_new_tokens: the end of sequence is held back until there are so many.
        batch_size: prompts in one batch.
        seed: of sampling; prompt i draws from stream i of this seed, in every arm.
        sampling: how tokens are drawn; None for greedy decoding.
        stop: ends a text early; asked after every token.
        special_tokens: whether the tokenizer puts its BOS before; False for a chat template's text.
        progress: called after every batch.

    Returns:
        One continuation per prompt, in the order of the prompts.

    Raises:
        TextError: a prompt is empty, or prompt and continuation do not fit into the context.
        SpecError: a setting is not possible.
        ModelError: the model cannot generate.
    """
    if max_new_tokens < 1 or batch_size < 1 or not 0 <= min_new_tokens <= max_new_tokens:
        raise SpecError(
            f"max_new_tokens={max_new_tokens}, min_new_tokens={min_new_tokens} and batch_size={batch_size} cannot be; "
            f"give at least one token and one prompt a batch, and no higher minimum than maximum."
        )
    if not model.module.can_generate():
        raise ModelError(f"{model.name} is an encoder and cannot generate; use a decoder model as the target.")
    ids = encode(model, prompts, special_tokens=special_tokens).ids
    limit = model.context_length
    for i, row in enumerate(ids):
        if limit is not None and len(row) + max_new_tokens > limit:
            raise TextError(
                f"Prompt {i} ({prompts[i][:40]!r}…) has {len(row):,} tokens; with {max_new_tokens:,} new ones it "
                f"exceeds the {limit:,} that {model.name} can read. Shorten it or lower max_new_tokens."
            )
    ends = _end_ids(model)
    pad = model.pad_token_id
    # the noise of each row's stream makes the argmax a draw; stored sampling settings have no effect here
    settings: dict[str, Any] = {"do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    settings |= {"max_new_tokens": max_new_tokens, "pad_token_id": pad}
    if min_new_tokens:
        settings["min_new_tokens"] = min_new_tokens
    out: dict[int, Continuation] = {}
    # longest first, so that memory peaks at the start
    order = sorted(range(len(ids)), key=lambda i: (-len(ids[i]), i))
    for start in range(0, len(order), batch_size):
        group = order[start : start + batch_size]
        rows = [ids[i] for i in group]
        width = len(rows[0])
        batch = torch.tensor([[pad] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        if sampling is not None:
            streams = _PairedSampling(sampling, [seed * 1_000_003 + i for i in group])
            settings["logits_processor"] = LogitsProcessorList([streams])
        if stop is not None:
            settings["stopping_criteria"] = StoppingCriteriaList([_StopRule(stop, width)])
        # a fresh context per batch: whether a pass continues a generation is told by what went before
        with nullcontext() if shift is None else Transplant(model, shift, positions=positions):
            written = model.generate(input_ids=batch.to(model.device), attention_mask=mask.to(model.device), **settings)
        for i, row in zip(group, written[:, width:].tolist(), strict=True):
            new, ended = _cut(row, ends, stop)
            text = str(model.tokenizer.decode(new, skip_special_tokens=True))
            out[i] = Continuation(prompts[i], ids[i], text, new, ended)
        if progress is not None:
            progress(len(group))
    return [out[i] for i in range(len(ids))]


def _end_ids(model: Model) -> set[int]:
    config: Any = model.module.generation_config
    stored = config.eos_token_id if config is not None else None
    ends = stored if isinstance(stored, list) else [stored]
    return {e for e in [*ends, model.tokenizer.eos_token_id] if isinstance(e, int)}


def _cut(row: list[int], ends: set[int], stop: Stop | None) -> tuple[list[int], bool]:
    """The tokens of a row that the model meant: what follows its end is padding."""
    for k, token in enumerate(row):
        if token in ends:
            return row[:k], True
        if stop is not None and stop(row[: k + 1]):
            return row[: k + 1], True
    return row, False
