"""A transplant as a folder that transformers or PEFT load by themselves: a whole model, or an adapter for one."""

import json
import re
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import nn
from transformers.pytorch_utils import Conv1D

from contrans.concepts.vector import ConceptVector
from contrans.errors import ModelError
from contrans.exchange.formats import Content
from contrans.exchange.shift import Shift, exported_shift
from contrans.exchange.writing import write_by, write_content
from contrans.models import Model
from contrans.transplants.apply import transplant
from contrans.transplants.bake import bake_shifts, bias_places

NOTE = "contrans.json"


def export_baked(
    model: Model,
    vector: ConceptVector,
    path: str | Path,
    *,
    dose: float,
    block: int | None = None,
    origin: str | None = None,
    force: bool = False,
) -> Path:
    """Writes a model that carries the shift in a bias, which plain transformers loads.

    vLLM loads the folder as it is (shown of Llama and GPT-2), and as GGUF llama.cpp reads the bias as
    `blk.N.ffn_down.bias` (shown of Llama, Granite, GPT-2 and StarCoder2).

    Args:
        model: the model to bake it into; it is left as it is.
        vector: in the model's hidden space.
        path: the folder, which must not exist.
        dose: as for `contrans.transplant`.
        block: as for `contrans.transplant`.
        origin: name of what it was made from.
        force: whether a folder that is there gives way.

    Raises:
        ModelError: the kind of model has no bias that moves the block's output and nothing else; the message says why.
            Where PEFT can express it, it says so.
        SpecError, BlockError, ArtifactError: as for `exported_shift`, or the folder cannot be written.
    """
    shift = _for_model(model, vector, dose, block, origin)
    try:
        baked = bake_shifts(model, shift.blocks)
    except ModelError as error:
        raise ModelError(f"{error}{_or_adapter(model, shift)}") from error

    def put(part: Path) -> None:
        saving: Any = baked.module
        saving.save_pretrained(part)
        model.tokenizer.save_pretrained(part)
        (part / NOTE).write_bytes(_note(shift))

    return write_by(path, put, force=force)


def write_adapter(model: Model, shift: Shift) -> Content:
    """A PEFT adapter that adds the shift: a LoRA whose matrices are zero and whose bias is the shift.

    B (A x) + b with A = 0, B = 0 is b whatever x is, so a linear layer without a bias gets one. This reaches every
    model whose blocks end in a plain linear layer, also those whose class knows no bias there; of these
    PEFT cannot merge it into the weights.

    Args:
        model: the model that it is for.
        shift: what it adds.

    Returns:
        `adapter_config.json` and `adapter_model.safetensors`, by name.

    Raises:
        ModelError: the block does not end in a linear layer (a norm comes after it, as in Gemma 2 and 3 and OLMo 2), or
            it stands among experts (DeepSeek V3).
    """
    tensors: dict[str, torch.Tensor] = {}
    targets: list[str] = []
    turned = False
    for block, place in bias_places(model, sorted(shift.blocks)).items():
        layer = model.blocks[block].get_submodule(place.module)
        if not isinstance(layer, nn.Linear | Conv1D):
            raise ModelError(
                f"Block {block} of {model.name} ends in a {type(layer).__name__}, to which PEFT can add nothing; use "
                f"`transplant`, or --format baked."
            )
        if "experts" in place.module:
            raise ModelError(
                f"Block {block} of {model.name} ends in a layer among experts, which PEFT gives no bias; "
                f"use `transplant`."
            )
        target = f"{model.layout.path}.{block}.{place.module}"
        turned = isinstance(layer, Conv1D)  # which keeps its weight as [in, out]
        ins, outs = (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)
        stem = f"base_model.model.{target}"
        tensors[f"{stem}.lora_A.weight"] = torch.zeros(1, ins)
        tensors[f"{stem}.lora_B.weight"] = torch.zeros(outs, 1)
        tensors[f"{stem}.lora_B.bias"] = (shift.blocks[block].float() / place.scale).contiguous()
        targets.append(target)
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": model.reference,
        "inference_mode": True,
        "r": 1,
        "lora_alpha": 1,
        "lora_dropout": 0.0,
        "lora_bias": True,
        "bias": "none",
        "fan_in_fan_out": turned,
        "target_modules": "|".join(map(re.escape, targets)),
    }
    return {
        "adapter_config.json": json.dumps(config, indent=1).encode(),
        "adapter_model.safetensors": save(tensors, metadata={"format": "pt"}),
        NOTE: _note(shift),
    }


def export_adapter(
    model: Model,
    vector: ConceptVector,
    path: str | Path,
    *,
    dose: float,
    block: int | None = None,
    origin: str | None = None,
    force: bool = False,
) -> Path:
    """Writes the folder of `write_adapter`, which `PeftModel.from_pretrained` loads; arguments as `export_baked`."""
    shift = _for_model(model, vector, dose, block, origin)
    return write_content(path, write_adapter(model, shift), force=force)


def usage_of(kind: str, shift_model: str, path: str) -> str:
    """The lines that use a "baked" or "peft" folder."""
    if kind == "baked":
        return f'AutoModelForCausalLM.from_pretrained("{path}")  # no package of ours is needed'
    return (
        f'model = AutoModelForCausalLM.from_pretrained("{shift_model}")\n'
        f'model = PeftModel.from_pretrained(model, "{path}")'
    )


def _for_model(model: Model, vector: ConceptVector, dose: float, block: int | None, origin: str | None) -> Shift:
    shift = exported_shift(vector, dose=dose, block=block, origin=origin)
    transplant(model, vector, dose=dose, block=sorted(shift.blocks))  # refuses a vector of another model
    return shift


def _or_adapter(model: Model, shift: Shift) -> str:
    try:
        write_adapter(model, shift)
    except ModelError:
        return ""
    return " PEFT can carry it: use --format peft."


def _note(shift: Shift) -> bytes:
    told = {
        "what": shift.described,
        "concept": shift.concept,
        "base_model": shift.model.to_json(),
        "blocks": sorted(shift.blocks),
        "dose": shift.dose,
        "made_from": shift.origin,
    }
    return json.dumps(told, indent=1, sort_keys=True).encode()
