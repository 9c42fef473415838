"""Shifts and files to try the formats on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gguf import GGUFWriter

from contrans.exchange import Shift
from contrans.models import ModelRecord

RECORD = ModelRecord("org/large", "large", "c" * 40, "b" * 64, "gemma3_text", 8, 6, "Apache-2.0", "float32")


def directions(*blocks: int, width: int = 8, seed: int = 0) -> dict[int, torch.Tensor]:
    made = torch.Generator().manual_seed(seed)
    return {block: torch.randn(width, generator=made) for block in blocks}


def shift(*blocks: int, record: ModelRecord = RECORD) -> Shift:
    return Shift("anger", record, directions(*blocks, width=record.hidden_size), 0.2, "anger/small/large@3")


def gguf_file(
    path: Path,
    tensors: Mapping[str, Any],
    *,
    arch: str = "controlvector",
    hint: str | None = "gemma3_text",
    count: int | None = None,
    more: Mapping[str, str] = {},
) -> bytes:
    """A GGUF file by the package of its authors."""
    writer = GGUFWriter(path, arch)
    if hint is not None:
        writer.add_string("controlvector.model_hint", hint)
    if count is not None:
        writer.add_uint32("controlvector.layer_count", count)
    for key, value in more.items():
        writer.add_string(f"controlvector.{key}", value)
    for name, value in tensors.items():
        writer.add_tensor(name, np.asarray(value))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path.read_bytes()
