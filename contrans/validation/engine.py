"""Scoring fixed texts under many shifts of one block, computing what lies below the block only once.

A prompt is a prefix that all share and a suffix of its own. The prefix runs once; the state that leaves the
block is kept for every prompt; for each shift only the blocks above run again, in the model's own forward pass,
with the blocks below short-circuited. Results equal full forwards under `Transplant` (tested), and the first
batch of every engine is compared with one: a model that this does not fit is run in full.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any

import torch

from contrans.models import Model
from contrans.states.capturing import check_blocks
from contrans.states.precision import autocast
from contrans.transplants import Transplant
from contrans.validation.prompt_batches import PromptBatch, prompt_batches
from contrans.validation.resuming import (
    cut,
    expanded,
    head_for,
    language_head,
    last_block_for,
    leaving_block,
    new_cache,
    quick_attention,
    short_circuit,
)

log = logging.getLogger(__name__)


class ScoringEngine:
    """Next-token logits of fixed prompts under any shift of one block.

    Attributes:
        model: the model that is scored.
        block: the block whose output is shifted.
        resumes: whether only the blocks above are run for each shift; False if this model must run in full.
    """

    def __init__(
        self,
        model: Model,
        block: int,
        suffixes: Sequence[Sequence[int]],
        *,
        prefix: Sequence[int] = (),
        every_position: bool = False,
        positions: Sequence[Sequence[int]] | None = None,
        precision: str = "float32",
        batch_tokens: int = 4096,
        shifts_at_once: int | None = None,
    ) -> None:
        """Runs the unsteered model once over the prefix and all suffixes, up to the block.

        Args:
            model: the model to score.
            block: the block whose output will be shifted.
            suffixes: token ids of each prompt after the prefix (BOS first if there is no prefix).
            prefix: token ids that all prompts begin with, BOS included.
            every_position: whether logits are wanted after every suffix token, or only after the last one.
            positions: of each suffix the tokens, ascending, after which logits are wanted, in place of the above.
            precision: "float32" or "bfloat16" products.
            batch_tokens: most suffix tokens, padding included, in one batch.
            shifts_at_once: most shifts in one batch; None for one on a CPU and 8 elsewhere.

        Raises:
            TextError: a prompt is empty or longer than the context.
        """
        check_blocks(model, [block])
        self.model, self.block, self.precision = model, block, precision
        self._prefix = torch.tensor([list(prefix)], dtype=torch.long)
        if positions is None:
            positions = [range(len(s)) if every_position else [len(s) - 1] for s in suffixes]
        # on a CPU several at once took a third longer than one by one: its caches hold less of them
        self._at_once = shifts_at_once or (1 if model.device.type == "cpu" else 8)
        self._batch_tokens = batch_tokens
        self._batches = prompt_batches(model, suffixes, positions, prefix_length=len(prefix), batch_tokens=batch_tokens)
        self._prefix_state: torch.Tensor | None = None
        self._prefix_cache: Any = None
        self._tuples = False
        self._head = self._fast_head()
        self.resumes = True
        try:
            self._prepare()
            self.resumes = self._agrees_with_full()
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            # what an unforeseen cache or block answers to being short-circuited; the full pass needs neither
            log.info("%s cannot resume above block %d (%s)", model.name, block, error)
            self.resumes = False
        if not self.resumes:
            log.warning("%s is validated by full forward passes: slower, with the same numbers.", model.name)

    def logits(self, shift: torch.Tensor | None = None) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Logits of every prompt with the block's output shifted at all positions but BOS.

        Args:
            shift: what is added [d], or None for the unsteered model.

        Yields:
            Per batch the prompts' indices, and float32 logits [batch, vocabulary] after the last token; or, with
            `every_position` or `positions`, [tokens, vocabulary] for the wanted tokens of all prompts in turn.
        """
        for _, indices, logits in self.stacked([shift]):
            yield indices, logits.float()

    def stacked(self, shifts: Sequence[torch.Tensor | None]) -> Iterator[tuple[int, list[int], torch.Tensor]]:
        """The same for many shifts, several of which go through the model as one batch where they fit.

        Args:
            shifts: each [d], or None for the unsteered model.

        Yields:
            Per batch and shift the shift's number, the prompts' indices, and logits as `logits` gives them but in the
            number format of the products: `contrans.validation.vocabulary` reads them without a float32 copy. The
            batches of one shift come in the same order for every shift.
        """
        if not self.resumes:
            for number, shift in enumerate(shifts):
                for batch in self._batches:
                    yield number, batch.indices, self._full(batch, shift)
            return
        zero = torch.zeros(self.model.hidden_size)
        every = [zero if shift is None else shift.float().cpu() for shift in shifts]
        at_once = min(self._at_once, max(1, self._batch_tokens // max(1, self._prefix.numel())))
        for first in range(0, len(every), at_once):
            together = torch.stack(every[first : first + at_once])
            upper = self._steered_prefixes(together)
            for batch in self._batches:
                fit = max(1, self._batch_tokens // batch.ids.numel())
                for i in range(0, len(together), fit):
                    some = range(i, min(i + fit, len(together)))
                    logits = self._resumed(batch, together[some.start : some.stop], cut(upper, some))
                    for k, part in zip(some, logits.split(len(logits) // len(some)), strict=True):
                        yield first + k, batch.indices, part

    # -- what lies below the block: once ---------------------------------------------------------------

    def _prepare(self) -> None:
        with self._computing():
            if self._prefix.numel():
                cache = new_cache(self.model)
                ids = self._prefix.to(self.model.device)
                self._prefix_state = self._leaving_block(input_ids=ids, past_key_values=cache)
                self._prefix_cache = cache
            for batch in self._batches:
                cache = expanded(self.model, self._prefix_cache, len(batch.ids))
                batch.state = self._leaving_block(**self._inputs(batch.ids, batch.mask, cache))

    def _leaving_block(self, **inputs: Any) -> torch.Tensor:
        state, self._tuples = leaving_block(self.model, self.block, **inputs)
        return state

    # -- what lies above: for every shift ------------------------------------------------------------

    def _steered_prefixes(self, shifts: torch.Tensor) -> Any:
        """The prefix's cache under each shift: blocks above from its steered states, blocks below as they were."""
        if self._prefix_state is None:
            return None
        cache = new_cache(self.model)
        ids = self._prefix.to(self.model.device).expand(len(shifts), -1)
        state = self._shifted(self._prefix_state, shifts, self._prefix)
        nothing = torch.zeros(ids.shape, dtype=torch.bool)
        with self._computing(), self._above(state), last_block_for(self.model, nothing):
            self.model.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
        below = expanded(self.model, self._prefix_cache, len(shifts))
        cache.layers[: self.block + 1] = below.layers[: self.block + 1]
        return cache

    def _resumed(self, batch: PromptBatch, shifts: torch.Tensor, upper: Any) -> torch.Tensor:
        """Logits of a batch under each shift in turn."""
        assert batch.state is not None
        n = len(shifts)
        state = self._shifted(batch.state, shifts, None if self._prefix.numel() else batch.ids)
        ids, mask, wanted = (t.repeat(n, 1) for t in (batch.ids, batch.mask, batch.wanted))
        inputs = self._inputs(ids, mask, expanded(self.model, upper, len(batch.ids)))
        with (
            self._computing(),
            self._above(state),
            last_block_for(self.model, wanted),
            head_for(self.model, wanted, self._head),
            quick_attention(self.model, self.precision) if self._prefix.numel() else nullcontext(),
        ):
            return self.model.module(**inputs).logits[:, 0]

    def _shifted(self, state: torch.Tensor, shifts: torch.Tensor, starts: torch.Tensor | None) -> torch.Tensor:
        """Each row of `state` under each shift in turn; rows that start with BOS keep their first token as it is."""
        by = shifts.to(state.device)[:, None, None]
        moved = state.float() + by
        bos: Any = self.model.tokenizer.bos_token_id
        if starts is not None and bos is not None:
            is_bos = (starts[:, 0] == bos).to(state.device)
            moved[:, is_bos, 0] = state[is_bos, 0].float()
        return moved.flatten(0, 1).to(state.dtype)

    def _above(self, state: torch.Tensor) -> AbstractContextManager[None]:
        return short_circuit(self.model, self.block, state, tuples=self._tuples)

    def _fast_head(self) -> torch.nn.Parameter | None:
        """The head's weight in bf16, made once: autocast would cast it in every pass, at half the pass's cost."""
        if self.precision == "float32":
            return None
        weight: Any = language_head(self.model).weight
        if weight.is_meta:  # accelerate fetches it for each pass
            return None
        return torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)

    # -- shared ----------------------------------------------------------------------------------------------

    @contextmanager
    def _computing(self) -> Iterator[None]:
        # for one pass only: whoever reads the logits must not find these modes switched on
        with torch.inference_mode(), autocast(self.model.device, self.precision):
            yield

    def _inputs(self, ids: torch.Tensor, mask: torch.Tensor, cache: Any) -> dict[str, Any]:
        device = self.model.device
        mask = torch.cat([torch.ones((len(ids), self._prefix.shape[1]), dtype=torch.long), mask], dim=1)
        inputs: dict[str, Any] = {"input_ids": ids.to(device), "attention_mask": mask.to(device)}
        if cache is not None:
            return {**inputs, "past_key_values": cache, "use_cache": True}
        return {**inputs, **self.model.no_cache}

    def _full(self, batch: PromptBatch, shift: torch.Tensor | None) -> torch.Tensor:
        prefix = self._prefix.expand(len(batch.indices), -1)
        ids = torch.cat([prefix, batch.ids], dim=1).to(self.model.device)
        mask = torch.cat([torch.ones_like(prefix), batch.mask], dim=1).to(self.model.device)
        with ExitStack() as stack:
            stack.enter_context(self._computing())
            if shift is not None:
                stack.enter_context(Transplant(self.model, {self.block: shift}))
            stack.enter_context(head_for(self.model, batch.wanted, self._head, prefix.shape[1]))
            out = self.model.module(input_ids=ids, attention_mask=mask, **self.model.no_cache)
        return out.logits[:, 0]

    def _agrees_with_full(self) -> bool:
        """Whether steered prompts, the longest and the shortest of a batch and two shifts at once, score as in full."""
        probe = min(self._batches, key=lambda b: b.ids.numel())
        small = probe.rows(sorted({0, len(probe.indices) - 1}))
        assert probe.state is not None
        size = 0.05 * float(probe.state.float().norm(dim=-1).median())
        shifts = torch.ones(2, self.model.hidden_size) * size / self.model.hidden_size**0.5
        shifts[1, ::2] *= -1
        resumed = self._resumed(small, shifts, self._steered_prefixes(shifts)).float()
        full = torch.cat([self._full(small, shift) for shift in shifts]).float()
        error = float((resumed - full).abs().max() / full.abs().max().clamp_min(1e-6))
        # bf16 products round differently in batches of other shapes; a wrong cache is off by far more
        return error < (1e-3 if self.precision == "float32" else 0.08)
