"""Where in a block a constant can be added by a bias: found by trying, not by a list of names.

The bias of a linear layer whose output joins the residual stream unchanged (as a rule the last one of the MLP) moves
the block's output by the bias itself, at every position, and nothing else in the block. Whether a layer is such a one
is tried on a copy of the block with the inputs of a short text: a norm after the layer, or an MLP after the attention,
shows at once.
"""

from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from contrans.errors import ModelError
from contrans.models import Model

TRIAL_TEXT = "The cat sat on the mat, and nobody in the house knew why it was there."
_MOST_OFF_USUAL, _MOST_OFF = 1e-4, 1e-2
"""Distance from a pure shift, relative to it: of the median token (rounding is 1e-6), of one with a massive state."""


@dataclass(frozen=True)
class Place:
    """A bias that moves the output of one block.

    Attributes:
        module: path, within the block, of the module whose bias it is.
        scale: the block's output moves by this times the bias (the residual multiplier of Granite; 1 elsewhere).
        switch: setting of the text configuration that gives the model this bias; None if it needs none.
    """

    module: str
    scale: float
    switch: str | None = None


@dataclass(frozen=True)
class Switch:
    """A setting that is off, and the biases that the model's class makes when it is on.

    Attributes:
        name: of the setting in the text configuration, such as "mlp_bias".
        biases: paths of the new parameters within the model, and their shapes.
    """

    name: str
    biases: dict[str, torch.Size]


class Trial:
    """One block with the inputs that it gets from a short text, to try biases on; the model itself is left alone.

    Attributes:
        block: number of the block.
    """

    def __init__(self, model: Model, block: int) -> None:
        self.block = block
        self._args, self._kwargs = _inputs_of(model, block)
        # float32, since in bf16 rounding would hide a norm, and a copy, since biases come and go on it
        self._copy = deepcopy(model.blocks[block]).float()
        self._before = self._run()
        size = float(self._before.norm(dim=-1).median()) / model.hidden_size**0.5
        noise = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(0))
        self._probe = (noise * size).to(self._before.device)

    def existing(self) -> list[str]:
        """Modules that have a bias as wide as the residual stream, the last one first."""
        return [path for path, m in _reversed(self._copy) if _has_bias(m, self._probe.shape)]

    def without(self) -> list[str]:
        """Linear layers into the residual stream that have no bias, the last one first."""
        return [path for path, m in _reversed(self._copy) if _lacks_bias(m, self._probe.shape)]

    def scale_of(self, path: str) -> float | None:
        """By how many times a bias of this module moves the block's output; None if it does anything but move it."""
        module: Any = self._copy.get_submodule(path)
        kept = module.bias
        module.bias = nn.Parameter(self._probe if kept is None else kept + self._probe, requires_grad=False)
        moved = self._run() - self._before
        module.bias = kept
        scale = float((moved @ self._probe / self._probe.square().sum()).median())
        if abs(scale) < _MOST_OFF:
            return None
        off = (moved - scale * self._probe).norm(dim=-1) / (abs(scale) * self._probe.norm())
        if float(off.median()) > _MOST_OFF_USUAL or float(off.max()) > _MOST_OFF:
            return None
        # where nothing multiplies, rounding should not either
        return 1.0 if abs(scale - 1) < 1e-5 else scale

    def _run(self) -> torch.Tensor:
        with torch.no_grad():
            out = self._copy(*self._args, **self._kwargs)
        return (out if isinstance(out, torch.Tensor) else out[0]).float().flatten(0, -2)


def find_place(
    trial: Trial, prefix: str = "", switches: Sequence[Switch] = (), *, anywhere: bool = False
) -> Place | None:
    """The bias of a block that moves its output: one that it has, else one that it can be given.

    Args:
        trial: the block to try.
        prefix: path of the block within the model, by which the switches name their biases.
        switches: settings that give biases, as `switches_of` finds them.
        anywhere: whether a linear layer may also be given one that the model's class does not know.
    """
    offered: list[tuple[str, str | None]] = [(path, None) for path in trial.existing()]
    lacking = trial.without()
    for switch in switches:
        offered += [(path, switch.name) for path in lacking if f"{prefix}.{path}.bias" in switch.biases]
    offered += [(path, None) for path in lacking if anywhere]
    for path, name in offered:
        scale = trial.scale_of(path)
        if scale is not None:
            return Place(path, scale, name)
    return None


def switches_of(module: nn.Module) -> Iterator[Switch]:
    """Settings about biases that are off and, when on, give the model further biases and change nothing else.

    Args:
        module: a model of transformers.
    """
    config: Any = module.config
    text = config.get_text_config(decoder=True)
    names = [name for name, value in text.to_dict().items() if "bias" in name and value is False]
    have = {name: tensor.shape for name, tensor in module.state_dict().items()}
    for name in names:
        other = deepcopy(config)
        setattr(other.get_text_config(decoder=True), name, True)
        with torch.device("meta"):
            built: Any = type(module)(other)
        would = {key: tensor.shape for key, tensor in built.state_dict().items()}
        added = {key: shape for key, shape in would.items() if key not in have}
        same = all(would.get(key) == shape for key, shape in have.items())
        if added and same and all(key.endswith(".bias") for key in added):
            yield Switch(name, added)


def _inputs_of(model: Model, block: int) -> tuple[tuple, dict[str, Any]]:
    """Arguments of the block in a pass over a short text, in float32."""
    kept: list[tuple[tuple, dict[str, Any]]] = []

    def keep(_module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        kept.append((_float32(args), _float32(kwargs)))

    ids = torch.tensor([model.tokenizer(TRIAL_TEXT)["input_ids"]], device=model.device)
    handle = model.blocks[block].register_forward_pre_hook(keep, with_kwargs=True)
    try:
        with torch.no_grad():
            model.module(input_ids=ids, attention_mask=torch.ones_like(ids), **model.no_cache)
    finally:
        handle.remove()
    if len(kept) != 1:
        raise ModelError(
            f"Block {block} of {model.name} ran {len(kept)} times in one pass, so a bias there would not act once; use "
            f"`transplant` instead."
        )
    return kept[0]


def _float32(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.float() if value.is_floating_point() else value
    if isinstance(value, dict):
        return {key: _float32(inner) for key, inner in value.items()}
    if type(value) in (tuple, list):
        return type(value)(_float32(inner) for inner in value)
    return value


def _reversed(block: nn.Module) -> list[tuple[str, nn.Module]]:
    return list(block.named_modules())[:0:-1]


def _has_bias(module: nn.Module, width: torch.Size) -> bool:
    bias = module._parameters.get("bias")
    return bias is not None and bias.shape == width and bias.is_floating_point()


def _lacks_bias(module: nn.Module, width: torch.Size) -> bool:
    if not isinstance(module, nn.Linear | Conv1D) or module._parameters.get("bias") is not None:
        return False
    out = module.out_features if isinstance(module, nn.Linear) else module.nf
    return (out,) == tuple(width)
