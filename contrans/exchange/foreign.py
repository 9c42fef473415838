"""What is read from a foreign file, before it is known to fit a model: checked as far as a file alone can be."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from contrans.errors import ArtifactError, BlockError
from contrans.models import ModelRecord

MAX_BYTES = 2**28
"""A file of directions is a few megabytes; what is larger is something else, and is not read."""
MAX_BLOCKS = 4096

_NUMBER = re.compile(r"(?:[A-Za-z_]{1,40}[._])*(0|[1-9][0-9]{0,3})")
# llama.cpp and transformers name some architectures differently, and llama.cpp runs several as "llama".
_HINTS = {
    "llama": ("mistral", "ministral", "mixtral", "smollm3"),
    "qwen2vl": ("qwen2_vl", "qwen2_5_vl"),
    "deepseek2": ("deepseek_v2", "deepseek_v3"),
    "commandr": ("cohere",),
    "phi2": ("phi",),
    "gptneox": ("gpt_neox",),
}


@dataclass(frozen=True)
class Foreign:
    """Directions that another tool made.

    Attributes:
        directions: per block, counted from 0, a float32 tensor [d].
        hint: the kind of model that the file names ("gemma3"), where it names one.
        facts: what else the file says of itself, plain JSON.
    """

    directions: Mapping[int, torch.Tensor]
    hint: str | None = None
    facts: Mapping[str, str | int | float] = field(default_factory=dict)

    def only(self, blocks: Iterable[int]) -> "Foreign":
        """Some of its blocks; all if none are named.

        Raises:
            BlockError: one of them is not there.
        """
        wanted = list(dict.fromkeys(blocks))
        missing = [block for block in wanted if block not in self.directions]
        if missing:
            raise BlockError(
                f"The file has no direction for block {missing[0]}; it has {_span(self.directions)}. Name one of these."
            )
        return replace(self, directions={b: self.directions[b] for b in sorted(wanted)}) if wanted else self


def check_fits(found: Foreign, model: ModelRecord, *, what: str, allow_mismatch: bool = False) -> None:
    """Refuses directions that cannot be the model's.

    Args:
        found: what was read.
        model: the model that they are said to be of.
        what: name of the file, for the message.
        allow_mismatch: whether a file made for another kind of model of the same size will do.

    Raises:
        ArtifactError: no direction, another width, a block that the model lacks, or another kind of model.
    """
    if not found.directions:
        raise ArtifactError(f"{what} holds no direction; export it again from the tool that made it.")
    for block, direction in sorted(found.directions.items()):
        if len(direction) != model.hidden_size:
            raise ArtifactError(
                f"{what} has directions of {len(direction)} values, and the hidden states of {model.name} have "
                f"{model.hidden_size}; it was made for another model, name that one with --model."
            )
        if block >= model.n_blocks:
            raise ArtifactError(
                f"{what} has a direction for block {block}, and {model.name} has blocks 0 to {model.n_blocks - 1}; it "
                f"was made for another model, or counts blocks otherwise."
            )
    if found.hint is not None and not allow_mismatch and not _alike(found.hint, model.family):
        raise ArtifactError(
            f"{what} says that it was made for a {found.hint[:40]!r} model, and {model.name} is a {model.family} "
            f"model; name the right model, or add --allow-mismatch if you know better."
        )


def collected(named: Iterable[tuple[str, torch.Tensor]], *, what: str) -> dict[int, torch.Tensor]:
    """Directions by block, from tensors whose names end in the block's number.

    Args:
        named: such as ("direction.14", [d]); shapes such as [1, 1, d] count as [d].
        what: name of the file, for the message.

    Raises:
        ArtifactError: a name without a number, a block twice, widths that differ, or values that are no direction.
    """
    directions: dict[int, torch.Tensor] = {}
    for name, tensor in named:
        match = _NUMBER.fullmatch(name)
        if match is None or int(match[1]) >= MAX_BLOCKS:
            raise ArtifactError(f"{what} has a tensor {name[:60]!r}, whose name does not end in a block's number.")
        block = int(match[1])
        if block in directions:
            raise ArtifactError(f"{what} has two directions for block {block}; leave one of them out.")
        if tensor.numel() == 0 or tensor.numel() != max(tensor.shape, default=0):
            raise ArtifactError(
                f"{what} has a tensor of shape {tuple(tensor.shape)} for block {block}, where one direction is due; "
                f"export a single vector for each block."
            )
        flat = tensor.detach().reshape(-1).float()
        if not bool(torch.isfinite(flat).all()):
            raise ArtifactError(f"{what} has values that are not finite (NaN or infinite) at block {block}.")
        if not bool(flat.any()):
            raise ArtifactError(f"{what} has nothing but zeros at block {block}, which is no direction; leave it out.")
        directions[block] = flat.clone()
    if len({len(direction) for direction in directions.values()}) > 1:
        raise ArtifactError(f"{what} has directions of different widths, so they cannot be of one model.")
    return dict(sorted(directions.items()))


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that need not be trusted.

    Raises:
        ArtifactError: it cannot be read, or is too large for directions.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ArtifactError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    if len(data) > MAX_BYTES:
        raise ArtifactError(f"{path} is larger than {MAX_BYTES:,} bytes, so it is no file of directions.")
    return data


def _alike(hint: str, family: str) -> bool:
    short = [name.lower().replace("_", "").replace("-", "").replace(".", "") for name in (hint, family)]
    said, due = (name.removesuffix("text") for name in short)
    return said == due or family in _HINTS.get(said, ())


def _span(directions: Mapping[int, torch.Tensor]) -> str:
    blocks = sorted(directions)
    return ", ".join(map(str, blocks)) if len(blocks) < 8 else f"{len(blocks)} from {blocks[0]} to {blocks[-1]}"
