"""GGUF models with the very weights that transformers runs: of tiny models, and of a quantised file made plain."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import MODEL_ARCH, GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter, get_tensor_name_map
from gguf.quants import dequantize

from contrans.models import Model

ARCHS = {
    "llama": MODEL_ARCH.LLAMA,
    "granite": MODEL_ARCH.GRANITE,
    "qwen2": MODEL_ARCH.QWEN2,
    "starcoder2": MODEL_ARCH.STARCODER2,
    "gpt2": MODEL_ARCH.GPT2,
    "gemma3_text": MODEL_ARCH.GEMMA3,
}


def write_tiny(model: Model, path: Path) -> Path:
    """Writes a tiny model of one of `ARCHS` in float32, without a vocabulary."""
    module: Any = model.module
    config = module.config
    kind = config.model_type
    names = get_tensor_name_map(ARCHS[kind], config.num_hidden_layers)
    writer = GGUFWriter(path, {"gemma3_text": "gemma3"}.get(kind, kind))
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(getattr(config, "intermediate_size", None) or 4 * config.hidden_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("none")
    if kind == "gpt2":
        writer.add_layer_norm_eps(config.layer_norm_epsilon)
    else:
        _add_rotary(writer, config)
    if kind == "granite":
        writer.add_attention_scale(config.attention_multiplier)
        writer.add_embedding_scale(config.embedding_multiplier)
        writer.add_residual_scale(config.residual_multiplier)
        writer.add_logit_scale(config.logits_scaling)
    if kind == "gemma3_text":
        writer.add_sliding_window(config.sliding_window)
    for name, tensor in module.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stem = name.rpartition(".")[0]
        new = names.get_name(name, try_suffixes=(".weight", ".bias"))
        assert new is not None, name
        value = tensor.float()
        if kind in ("llama", "granite") and stem.endswith(("q_proj", "k_proj")):
            heads = config.num_attention_heads if stem.endswith("q_proj") else config.num_key_value_heads
            value = _for_llamas_rope(value, heads)
        if kind == "gemma3_text" and stem.endswith("norm"):
            value = value + 1  # Gemma multiplies by 1 + w
        if kind == "gpt2" and value.ndim == 2 and stem.endswith(("c_attn", "c_fc", "c_proj")):
            value = value.T  # GPT-2 keeps its weights as [in, out]
        writer.add_tensor(new, value.contiguous().numpy())
    _finish(writer)
    return path


def _add_rotary(writer: GGUFWriter, config: Any) -> None:
    writer.add_head_count_kv(config.num_key_value_heads)
    if hasattr(config, "rms_norm_eps"):
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    else:
        writer.add_layer_norm_eps(config.norm_epsilon)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head)
    writer.add_value_length(head)
    writer.add_rope_dimension_count(head)
    rope = config.rope_parameters
    writer.add_rope_freq_base(rope.get("full_attention", rope)["rope_theta"])


def write_plain(source: Path, path: Path) -> Path:
    """Writes a quantised GGUF model anew with all weights in float32, so that both sides have equal ones."""
    reader = GGUFReader(source)
    arch = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(path, str(arch))
    for name, field in reader.fields.items():
        if name.startswith("GGUF.") or name in ("general.architecture", "general.file_type"):
            continue
        kind, *inner = field.types
        writer.add_key_value(name, field.contents(), kind, inner[-1] if kind == GGUFValueType.ARRAY else None)
    for tensor in reader.tensors:
        value = dequantize(tensor.data, GGMLQuantizationType(tensor.tensor_type)).astype(np.float32)
        writer.add_tensor(tensor.name, value.reshape(tensor.shape[::-1].tolist()))
    _finish(writer)
    return path


def _for_llamas_rope(value: torch.Tensor, heads: int) -> torch.Tensor:
    # llama.cpp turns neighbouring pairs where transformers turns halves
    return value.reshape(heads, 2, value.shape[0] // heads // 2, *value.shape[1:]).transpose(1, 2).reshape(value.shape)


def _finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
