"""Reading a GGUF file into a transformers model and tokenizer, without parsing its vocabulary three times."""

import functools
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from transformers import (
    AutoModelForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    modeling_gguf_pytorch_utils,
)
from transformers.integrations.ggml import GGUF_CONFIG_MAPPING
from transformers.integrations.gguf.gguf_tokenizer_mapping import convert_gguf_tokenizer, get_gguf_tokenizer
from transformers.integrations.gguf.reader import read_gguf_metadata
from transformers.utils import logging

from contrans.errors import ModelError

MAGIC = b"GGUF"
STRING, ARRAY, UINT32 = 8, 9, 4
WIDTH = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
# What only the tokenizer reads: hundreds of thousands of entries, which transformers' loader of
# configurations and weights would parse one by one, twice.
VOCABULARY = (
    "tokenizer.ggml.tokens",
    "tokenizer.ggml.scores",
    "tokenizer.ggml.token_type",
    "tokenizer.ggml.merges",
)


def read_model(path: Path, *, scratch: Path) -> PreTrainedModel:
    """Loads and dequantises the weights of a GGUF file, in fp32.

    Args:
        path: The GGUF file.
        scratch: A folder on which a second copy of the file, without vocabulary, may stand for a moment.

    Raises:
        ModelError: The file is not GGUF, or of an architecture that transformers cannot read.
    """
    check_magic(path)
    slim = scratch / "weights.gguf"
    try:
        architecture = str(read_gguf_metadata(str(path))[0]["general.architecture"])
        # Only where the size of the vocabulary has a key of its own can the vocabulary be left out.
        short = "vocab_size" in GGUF_CONFIG_MAPPING.get(architecture, {})
        if short:
            _without_vocabulary(path, slim)
        source = slim if short else path
        with _remembered_tensor_names():
            module = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
    except (ValueError, KeyError, NotImplementedError, struct.error, IndexError) as error:
        raise ModelError(
            f"{path.name} cannot be read as a GGUF model ({error}). Use a file of an architecture that "
            "transformers supports, or the original safetensors model."
        ) from error
    finally:
        slim.unlink(missing_ok=True)
    _clear_quantised_mark(module)
    return module


def read_tokenizer(path: Path) -> PreTrainedTokenizerBase:
    """Builds the tokenizer that a GGUF file describes."""
    check_magic(path)
    architecture, vocabulary, settings = get_gguf_tokenizer(str(path))
    backend, extra = convert_gguf_tokenizer(architecture, vocabulary)
    return PreTrainedTokenizerFast(tokenizer_object=backend, **(settings | extra))


def check_magic(path: Path) -> None:
    """Raises a ModelError if a file does not begin like GGUF."""
    with path.open("rb") as file:
        if file.read(4) != MAGIC:
            raise ModelError(f"{path} is not a GGUF file; pass a file written by llama.cpp's converter.")


def _clear_quantised_mark(module: Any) -> None:
    # The weights are plain fp32 now, but transformers refuses to save a model that it thinks is quantised.
    for name in ("hf_quantizer", "quantization_method"):
        if hasattr(module, name):
            delattr(module, name)
    module.is_quantized = False
    if hasattr(module.config, "quantization_config"):
        del module.config.quantization_config


@contextmanager
def _remembered_tensor_names() -> Iterator[None]:
    # transformers asks for the same table of tensor names once per module; it takes 20 ms each time. And
    # its progress bar comes from tqdm itself, so that the switch for progress bars does not reach it.
    loader: Any = modeling_gguf_pytorch_utils
    names, bar = gguf.get_tensor_name_map, loader.tqdm
    gguf.get_tensor_name_map = functools.cache(names)
    loader.tqdm = logging.tqdm
    try:
        yield
    finally:
        gguf.get_tensor_name_map, loader.tqdm = names, bar


def _without_vocabulary(source: Path, target: Path) -> None:
    raw = np.memmap(source, mode="r", dtype=np.uint8).data
    version, tensor_count, field_count = struct.unpack_from("<IQQ", raw, 4)
    position = 24
    kept: list[memoryview | bytes] = []
    fields: dict[str, tuple[int, int]] = {}
    n_tokens = 0
    for _ in range(field_count):
        start = position
        length = struct.unpack_from("<Q", raw, position)[0]
        key = bytes(raw[position + 8 : position + 8 + length]).decode()
        position += 8 + length
        kind = struct.unpack_from("<I", raw, position)[0]
        fields[key] = (kind, position + 4)
        if key == VOCABULARY[0]:
            n_tokens = struct.unpack_from("<Q", raw, position + 8)[0]
        position = _end_of_value(raw, position + 4, kind)
        if key not in VOCABULARY:
            kept.append(raw[start:position])
    architecture = _string(raw, fields["general.architecture"][1])
    alignment = (
        struct.unpack_from("<I", raw, fields["general.alignment"][1])[0] if "general.alignment" in fields else 32
    )
    infos = position
    for _ in range(tensor_count):
        position += 8 + struct.unpack_from("<Q", raw, position)[0]
        position += 4 + 8 * struct.unpack_from("<I", raw, position)[0] + 12
    if f"{architecture}.vocab_size" not in fields:
        # Without this the loader would count the tokens that were left out.
        key = f"{architecture}.vocab_size".encode()
        kept.append(struct.pack("<Q", len(key)) + key + struct.pack("<II", UINT32, n_tokens))
    header = MAGIC + struct.pack("<IQQ", version, tensor_count, len(kept))
    with target.open("wb") as file:
        file.write(header)
        for part in [*kept, raw[infos:position]]:
            file.write(part)
        file.write(b"\0" * (-file.tell() % alignment))
        file.write(raw[position + (-position % alignment) :])


def _end_of_value(raw: memoryview, position: int, kind: int) -> int:
    if kind == STRING:
        return position + 8 + struct.unpack_from("<Q", raw, position)[0]
    if kind == ARRAY:
        element, count = struct.unpack_from("<IQ", raw, position)
        position += 12
        if element in WIDTH:
            return position + count * WIDTH[element]
        for _ in range(count):
            position = _end_of_value(raw, position, element)
        return position
    return position + WIDTH[kind]


def _string(raw: memoryview, position: int) -> str:
    length = struct.unpack_from("<Q", raw, position)[0]
    return bytes(raw[position + 8 : position + 8 + length]).decode()
