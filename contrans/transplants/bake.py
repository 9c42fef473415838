"""A transplant folded into the weights: it costs nothing, and whoever loads the model needs no package of ours."""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from contrans.concepts.vector import ConceptVector
from contrans.errors import BlockError, ModelError, SpecError
from contrans.models import Model
from contrans.transplants.apply import transplant
from contrans.transplants.context import Transplant
from contrans.transplants.eager import is_compiled
from contrans.transplants.places import Place, Switch, Trial, find_place, switches_of


def bake(
    model: Model,
    vector: ConceptVector | Sequence[ConceptVector],
    *,
    dose: float | Sequence[float] = 0.2,
    block: int | Sequence[int] | None = None,
    combine: str = "sum",
    in_memory: bool = False,
    inplace: bool = False,
) -> Model:
    """Folds concepts into a model's weights, as biases that add their shift at every token.

    The result computes what `transplant(..., positions="with_bos")` does, to rounding. A bias cannot spare BOS as
    the other scopes do: where texts begin with BOS, the two differ by what a shift of that one token does, and where
    they do not, baked equals `transplant` as it is by default. The difference is small where BOS has the massive state
    of an attention sink, beside which a dose vanishes: on SmolLM2 it was 1e-5 to 1e-4 nats a token at doses that
    move the model by 0.1.

    `result.module.save_pretrained(folder)` writes a model that plain transformers loads, of the same class. So the
    bias must be one that the class knows: it has one, or a setting of its configuration gives one (`mlp_bias` of
    Llama and Granite, `bias` of Falcon, `attention_bias` of Cohere), with zeros for all the others that come with it.

    Args:
        model: the model; left as it is unless `inplace`.
        vector: as for `transplant`.
        dose: as for `transplant`.
        block: as for `transplant`.
        combine: as for `transplant`.
        in_memory: hang the bias on a linear layer of this process's model where the class knows none (Qwen, Mistral,
            Gemma 1, Phi-3). Such a model cannot be saved: loading would drop the bias without a word.
        inplace: change the model's own weights instead of a copy that needs as much memory again. The model given
            then is steered too, and must not be used under its old fingerprint.

    Returns:
        A model with a fingerprint of its own, dtype and ties of the weights kept.

    Raises:
        ModelError: no bias moves the output of a block, as where a norm comes after the MLP (Gemma 2 and 3, OLMo 2);
            or the model is compiled, quantised, offloaded or adapted.
        SpecError: a transplant is in the model.
        ArtifactError, BlockError, FitError: as for `transplant`.
    """
    shifts = transplant(model, vector, dose=dose, block=block, combine=combine).shifts
    return bake_shifts(model, shifts, in_memory=in_memory, inplace=inplace)


def bake_shifts(
    model: Model, shifts: Mapping[int, torch.Tensor], *, in_memory: bool = False, inplace: bool = False
) -> Model:
    """Folds known shifts into a model's weights; see `bake`.

    Args:
        model: the model.
        shifts: per block the shift [d].
        in_memory: as for `bake`.
        inplace: as for `bake`.

    Raises:
        ModelError, SpecError: as for `bake`.
        BlockError, StateError: a shift is of the wrong width or not finite, or there is no such block.
    """
    checked = Transplant(model, shifts).shifts
    for block, shift in checked.items():
        if shift.ndim != 1:
            raise BlockError(
                f"The shift for block {block} of {model.name} must have {model.hidden_size} values to be a bias, not "
                f"shape {tuple(shift.shape)}; add up its rows."
            )
    _check_plain(model)
    places, switches = _places(model, sorted(checked), in_memory=in_memory)
    module = model.module if inplace else deepcopy(model.module)
    for name in dict.fromkeys(p.switch for p in places.values() if p.switch is not None):
        setattr(module.config.get_text_config(decoder=True), name, True)
        for path, shape in switches[name].biases.items():
            _give_bias(module.get_submodule(path.removesuffix(".bias")), shape)
    baked = replace(model, module=module, revision=None, known_fingerprint=None, remember=None)
    hung = False
    for block, shift in checked.items():
        at: Any = baked.blocks[block].get_submodule(places[block].module)
        if at._parameters.get("bias") is None:
            hung = True
            _give_bias(at, shift.shape)
        bias: torch.Tensor = at.bias
        with torch.no_grad():
            bias.copy_(bias.float() + shift.to(bias.device) / places[block].scale)
    if hung:
        _refuse_saving(module, model.name)
    return baked


