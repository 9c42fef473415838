"""The transplant itself: a context manager that changes the output of blocks of a running model."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from types import TracebackType
from typing import Any

import torch
from torch import nn

from contrans.errors import BlockError, SpecError, StateError
from contrans.models import Model
from contrans.states.capturing import check_blocks
from contrans.transplants.eager import uncompiled
from contrans.transplants.generating import watching
from contrans.transplants.operations import OPERATIONS, SETS_PROJECTION
from contrans.transplants.passes import Pass, leading, named, read_pass
from contrans.transplants.scope import SCOPES, WITHOUT_PROMPT, Generation, position_mask, spans_pass


class Transplant(AbstractContextManager["Transplant"]):
    """Changes block outputs of a model while it is entered; nestable, and gone after an exception too.

    Made by `transplant`; take this class where the shifts are known.

    Attributes:
        model: the model.
        shifts: per block the operation's shift, float32 [d]; or several [k, d], which act one after the other.
        positions: one of `contrans.transplants.SCOPES`.
        operation: one of `contrans.transplants.OPERATIONS`.
    """

    def __init__(
        self,
        model: Model,
        shifts: Mapping[int, torch.Tensor],
        *,
        positions: str = "all",
        operation: str = "add",
    ) -> None:
        if positions not in SCOPES:
            raise SpecError(f"Positions {positions!r} are not known; use one of {', '.join(SCOPES)}.")
        check_operation(operation)
        check_blocks(model, list(shifts))
        for block, shift in shifts.items():
            _check_shift(model, block, shift, operation)
        self.model = model
        self.shifts = {b: s.detach().float() for b, s in shifts.items()}
        self.positions, self.operation = positions, operation
        self._entered = ExitStack()
        self._is_in = False
        self._begin()

    def __enter__(self) -> "Transplant":
        if self._is_in:
            raise SpecError("This transplant is already in; make a second one to nest it.")
        top, decoder = self.model.module, self.model.decoder
        with ExitStack() as stack:
            stack.enter_context(uncompiled(top, self.model.name))
            stack.enter_context(watching(top, self.model.name, self.positions, self._begin))
            handles = []
            if decoder is not top:
                handles.append(top.register_forward_pre_hook(self._note_outer, with_kwargs=True))
                handles.append(top.register_forward_hook(self._forget_outer, always_call=True))
            handles.append(decoder.register_forward_pre_hook(self._note_pass, with_kwargs=True))
            handles.append(decoder.register_forward_hook(self._check_all_ran))
            handles += [module.register_forward_hook(self._changing(runs_as)) for module, runs_as in self._modules()]
            for handle in handles:
                stack.callback(handle.remove)
            self._entered = stack.pop_all()
        self._is_in = True
        self._begin()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_in = False
        self._entered.close()
        self._begin()

    def _begin(self) -> None:
        self._generation = Generation()
        self._outer: dict[str, Any] = {}
        self._shape = torch.Size()
        self._where: torch.Tensor | bool | None = None
        self._ran: list[int] = []

    def _modules(self) -> list[tuple[nn.Module, list[int]]]:
        # where blocks share weights, one module runs as several blocks, one after the other
        runs_as: dict[nn.Module, list[int]] = {}
        for number, module in enumerate(self.model.blocks):
            runs_as.setdefault(module, []).append(number)
        return [(m, numbers) for m, numbers in runs_as.items() if not self.shifts.keys().isdisjoint(numbers)]

    def _note_outer(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # a head model turns ids into embeddings and masks into its own form before the decoder sees them
        self._outer = named(args, kwargs)

    def _forget_outer(self, module: nn.Module, args: Any, output: Any) -> None:
        self._outer = {}

    def _note_pass(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        given = {**named(args, kwargs), **{k: v for k, v in self._outer.items() if v is not None}}
        new = read_pass(self.model.name, given)
        if self.positions not in WITHOUT_PROMPT and self._generation.is_cut(new.past, new.cache):
            raise SpecError(
                f"Generated tokens were cut from the KV cache of {self.model.name}, so where its prompt ends is not "
                f'known, which positions="{self.positions}" needs; use positions="all", or decode without going back.'
            )
        start = self._generation.advance(past=new.past, width=new.shape[1], ids=new.ids, cache=new.cache)
        self._shape, self._where = new.shape, self._positions_of(new, start)
        self._ran = []

    def _positions_of(self, new: Pass, start: int) -> torch.Tensor | bool:
        """Where a pass is edited: everywhere, nowhere, or by a mask, bool [batch, width]."""
        prompt_length = self._generation.prompt_length
        spanned = spans_pass(self.positions, start=start, prompt_length=prompt_length)
        if spanned is not None:
            return new.real if spanned and new.mask is not None else spanned
        is_bos = self._leading_bos(new) if start == 0 else None
        return position_mask(self.positions, new.real, start=start, prompt_length=prompt_length, is_bos=is_bos)

    def _leading_bos(self, new: Pass) -> torch.Tensor | None:
        bos = self.model.tokenizer.bos_token_id
        if not isinstance(bos, int):
            return None
        if new.ids is not None:
            return leading(torch.eq(new.ids, bos), new.real)
        assert new.embeds is not None
        embedding: Any = self.model.module.get_input_embeddings()
        row = embedding(torch.tensor([bos], device=new.embeds.device))
        return leading(torch.eq(new.embeds, row).all(-1), new.real)

    def _check_all_ran(self, module: nn.Module, args: Any, output: Any) -> None:
        missing = sorted(self.shifts.keys() - set(self._ran))
        if missing:
            raise StateError(
                f"Block {missing[0]} of {self.model.name} did not run as a module in a forward pass, so nothing was "
                f"changed there; load the model anew, without layer skipping, tracing or compilation."
            )

    def _changing(self, runs_as: Sequence[int]):
        placed: dict[tuple[int, torch.device], Sequence[torch.Tensor]] = {}
        edit = OPERATIONS[self.operation]

        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            where = self._where
            if where is None:
                raise StateError(
                    f"A block of {self.model.name} ran outside the model's own forward pass; call the model, not "
                    f"its blocks."
                )
            turn = sum(number in self._ran for number in runs_as)
            block = runs_as[min(turn, len(runs_as) - 1)]
            self._ran.append(block)
            if block not in self.shifts or where is False:
                return None
            if hidden.shape[:-1] != self._shape:
                raise StateError(
                    f"A block of {self.model.name} gives a tensor of shape {tuple(hidden.shape)} for "
                    f"{tuple(self._shape)} tokens; its residual stream cannot be changed."
                )
            key = block, hidden.device
            if key not in placed:
                shift = self.shifts[block].to(hidden.device)
                placed[key] = shift.reshape(-1, self.model.hidden_size).unbind()
            # float32 inside: beside Gemma's residual norms of 10⁴ a small shift is lost in bf16
            edited = before = hidden.float()
            for shift in placed[key]:
                edited = edit(edited, shift)
            if isinstance(where, torch.Tensor):
                edited = torch.where(where.to(hidden.device)[..., None], edited, before)
            new = edited.to(hidden.dtype)
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        return hook


def check_operation(operation: str) -> None:
    """Refuses an operation that does not exist.

    Raises:
        SpecError: the operation is not one of `OPERATIONS`.
    """
    if operation not in OPERATIONS:
        raise SpecError(f"Operation {operation!r} is not known; use one of {', '.join(OPERATIONS)}.")


def _check_shift(model: Model, block: int, shift: torch.Tensor, operation: str) -> None:
    if shift.ndim not in (1, 2) or shift.shape[-1] != model.hidden_size or len(shift) == 0:
        raise BlockError(
            f"A shift for {model.name} must have {model.hidden_size} values, not shape {tuple(shift.shape)}; "
            f"map the vector into this model first."
        )
    if not bool(torch.isfinite(shift).all()):
        raise StateError(f"The shift for block {block} is not finite; refine or map the vector again.")
    if operation in SETS_PROJECTION and bool((shift.norm(dim=-1) == 0).any()):
        raise SpecError(
            f'A shift of length zero has no direction for "{operation}" to act along; give a dose, or use "ablate" to '
            f"set a projection to zero."
        )
