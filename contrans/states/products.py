"""How linear layers multiply while states are read: the fastest way that leaves the states as they are."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from contrans.errors import SpecError
from contrans.models import Model
from contrans.states.precision import onednn_is_faster, onednn_linear


class Products:
    """The linear layers of a model's blocks, and how they are to multiply.

    In bf16 they get weights in bf16, made once: autocast would cast each weight anew in every batch. In float32 on a
    CPU whose BLAS is slow they multiply by oneDNN. Layers of any other kind (quantised, offloaded to CPU or disk,
    compiled, experts of one tensor) are left alone.

    Args:
        model: whose layers.
        blocks: the blocks that run.
        precision: "float32" or "bfloat16".

    Raises:
        SpecError: bf16 products are asked for around weights that torch quantised.
    """

    def __init__(self, model: Model, blocks: Sequence[int], precision: str) -> None:
        modules = {m for i in blocks if "forward" not in vars(model.blocks[i]) for m in model.blocks[i].modules()}
        quantised = any(type(m).__module__.startswith("torch.ao.nn.quantized") for m in modules)
        if quantised and precision != "float32":
            raise SpecError(
                f"{model.name} is quantised by torch, whose kernels take float32 only; use precision float32."
            )
        self._weights: list[tuple[nn.Module, dict[str, nn.Parameter]]] = []
        self._layers: list[nn.Linear] = []
        if precision == "bfloat16":
            self._weights = [
                (m, {k: nn.Parameter(p.bfloat16(), requires_grad=False) for k, p in m.named_parameters(recurse=False)})
                for m in modules
                if type(m) in (nn.Linear, Conv1D) and _is_plain(m)
            ]
        elif onednn_is_faster():
            self._layers = [m for m in modules if type(m) is nn.Linear and _is_plain(m) and _is_on_cpu(m)]

    @contextmanager
    def active(self) -> Iterator[None]:
        """The layers multiply so within; what they were is put back."""
        before = [dict(module._parameters) for module, _ in self._weights]
        try:
            for module, weights in self._weights:
                module._parameters.update(weights)
            for layer in self._layers:
                vars(layer)["forward"] = _by_onednn(layer)
            yield
        finally:
            for (module, _), weights in zip(self._weights, before, strict=True):
                module._parameters.update(weights)
            for layer in self._layers:
                vars(layer).pop("forward", None)


def _by_onednn(layer: nn.Linear):
    def forward(x: torch.Tensor) -> torch.Tensor:
        if x.dtype != torch.float32 or not x.numel():
            return nn.Linear.forward(layer, x)
        return onednn_linear(x, layer.weight, layer.bias)

    return forward


def _is_plain(module: nn.Module) -> bool:
    # accelerate keeps its wrapper in the instance, and the weights of what it offloads on the meta device
    whole = all(p.dtype == torch.float32 and p.device.type != "meta" for p in module.parameters(recurse=False))
    return whole and "forward" not in vars(module) and module._compiled_call_impl is None


def _is_on_cpu(module: nn.Linear) -> bool:
    return module.weight.device.type == "cpu" and type(module.weight) is nn.Parameter