def bias_places(model: Model, blocks: Sequence[int]) -> dict[int, Place]:
    """Where in each block a bias moves the block's output and nothing else, be it one that the class knows or not.

    Args:
        model: the model, which is left as it is.
        blocks: block numbers.

    Raises:
        ModelError: there is no such place, or the model is compiled, quantised, offloaded or adapted.
        SpecError: a transplant is in the model.
    """
    _check_plain(model)
    return _places(model, blocks, in_memory=True)[0]


def _places(model: Model, blocks: Sequence[int], *, in_memory: bool) -> tuple[dict[int, Place], dict[str, Switch]]:
    switches: list[Switch] | None = None
    found: dict[int, Place] = {}
    for block in blocks:
        trial = Trial(model, block)
        place = find_place(trial, anywhere=in_memory)
        # in memory no setting is needed, nor the biases that it gives to all other layers
        if place is None and not in_memory:
            switches = list(switches_of(model.module)) if switches is None else switches
            place = find_place(trial, f"{model.layout.path}.{block}", switches)
        if place is None:
            raise ModelError(_why_not(model, trial, in_memory=in_memory))
        found[block] = place
    return found, {switch.name: switch for switch in switches or ()}


def _why_not(model: Model, trial: Trial, *, in_memory: bool) -> str:
    family = model.module.config.get_text_config(decoder=True).model_type
    if not in_memory and find_place(trial, anywhere=True) is not None:
        return (
            f"In a {family} model no bias moves the output of block {trial.block} and nothing else, and no "
            f"setting of its configuration adds one, so {model.name} cannot be baked and saved; use `transplant`, or "
            f"in_memory=True for a model of this process only."
        )
    return (
        f"In a {family} model no bias moves the output of block {trial.block} and nothing else, because a norm comes "
        f"after its last linear layers or these are no plain linear layers, so {model.name} cannot be baked; use "
        f"`transplant`."
    )


def _check_plain(model: Model) -> None:
    module, name = model.module, model.name
    if is_compiled(module):
        raise ModelError(f"{name} is compiled; bake the plain model and compile the result.")
    if getattr(module, "hf_quantizer", None) is not None or getattr(module.config, "quantization_config", None):
        raise ModelError(f"{name} is quantised; bake it before it is quantised, or use `transplant`.")
    if hasattr(module, "peft_config") or getattr(module, "_hf_peft_config_loaded", False):
        raise ModelError(f"{name} has an adapter; merge it (`merge_and_unload`) and bake the result.")
    if any(parameter.is_meta for parameter in module.parameters()):
        raise ModelError(f"Parts of {name} are offloaded; load it with device_map=None or enough memory to bake it.")
    if len(set(model.blocks)) < model.n_blocks:
        raise ModelError(f"Blocks of {name} share weights, so a bias would act at all of them; use `transplant`.")
    hooks = model.decoder._forward_hooks.values()
    if any(isinstance(getattr(hook, "__self__", None), Transplant) for hook in hooks):
        raise SpecError(f"A transplant is in {name} and would come along; leave its `with` before baking.")


def _give_bias(module: nn.Module, shape: torch.Size) -> None:
    weight: Any = module.weight
    zeros = torch.zeros(shape, dtype=weight.dtype, device=weight.device)
    module.register_parameter("bias", nn.Parameter(zeros, requires_grad=False))


def _refuse_saving(module: nn.Module, name: str) -> None:
    def refuse(*_args: Any, **_settings: Any) -> None:
        raise ModelError(
            f"{name} was baked in memory, into a bias that its class does not know and would drop on loading; save the "
            f"model that it was made of, and the vector."
        )

    vars(module)["save_pretrained"] = refuse
