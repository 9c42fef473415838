"""What can be said about a model from its configuration alone, before its weights are loaded."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contrans.errors import ModelError


@dataclass(frozen=True)
class ModelFacts:
    """The sizes of a model; none where its files do not tell.

    Attributes:
        family: The configuration's `model_type`.
        n_blocks: Number of decoder blocks.
        hidden_size: Width of the residual stream.
        vocab_size: Number of tokens.
        parameters: Number of weights.
        context_length: Tokens that it can read at once.
    """

    family: str | None = None
    n_blocks: int | None = None
    hidden_size: int | None = None
    vocab_size: int | None = None
    parameters: int | None = None
    context_length: int | None = None


# Names that transformers' configurations give to the same size.
_BLOCKS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "decoder_layers")
_WIDTH = ("hidden_size", "n_embd", "d_model", "dim")
_CONTEXT = ("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "max_target_positions")
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I8": 1, "U8": 1, "F8_E4M3": 1, "F8_E5M2": 1}


def facts_of_folder(folder: Path) -> ModelFacts:
    """Reads the facts of a model folder from `config.json` and the headers of its weight files.

    Raises:
        ModelError: `config.json` is missing or not JSON.
    """
    path = folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} cannot be read ({error}). Save the model again with save_pretrained.") from error
    text: Mapping[str, Any] = config.get("text_config") or config
    return ModelFacts(
        family=config.get("model_type"),
        n_blocks=_first(text, _BLOCKS),
        hidden_size=_first(text, _WIDTH),
        vocab_size=_first(text, ("vocab_size",)),
        parameters=_parameters(folder),
        context_length=_first(text, _CONTEXT),
    )


def _first(settings: Mapping[str, Any], names: tuple[str, ...]) -> int | None:
    return next((settings[name] for name in names if isinstance(settings.get(name), int)), None)


def _parameters(folder: Path) -> int | None:
    total = 0
    for path in sorted(folder.glob("*.safetensors")):
        with path.open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        for name, tensor in header.items():
            if name != "__metadata__":
                start, end = tensor["data_offsets"]
                total += (end - start) // _BYTES.get(tensor["dtype"], 1)
    return total or None
