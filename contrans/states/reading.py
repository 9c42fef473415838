"""One forward pass that hands over the outputs of blocks, and ends after the deepest one asked for."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from functools import cached_property

import torch
from torch import nn

from contrans.errors import StateError
from contrans.models import Model
from contrans.states.compiling import CompiledBlocks
from contrans.states.encode import pad_right
from contrans.states.precision import autocast
from contrans.states.products import Products

Keep = Callable[[int, torch.Tensor], None]
"""Given a block and its output [batch, width, d] while the forward pass runs, on the block's device."""


CPU_TOKENS = 512
"""Tokens of a batch on a CPU: tensors of larger ones leave the caches, and come from the system page by page."""


class _DeepestBlockDone(Exception):
    """Ends a forward pass once the deepest wanted block has run."""


class Reader:
    """Reads blocks of a model, batch by batch.

    Models that `accelerate` spread over devices, or offloaded, take their ids on the device of their embedding.
    Compiled models run as they are written: a compiled forward pass was traced without our hooks. Blocks whose own
    `forward` is compiled stay compiled, because hooks run around it.

    Args:
        model: the model to read.
        blocks: numbers of the blocks, at least one.
        precision: "float32" or "bfloat16" products.
        compile: whether blocks are compiled while they are read, see `CompiledBlocks`.

    Raises:
        SpecError: the model cannot multiply in that precision, or not in compiled blocks.
    """

    def __init__(self, model: Model, blocks: Sequence[int], precision: str, *, compile: bool = False) -> None:
        self.model, self.blocks, self.precision = model, sorted(set(blocks)), precision
        self.device = model.device
        # the compiler chooses products itself, and does not know oneDNN's
        self.products = Products(model, range(0 if compile else self.blocks[-1] + 1), precision)
        self.compiled = CompiledBlocks(model, self.blocks[-1], precision) if compile else None

    def read(self, rows: Sequence[Sequence[int]], keep: Keep) -> None:
        """Runs one batch and gives each block's output to `keep`.

        Args:
            rows: token ids of each text.
            keep: called from within the forward pass, in the order in which the blocks run.

        Raises:
            StateError: a block gives no tensor [batch, width, d], or does not run.
        """
        if self.compiled is None:
            self._read(rows, keep)
        else:
            self.compiled.run(lambda: self._read(rows, keep))

    def _read(self, rows: Sequence[Sequence[int]], keep: Keep) -> None:
        ids, mask = pad_right(rows, self.model.pad_token_id)
        seen: set[int] = set()
        with (
            torch.inference_mode(),
            autocast(self.device, self.precision),
            self.products.active(),
            self._as_written(),
            self._hooks(keep, seen),
            suppress(_DeepestBlockDone),
        ):
            self.model.module(**self.inputs(ids, mask))
        missing = [b for b in self.blocks if b not in seen]
        if missing:
            raise StateError(
                f"Block {missing[0]} of {self.model.name} did not run in a forward pass; the model skips blocks "
                f"and cannot be read."
            )

    def most_tokens(self, asked: int) -> int:
        """Most tokens of a batch: those asked for, or on a CPU fewer."""
        return min(asked, CPU_TOKENS) if self.device.type == "cpu" else asked

    def inputs(self, ids: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor | bool]:
        """Arguments of a forward pass, on its device.

        A decoder needs no mask for padding on the right, which no real token looks at; without one, attention skips
        the upper triangle, and no value of the mask has to be brought back from a GPU.

        Args:
            ids: int64 [batch, width], padded on the right.
            mask: int64 [batch, width].
        """
        inputs: dict[str, torch.Tensor | bool] = {"input_ids": to_device(ids, self.device)}
        if not self._is_causal:
            inputs["attention_mask"] = to_device(mask, self.device)
        return {**inputs, **self.model.no_cache}

    @cached_property
    def _is_causal(self) -> bool:
        # attention modules of transformers say so of themselves; where none does (ALiBi models) the mask is passed
        attention = [m.is_causal for b in self.model.blocks for m in b.modules() if hasattr(m, "is_causal")]
        encodes = getattr(self.model.module.config, "is_encoder_decoder", False)
        return bool(attention) and all(flag is True for flag in attention) and not encodes

    def _as_written(self) -> AbstractContextManager:
        return torch.compiler.set_stance("force_eager") if self._is_compiled else nullcontext()

    @cached_property
    def _is_compiled(self) -> bool:
        # a wrapper of torch.compile keeps the module that it wraps under this name
        return any("_orig_mod" in m._modules or m._compiled_call_impl is not None for m in self.model.module.modules())

    @contextmanager
    def _hooks(self, keep: Keep, seen: set[int]) -> Iterator[None]:
        wanted = set(self.blocks)
        # most models have a module for each block; ALBERT runs one module as many blocks, one after the other
        runs_as: dict[nn.Module, list[int]] = {}
        for number, module in enumerate(self.model.blocks):
            runs_as.setdefault(module, []).append(number)

        def hook_of(numbers: list[int]):
            turns = iter(numbers)

            def hook(_module, _args, output):
                block = next(turns, None)
                if block not in wanted:
                    return
                hidden = output if isinstance(output, torch.Tensor) else output[0]
                if hidden.ndim != 3 or hidden.shape[-1] != self.model.hidden_size:
                    raise StateError(
                        f"Block {block} of {self.model.name} gives a tensor of shape {tuple(hidden.shape)}, not "
                        f"[batch, tokens, {self.model.hidden_size}]; its residual stream cannot be read."
                    )
                keep(block, hidden)
                seen.add(block)
                if block == self.blocks[-1]:
                    raise _DeepestBlockDone

            return hook

        handles = [m.register_forward_hook(hook_of(ns)) for m, ns in runs_as.items() if not wanted.isdisjoint(ns)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def to_device(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A tensor of the CPU on a device; to a GPU from pinned memory, so that the host does not wait."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)
