"""The transplant itself: a context manager that shifts the output of blocks of a running model."""

import logging
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any

import torch
from torch import nn

from contrans.concepts.vector import ConceptVector
from contrans.errors import ArtifactError, BlockError, SpecError, StateError
from contrans.models import Model
from contrans.states.capturing import check_blocks
from contrans.transplants.operations import OPERATIONS
from contrans.transplants.scope import SCOPES, Generation, position_mask

log = logging.getLogger(__name__)


class Transplant(AbstractContextManager["Transplant"]):
    """Shifts block outputs of a model while it is entered; nestable, and gone after an exception too.

    Made by `transplant`; take this class where the shifts [d] are known.

    Attributes:
        model: the model.
        shifts: per block what is added, float32 [d].
        positions: one of `contrans.transplants.SCOPES`.
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
        if operation not in OPERATIONS:
            raise SpecError(f"Operation {operation!r} is not known; use one of {', '.join(OPERATIONS)}.")
        check_blocks(model, list(shifts))
        for block, shift in shifts.items():
            if shift.shape != (model.hidden_size,):
                raise BlockError(
                    f"A shift for {model.name} must have {model.hidden_size} values, not shape {tuple(shift.shape)}; "
                    f"map "
                    f"the vector into this model first."
                )
            if not bool(torch.isfinite(shift).all()):
                raise StateError(f"The shift for block {block} is not finite; refine or map the vector again.")
        self.model = model
        self.shifts = {b: s.detach().float() for b, s in shifts.items()}
        self.positions = positions
        self._edit = OPERATIONS[operation]
        self._handles: list[Any] = []
        self._generation = Generation()
        self._outer: dict[str, Any] = {}
        self._mask: torch.Tensor | None = None

    def __enter__(self) -> "Transplant":
        if self._handles:
            raise SpecError("This transplant is already in; make a second one to nest it.")
        if isinstance(self.model.module, torch._dynamo.eval_frame.OptimizedModule):
            log.warning("%s is compiled: hooks added after its first call do nothing there.", self.model.name)
        self._generation = Generation()
        top, decoder = self.model.module, self.model.decoder
        if decoder is not top:
            self._handles.append(top.register_forward_pre_hook(self._note_outer, with_kwargs=True))
            self._handles.append(top.register_forward_hook(self._forget_outer, always_call=True))
        self._handles.append(decoder.register_forward_pre_hook(self._note_pass, with_kwargs=True))
        for block, shift in self.shifts.items():
            self._handles.append(self.model.blocks[block].register_forward_hook(self._shifting(shift)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        self._outer, self._mask = {}, None

    def _note_outer(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        # a head model turns ids into embeddings and masks into its own form before the decoder sees them
        self._outer = _named(args, kwargs)

    def _forget_outer(self, module: nn.Module, args: Any, output: Any) -> None:
        self._outer = {}

    def _note_pass(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        seen = {**_named(args, kwargs), **{k: v for k, v in self._outer.items() if v is not None}}
        ids, embeds = seen.get("input_ids"), seen.get("inputs_embeds")
        tokens = ids if ids is not None else embeds
        if tokens is None:
            raise StateError(
                f"{self.model.name} was called with neither input_ids nor inputs_embeds; pass one of them."
            )
        rows, width = tokens.shape[:2]
        past = _cached(seen.get("past_key_values"))
        start = self._generation.advance(past=past, width=width, ids=ids)
        real = _real_tokens(seen.get("attention_mask"), rows, width, tokens.device)
        bos = self.model.tokenizer.bos_token_id
        is_bos = None if ids is None or bos is None else _leading(ids == bos, real) if start == 0 else None
        self._mask = position_mask(
            self.positions, real, start=start, prompt_length=self._generation.prompt_length, is_bos=is_bos
        )

    def _shifting(self, shift: torch.Tensor):
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            hidden = output if isinstance(output, torch.Tensor) else output[0]
            if self._mask is None:
                raise StateError(
                    f"A block of {self.model.name} ran outside the model's own forward pass; call the model, not "
                    f"its blocks."
                )
            mask = self._mask.to(hidden.device)
            if mask.shape != hidden.shape[:-1]:
                raise StateError(
                    f"A block of {self.model.name} gives a tensor of shape {tuple(hidden.shape)} for "
                    f"{tuple(mask.shape)} "
                    f"tokens; its residual stream cannot be changed."
                )
            # float32 inside: beside Gemma's residual norms of 10⁴ a small shift is lost in bf16
            edited = self._edit(hidden.float(), shift.to(hidden.device))
            new = torch.where(mask[..., None], edited, hidden.float()).to(hidden.dtype)
            return new if isinstance(output, torch.Tensor) else (new, *output[1:])

        return hook


def transplant(
    model: Model,
    vector: ConceptVector,
    *,
    dose: float = 0.2,
    block: int | None = None,
    positions: str = "all",
    operation: str = "add",
) -> Transplant:
    """Adds a concept to a model's residual stream inside a `with`.

    h ← h + dose · r · v/‖v‖ at the block, where r is the median norm of the residual stream there, so that a
    dose means the same on models whose residual streams differ a thousandfold. Right with KV cache, left and right
    padding, batches and beam search. Source: Dong et al. 2024 (arXiv 2405.13578), equation 4.

    Args:
        model: the model to change while the context is open.
        vector: a concept vector in this model's hidden space, refined there or mapped into it.
        dose: size of the shift in residual norms; negative for the opposite.
        block: which of the vector's blocks; needed if there are several.
        positions: "all", "prompt", "generated", or "last" (the prompt's last token and all that follow).
        operation: "add".

    Raises:
        ArtifactError: the vector belongs to another model.
        BlockError: no such block, or several and none named.
        SpecError: unknown positions or operation.
    """
    if vector.model.fingerprint != model.fingerprint:
        raise ArtifactError(
            f"The vector {vector.concept!r} belongs to {vector.model.name}, not to {model.name}; map it with a map "
            f"between the two first."
        )
    at = vector.only_block() if block is None else block
    return Transplant(model, {at: shift_of(vector, dose, at)}, positions=positions, operation=operation)


def shift_of(vector: ConceptVector, dose: float, block: int) -> torch.Tensor:
    """Dose · r · v/‖v‖ [d], float32, with r the vector's residual norm at the block."""
    direction = vector.direction(block).double()
    return (direction * (dose * vector.residual_norm[block] / float(direction.norm()))).float()


def _named(args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
    # every decoder and head of transformers takes input_ids first and a mask by name
    return {**({"input_ids": args[0]} if args else {}), **kwargs}


def _cached(cache: Any) -> int:
    if cache is None:
        return 0
    return int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else int(cache[0][0].shape[-2])


def _real_tokens(mask: Any, rows: int, width: int, device: torch.device) -> torch.Tensor:
    if isinstance(mask, dict):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if mask is None:
        return torch.ones((rows, width), dtype=torch.bool, device=device)
    if mask.ndim == 4:
        # the last query may look at every real key that is not beyond it
        keys = mask[:, 0, -1]
        mask = keys if keys.dtype == torch.bool else keys == 0
    return mask[:, -width:].bool().to(device)


def _leading(is_bos: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    """Of the tokens that are BOS, the one that begins the row after its padding."""
    first = real & (real.cumsum(1) == 1)
    return is_bos & first
