"""What makes two loaded models the same: their configuration, dtype and weights, wherever the files lie."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import nn

from contrans.errors import ModelError
from contrans.hashing import digest

# Where the files came from, how they were stored, and what only generation or a classifier reads: none
# of it changes the states. dtype is told by the weights themselves.
IRRELEVANT = frozenset(
    [
        "architectures",
        "auto_map",
        "bad_words_ids",
        "begin_suppress_tokens",
        "bos_token_id",
        "chunk_size_feed_forward",
        "dtype",
        "eos_token_id",
        "finetuning_task",
        "forced_bos_token_id",
        "forced_eos_token_id",
        "id2label",
        "is_local",
        "label2id",
        "name_or_path",
        "output_attentions",
        "output_hidden_states",
        "pad_token_id",
        "prefix",
        "problem_type",
        "quantization_config",
        "return_dict",
        "sep_token_id",
        "task_specific_params",
        "tokenizer_class",
        "torch_dtype",
        "transformers_version",
        "unk_token_id",
        "use_cache",
    ]
)


def fingerprint(module: nn.Module) -> str:
    """SHA-256, in hex, over a model's architecture settings, dtypes and weight content.

    Stable between processes and library versions, blind to where the files lie and how they are sharded.
    Tied weights count once. Reads every weight: about one second per GB.

    Args:
        module: A model of transformers with all weights in memory.

    Raises:
        ModelError: Weights are offloaded to disk, so that their content cannot be read.
    """
    tensors = list(_weights(module))
    workers = min(4, os.cpu_count() or 1)
    with ThreadPoolExecutor(workers) as pool:  # hashlib releases the interpreter lock on long inputs
        contents = list(pool.map(lambda item: _content_hash(*item), tensors))
    weights = [
        [name, str(tensor.dtype).removeprefix("torch."), list(tensor.shape), content]
        for (name, tensor), content in zip(tensors, contents, strict=True)
    ]
    return digest({"config": architecture_settings(module.config), "weights": weights})


def architecture_settings(config: Any) -> dict[str, Any]:
    """Returns the settings of a configuration that shape the model and differ from its class's defaults.

    Defaults are left out so that a setting added by a later version of transformers, with the value that
    was implied before, does not make a known model a new one.
    """
    settings = _relevant(config.to_dict())
    try:
        defaults = _relevant(type(config)().to_dict())
    except (TypeError, ValueError):  # a composite configuration that has no defaults
        defaults = {}
    differing = {key: value for key, value in settings.items() if key not in defaults or value != defaults[key]}
    return differing | {"model_type": config.model_type}


def _relevant(settings: Mapping[str, Any]) -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for key, value in settings.items():
        if key in IRRELEVANT or str(key).startswith("_"):
            continue
        # JSON's way of writing it, so that a config in memory equals the same one read back from a file.
        kept[str(key)] = _plain(value)
    return kept


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _relevant(value)
    if isinstance(value, list | tuple | set):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return repr(value)  # JSON has no infinity, which some configurations use as a limit
    return value if value is None or isinstance(value, str | int) else str(value)


def _weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    seen: set[tuple[int, tuple[int, ...], tuple[int, ...], torch.dtype]] = set()
    for name, tensor in sorted(module.state_dict().items()):
        if tensor.is_meta:
            raise ModelError(
                f"The fingerprint of this model cannot be computed: {name} is offloaded to disk. "
                "Load the model with device_map=None or with enough memory."
            )
        key = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype)
        if tensor.numel() and key in seen:
            continue
        seen.add(key)
        yield name, tensor


def _content_hash(name: str, tensor: torch.Tensor) -> str:
    # Through bytes, because NumPy knows no bfloat16.
    flat = tensor.detach().to("cpu").contiguous().reshape(-1).view(torch.uint8)
    return hashlib.sha256(flat.numpy().data).hexdigest()
