"""The file that the `steered` model of lm-evaluation-harness reads: per hookpoint a vector that is added everywhere."""

from functools import cache

import torch
from torch import nn
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from contrans.errors import ModelError
from contrans.exchange.shift import Shift
from contrans.exchange.torch_file import saved
from contrans.models.blocks import find_blocks
from contrans.models.loading import auto_class
from contrans.models.turns import one_at_a_time


def write_lm_eval(shift: Shift) -> bytes:
    """The `.pt` file: {hookpoint: {"steering_vector", "steering_coefficient", "action", "bias", "head_index"}}.

    Raises:
        ModelError: where transformers keeps the blocks of this kind of model cannot be told.
    """
    stem = hookpoint_stem(shift.model.family)
    return saved(
        {
            f"{stem}.{block}": {
                "steering_vector": tensor.float().contiguous(),
                "steering_coefficient": 1.0,
                "action": "add",
                "bias": None,
                "head_index": None,
            }
            for block, tensor in sorted(shift.blocks.items())
        }
    )


@cache
def hookpoint_stem(family: str) -> str:
    """Where a kind of model keeps its blocks, relative to `base_model`: "layers" of Llama, "h" of GPT-2.

    Args:
        family: `model_type` of the configuration.

    Raises:
        ModelError: transformers does not know it, or its blocks cannot be told.
    """
    if family not in CONFIG_MAPPING:
        raise ModelError(f"transformers knows no {family!r} models, so lm-eval's hookpoints cannot be named for them.")
    config = CONFIG_MAPPING[family]()
    with one_at_a_time(), torch.device("meta"):  # no weights are made
        module: nn.Module = auto_class(config).from_config(config)
    return relative_to_base(module, find_blocks(module).path)


def relative_to_base(module: nn.Module, path: str) -> str:
    """A path within a model as a path within its `base_model`, by which lm-eval finds modules."""
    prefix = getattr(module, "base_model_prefix", "")
    has_base = bool(prefix) and hasattr(module, prefix)
    return path.removeprefix(f"{prefix}.") if has_base else path
