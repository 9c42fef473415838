"""Scoring fixed texts under many shifts of one block, computing what lies below the block only once.

A prompt is a prefix that all share and a suffix of its own. The prefix runs once; the state that leaves the
block is kept for every prompt; for each shift only the blocks above run again, in the model's own forward pass,
with the blocks below short-circuited. Results equal full forwards under `Transplant` (tested), and the first
batch of every engine is compared with one: a model that this does not fit is run in full.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from copy import copy
from typing import Any

import torch
from transformers import DynamicCache

from contrans.errors import ModelError, TextError
from contrans.models import Model
from contrans.states.capturing import check_blocks
from contrans.states.encode import batches, pad_right
from contrans.states.precision import autocast
from contrans.transplants import Transplant

log = logging.getLogger(__name__)


class _Stop(Exception):
    """Ends a forward pass once the transplanted block has run."""


class _Batch:
    """One padded batch of suffixes and the state of each token as it leaves the block."""

    def __init__(self, indices: list[int], ids: torch.Tensor, mask: torch.Tensor, wanted: torch.Tensor) -> None:
        self.indices, self.ids, self.mask, self.wanted = indices, ids, mask, wanted
        self.state: torch.Tensor | None = None


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

        Raises:
            TextError: a prompt is empty or longer than the context.
        """
        check_blocks(model, [block])
        longest = max((len(s) for s in suffixes), default=0) + len(prefix)
        if not suffixes or min(map(len, suffixes)) == 0:
            raise TextError("There is nothing to score: every prompt needs at least one token after the prefix.")
        if model.context_length is not None and longest > model.context_length:
            raise TextError(
                f"A prompt has {longest:,} tokens, but {model.name} reads at most {model.context_length:,}."
            )
        self.model, self.block, self.precision = model, block, precision
        self._prefix = torch.tensor([list(prefix)], dtype=torch.long)
        if positions is None:
            positions = [range(len(s)) if every_position else [len(s) - 1] for s in suffixes]
        self._batches = []
        for group in batches([len(s) for s in suffixes], batch_tokens=batch_tokens):
            ids, mask = pad_right([suffixes[i] for i in group], model.pad_token_id)
            wanted = torch.zeros_like(mask, dtype=torch.bool)
            for row, i in enumerate(group):
                wanted[row, list(positions[i])] = True
            self._batches.append(_Batch(group, ids, mask, wanted))
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
            log.warning(
                "%s is validated by full forward passes, which is slower; the numbers are the same.",
                model.name,
            )

    def logits(self, shift: torch.Tensor | None = None) -> Iterator[tuple[list[int], torch.Tensor]]:
        """Logits of every prompt with the block's output shifted at all positions but BOS.

        Args:
            shift: what is added [d], or None for the unsteered model.

        Yields:
            Per batch the prompts' indices, and float32 logits [batch, vocabulary] after the last token; or, with
            `every_position` or `positions`, [tokens, vocabulary] for the wanted tokens of all prompts in turn.
        """
        with torch.inference_mode(), autocast(self.model.device, self.precision):
            if not self.resumes:
                for batch in self._batches:
                    yield batch.indices, self._full(batch, shift)
                return
            upper = self._steered_prefix(shift)
            for batch in self._batches:
                yield batch.indices, self._resumed(batch, shift, upper)

    # -- what lies below the block: once ---------------------------------------------------------------

    def _prepare(self) -> None:
        device = self.model.device
        with torch.inference_mode(), autocast(device, self.precision):
            if self._prefix.numel():
                cache = self._new_cache()
                self._prefix_state = self._leaving_block(input_ids=self._prefix.to(device), past_key_values=cache)
                self._prefix_cache = cache
            for batch in self._batches:
                batch.state = self._leaving_block(**self._inputs(batch, self._expanded(self._prefix_cache, batch)))

    def _leaving_block(self, **inputs: Any) -> torch.Tensor:
        kept: list[torch.Tensor] = []

        def hook(_module, _args, output):
            self._tuples = not isinstance(output, torch.Tensor)
            kept.append(output[0] if self._tuples else output)
            raise _Stop

        handle = self.model.blocks[self.block].register_forward_hook(hook)
        try:
            with suppress(_Stop):
                self.model.module(**inputs)
        finally:
            handle.remove()
        return kept[0]

    # -- what lies above: for every shift ------------------------------------------------------------

    def _steered_prefix(self, shift: torch.Tensor | None) -> Any:
        """The cache of the prefix: blocks above from its steered states, blocks below as they were."""
        if self._prefix_state is None:
            return None
        cache = self._new_cache()
        ids = self._prefix.to(self.model.device)
        with self._short_circuit(self._shifted(self._prefix_state, shift, ids)):
            self.model.decoder(input_ids=ids, past_key_values=cache, use_cache=True)
        cache.layers[: self.block + 1] = self._prefix_cache.layers[: self.block + 1]
        return cache

    def _resumed(self, batch: _Batch, shift: torch.Tensor | None, upper: Any) -> torch.Tensor:
        assert batch.state is not None
        ids = batch.ids.to(self.model.device)
        state = self._shifted(batch.state, shift, None if self._prefix.numel() else ids)
        with self._short_circuit(state), self._gathering(batch):
            out = self.model.module(**self._inputs(batch, self._expanded(upper, batch)))
        return out.logits[:, 0].float()

    def _shifted(self, state: torch.Tensor, shift: torch.Tensor | None, starts: torch.Tensor | None) -> torch.Tensor:
        if shift is None:
            return state
        moved = state.float() + shift.to(state.device, torch.float32)
        bos = self.model.tokenizer.bos_token_id
        if starts is not None and bos is not None:
            is_bos = starts[:, 0] == bos
            moved[is_bos, 0] = state[is_bos, 0].float()
        return moved.to(state.dtype)

    @contextmanager
    def _short_circuit(self, state: torch.Tensor) -> Iterator[None]:
        """Blocks up to the transplanted one pass their input on; that one gives `state`."""
        wrap: Callable[[torch.Tensor], Any] = (lambda h: (h,)) if self._tuples else (lambda h: h)

        def passing(hidden_states: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            return wrap(hidden_states)

        def giving(*args: Any, **kwargs: Any) -> Any:
            return wrap(state)

        blocks = list(self.model.blocks[: self.block + 1])
        head = self._lm_head()
        weight: Any = head.weight
        # accelerate, too, keeps its wrapper in the instance: put back what was there
        before = [vars(b).get("forward") for b in blocks]
        try:
            for b in blocks[:-1]:
                b.forward = passing
            blocks[-1].forward = giving
            head.weight = self._head if self._head is not None else weight
            yield
        finally:
            head.weight = weight
            for b, old in zip(blocks, before, strict=True):
                if old is None:
                    vars(b).pop("forward", None)
                else:
                    b.forward = old

    def _fast_head(self) -> torch.nn.Parameter | None:
        """The head's weight in bf16, made once: autocast would cast it in every pass, at half the pass's cost."""
        if self.precision == "float32":
            return None
        weight: Any = self._lm_head().weight
        return torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)

    def _lm_head(self) -> Any:
        head = self.model.module.get_output_embeddings()
        if head is None:
            raise ModelError(
                f"{self.model.name} has no language-model head, so it cannot be scored; use a decoder model."
            )
        return head

    # -- shared ----------------------------------------------------------------------------------------------

    def _new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.module.config)

    def _expanded(self, cache: Any, batch: _Batch) -> Any:
        """A cache for the batch whose tensors are views of the prefix's; a block that runs replaces its own."""
        if cache is None:
            return None
        new = self._new_cache()
        rows = len(batch.indices)
        for i, layer in enumerate(cache.layers):
            view: Any = copy(layer)
            if view.is_initialized:
                view.keys = view.keys.expand(rows, -1, -1, -1)
                view.values = view.values.expand(rows, -1, -1, -1)
            new.layers[i] = view
        return new

    def _inputs(self, batch: _Batch, cache: Any) -> dict[str, Any]:
        device = self.model.device
        mask = torch.cat([torch.ones((len(batch.ids), self._prefix.shape[1]), dtype=torch.long), batch.mask], dim=1)
        inputs: dict[str, Any] = {"input_ids": batch.ids.to(device), "attention_mask": mask.to(device)}
        if cache is not None:
            return {**inputs, "past_key_values": cache, "use_cache": True}
        return {**inputs, **self.model.no_cache}

    @contextmanager
    def _gathering(self, batch: _Batch, start: int = 0) -> Iterator[None]:
        """Lets the head see only the tokens whose logits are wanted: the rest of its work would be thrown away."""
        head = self._lm_head()

        def gather(_module, args):
            return (args[0][:, start:][batch.wanted][:, None],)

        handle = head.register_forward_pre_hook(gather)
        try:
            yield
        finally:
            handle.remove()

    def _full(self, batch: _Batch, shift: torch.Tensor | None) -> torch.Tensor:
        prefix = self._prefix.expand(len(batch.indices), -1)
        ids = torch.cat([prefix, batch.ids], dim=1).to(self.model.device)
        mask = torch.cat([torch.ones_like(prefix), batch.mask], dim=1).to(self.model.device)
        with ExitStack() as stack:
            if shift is not None:
                stack.enter_context(Transplant(self.model, {self.block: shift}))
            stack.enter_context(self._gathering(batch, prefix.shape[1]))
            out = self.model.module(input_ids=ids, attention_mask=mask, **self.model.no_cache)
        return out.logits[:, 0].float()

    def _agrees_with_full(self) -> bool:
        """Whether a steered batch scores as in a full forward pass."""
        probe = min(self._batches, key=lambda b: b.ids.numel())
        small = _Batch(probe.indices[:2], probe.ids[:2], probe.mask[:2], probe.wanted[:2])
        assert probe.state is not None
        small.state = probe.state[:2]
        shift = 0.05 * probe.state.float().norm(dim=-1).median() * torch.ones(self.model.hidden_size)
        shift = shift.cpu() / self.model.hidden_size**0.5
        with torch.inference_mode(), autocast(self.model.device, self.precision):
            resumed = self._resumed(small, shift, self._steered_prefix(shift))
            full = self._full(small, shift)
        error = float((resumed - full).abs().max() / full.abs().max().clamp_min(1e-6))
        # bf16 products round differently in batches of other shapes; a wrong cache is off by far more
        return error < (1e-3 if self.precision == "float32" else 0.08)
