"""Concept vectors: one direction per block, with all that is needed to make them again."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save

from contrans.errors import ArtifactError, BlockError
from contrans.models import ModelRecord

FORMAT_VERSION = 1
STEM = "concept_vector"


@dataclass(frozen=True)
class ConceptVector:
    """A concept as directions in one model's residual stream.

    Attributes:
        concept: such as "anger".
        model: the model in whose hidden space the directions live.
        directions: per block a float32 tensor [d], unnormalised, in the units of that residual stream.
        spread: per block √tr Cov of the states behind it, the scale by which a map rescales lengths.
        residual_norm: per block the median norm of the states behind it, the unit of a dose.
        provenance: JSON: estimator and settings, text-set hashes, template, position, diagnostics, and for a
            mapped vector the map and the vector that it came from.
    """

    concept: str
    model: ModelRecord
    directions: dict[int, torch.Tensor]
    spread: dict[int, float]
    residual_norm: dict[int, float]
    provenance: dict[str, Any] = field(default_factory=dict)

    @property
    def template(self) -> str:
        """The prompt template whose last token the states were read at; "{text}" if there was none."""
        return str(self.provenance.get("refined", self.provenance).get("template", "{text}"))

    @property
    def diagnostics(self) -> dict[int, dict[str, float]]:
        """Per block what the states behind the direction say about it, as `diagnose` tells it.

        Empty for a mapped vector, whose evidence lies in the model that it came from: `provenance["refined"]`.
        """
        return {int(block): dict(facts) for block, facts in self.provenance.get("diagnostics", {}).items()}

    def best_block(self, *, within: tuple[float, float] = (0.0, 1.0)) -> int:
        """The block whose direction tells unseen states apart best: highest held-out d′, then AUC, then the lowest.

        Which block *holds* the concept is all that this says; which one carries it best into another model is told by
        a transplant on dev texts.

        Args:
            within: lowest and highest relative depth, block ÷ number of blocks, to choose among.

        Raises:
            BlockError: no block at these depths has a direction with diagnostics.
        """
        measured = self.diagnostics
        lowest, highest = within
        near = [b for b in self.blocks if b in measured and lowest <= b / self.model.n_blocks <= highest]
        if not near:
            raise BlockError(
                f"The vector {self.concept!r} has no diagnostics at relative depths {lowest:g} to {highest:g}, so no "
                f"block can be chosen by them; refine it at blocks there, or name a block."
            )
        return max(near, key=lambda b: (measured[b]["d_prime"], measured[b]["auc"], -b))

    @property
    def blocks(self) -> list[int]:
        """The blocks that there is a direction for."""
        return sorted(self.directions)

    def direction(self, block: int) -> torch.Tensor:
        """The direction [d] at a block, unnormalised.

        Raises:
            BlockError: there is none for this block.
        """
        if block not in self.directions:
            raise BlockError(f"The vector {self.concept!r} has no direction at block {block}; it has {self.blocks}.")
        return self.directions[block]

    def only_block(self) -> int:
        """The block of a vector that has just one.

        Raises:
            BlockError: there are several, so one must be named.
        """
        if len(self.directions) != 1:
            raise BlockError(
                f"The vector {self.concept!r} has directions at {len(self.directions)} blocks ({self.blocks[0]} to "
                f"{self.blocks[-1]}); say which with `block=`."
            )
        return self.blocks[0]

    def at(self, block: int) -> "ConceptVector":
        """The same vector with one block only."""
        direction = self.direction(block)
        return replace(
            self,
            directions={block: direction},
            spread={block: self.spread[block]},
            residual_norm={block: self.residual_norm[block]},
        )

    def to_files(self) -> dict[str, bytes]:
        """The vector as the files of its wire format: safetensors and a JSON beside it."""
        header = {
            "format_version": FORMAT_VERSION,
            "kind": STEM,
            "concept": self.concept,
            "model": self.model.to_json(),
            "spread": {str(b): v for b, v in sorted(self.spread.items())},
            "residual_norm": {str(b): v for b, v in sorted(self.residual_norm.items())},
            "provenance": self.provenance,
        }
        tensors = {f"block.{b}": self.directions[b].float().contiguous() for b in self.blocks}
        return {
            f"{STEM}.safetensors": save(tensors),
            f"{STEM}.json": json.dumps(header, indent=1, sort_keys=True, allow_nan=False).encode(),
        }

    @classmethod
    def from_files(cls, content: dict[str, bytes]) -> "ConceptVector":
        """Reads what `to_files` wrote.

        Raises:
            ArtifactError: a file is missing or damaged, newer than this version, or holds odd tensors.
        """
        header = read_header(content, STEM, FORMAT_VERSION)
        tensors = read_tensors(content, STEM)
        try:
            model = ModelRecord.from_json(header["model"])
            directions = {int(name.removeprefix("block.")): t for name, t in tensors.items()}
            spread = {int(b): float(v) for b, v in header["spread"].items()}
            residual_norm = {int(b): float(v) for b, v in header["residual_norm"].items()}
            made = cls(header["concept"], model, directions, spread, residual_norm, header["provenance"])
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"The {STEM} is malformed ({error!r}); make or pull it again.") from error
        for block, direction in directions.items():
            if direction.shape != (model.hidden_size,) or not bool(torch.isfinite(direction).all()):
                raise ArtifactError(
                    f"The {STEM} of {made.concept!r} is damaged at block {block}: shape "
                    f"{tuple(direction.shape)} where "
                    f"({model.hidden_size},) is due, or values that are not finite; make or pull it again."
                )
        return made

    def save(self, folder: str | Path) -> Path:
        """Writes the vector into a folder, which is made if need be, and returns the folder."""
        return write_files(folder, self.to_files())

    @classmethod
    def load(cls, folder: str | Path) -> "ConceptVector":
        """Reads a vector that `save` wrote.

        Raises:
            ArtifactError: it is missing, damaged or newer than this version.
        """
        return cls.from_files(read_files(folder, STEM))


def write_files(folder: str | Path, content: dict[str, bytes]) -> Path:
    """Writes files into a folder, each under a temporary name first, so that none is ever half-written."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in content.items():
        part = folder / f".{name}.part"
        part.write_bytes(data)
        part.replace(folder / name)
    return folder


def read_files(folder: str | Path, stem: str) -> dict[str, bytes]:
    """Reads `stem.safetensors` and `stem.json` from a folder.

    Raises:
        ArtifactError: one of them cannot be read.
    """
    try:
        return {name: (Path(folder) / name).read_bytes() for name in (f"{stem}.safetensors", f"{stem}.json")}
    except OSError as error:
        raise ArtifactError(f"No {stem} can be read in {folder}: {error.strerror} ({error.filename}).") from error


def read_header(content: dict[str, bytes], stem: str, newest: int) -> dict[str, Any]:
    """The JSON beside the tensors, checked for kind and format version.

    Raises:
        ArtifactError: it is missing, damaged, of another kind or newer than this version.
    """
    try:
        header = json.loads(content[f"{stem}.json"])
        kind, version = header["kind"], int(header["format_version"])
    except (KeyError, ValueError, TypeError) as error:
        raise ArtifactError(f"{stem}.json is missing or damaged; make or pull it again.") from error
    if kind != stem:
        raise ArtifactError(f"This is a {kind}, not a {stem}.")
    if version > newest:
        raise ArtifactError(
            f"This {stem} has format version {version}; this ConTrans reads up to {newest}: upgrade contrans."
        )
    return header


def read_tensors(content: dict[str, bytes], stem: str) -> dict[str, torch.Tensor]:
    """The tensors of `stem.safetensors`.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    from safetensors import SafetensorError

    try:
        return load(content[f"{stem}.safetensors"])
    except (KeyError, SafetensorError) as error:
        raise ArtifactError(f"{stem}.safetensors is missing or damaged; make or pull it again.") from error
