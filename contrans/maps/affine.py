"""Affine maps between hidden spaces: h ↦ h W + b."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save

from contrans.concepts.vector import ConceptVector, read_files, read_header, read_tensors, write_files
from contrans.errors import ArtifactError, BlockError, FitError
from contrans.models import ModelRecord

FORMAT_VERSION = 1
STEM = "affine_map"
RESCALINGS = ("source-relative", "unit", "none")
_TENSORS = ("weight", "bias", "source_mean", "target_mean", "retained")


@dataclass(frozen=True)
class AffineMap:
    """An affine map from a block of one model to a block of another.

    Attributes:
        source_block: block of the source.
        target_block: block of the target.
        weight: W, float32 [ds, dt].
        bias: b, float32 [dt].
        source_mean: mean of the source states fitted on, float32 [ds].
        target_mean: mean of the target states fitted on, float32 [dt].
        retained: (C + λ)⁻¹C, float32 [ds, ds]: what regularisation leaves of a direction.
        source_spread: √tr Cov of the source states.
        target_spread: √tr Cov of the target states.
        target_norm: median norm of the target states, the unit of a dose.
        estimator: how it was fitted.
        info: JSON: λ, held-out R², rows, texts and settings.
    """

    source_block: int
    target_block: int
    weight: torch.Tensor
    bias: torch.Tensor
    source_mean: torch.Tensor
    target_mean: torch.Tensor
    retained: torch.Tensor
    source_spread: float
    target_spread: float
    target_norm: float
    estimator: str
    info: dict[str, Any] = field(default_factory=dict)

    def map_state(self, states: torch.Tensor) -> torch.Tensor:
        """Maps states [..., ds] to [..., dt]: h W + b."""
        return states.float() @ self.weight + self.bias

    def map_direction(self, direction: torch.Tensor, *, rescale: str = "source-relative") -> torch.Tensor:
        """Maps a direction [ds] to [dt] by W alone: a difference of states has no offset.

        Adding b would give a vector whose cosine to the right one is about 0 and which is a hundred times too long.

        Args:
            direction: in the units of the source's residual stream.
            rescale: "source-relative" gives it the length, relative to the target's spread, that it had
                relative to the source's; "unit" the length 1; "none" leaves it as it comes (the paper).

        Raises:
            FitError: unknown rescaling, or the map sends the direction to zero.
        """
        if rescale not in RESCALINGS:
            raise FitError(f"Rescaling {rescale!r} is not known; use one of {', '.join(RESCALINGS)}.")
        mapped = direction.double() @ self.weight.double()
        if rescale == "none":
            return mapped.float()
        length = float(mapped.norm())
        if length == 0:
            raise FitError("The map sends this direction to zero: its corpus does not vary along it; use other texts.")
        wanted = (
            1.0 if rescale == "unit" else float(direction.double().norm()) * self.target_spread / self.source_spread
        )
        return (mapped * (wanted / length)).float()

    def survival(self, direction: torch.Tensor) -> float:
        """κ: the share of a direction's squared length that the map's regularisation leaves, 0 to 1.

        κ = Σ (e/(e+λ))² (vV)² / ‖v‖². Below .5 the corpus does not cover the concept.
        """
        v = direction.double()
        return float((v @ self.retained.double()).square().sum() / v.square().sum())


@dataclass(frozen=True)
class MapSet:
    """Affine maps between two models, one per pair of blocks.

    Attributes:
        source: the model that directions come from.
        target: the model that they go to.
        maps: by (source block, target block).
    """

    source: ModelRecord
    target: ModelRecord
    maps: dict[tuple[int, int], AffineMap]

    def __iter__(self) -> Iterator[AffineMap]:
        return iter(self.maps[pair] for pair in sorted(self.maps))

    def __getitem__(self, pair: tuple[int, int]) -> AffineMap:
        if pair not in self.maps:
            raise BlockError(f"There is no map from block {pair[0]} to block {pair[1]}; there are {sorted(self.maps)}.")
        return self.maps[pair]

    def map_direction(self, vector: ConceptVector, *, rescale: str = "source-relative") -> ConceptVector:
        """A concept vector of the source as one of the target, with a direction at every target block mapped to.

        Raises:
            ArtifactError: the vector is not one of the source model's.
            BlockError: the vector lacks a source block, or two maps lead to one target block.
        """
        if vector.model.fingerprint != self.source.fingerprint:
            raise ArtifactError(
                f"The vector {vector.concept!r} belongs to {vector.model.name}, but this map starts at "
                f"{self.source.name}; "
                f"refine the concept there, or fit a map from {vector.model.name}."
            )
        targets = [m.target_block for m in self]
        if len(set(targets)) != len(targets):
            raise BlockError(f"Several maps lead to one target block ({targets}); pick pairs with `select`.")
        survival = {str(m.target_block): round(m.survival(vector.direction(m.source_block)), 6) for m in self}
        return ConceptVector(
            vector.concept,
            self.target,
            {m.target_block: m.map_direction(vector.direction(m.source_block), rescale=rescale) for m in self},
            {m.target_block: m.target_spread for m in self},
            {m.target_block: m.target_norm for m in self},
            {
                "mapped_from": {"model": self.source.to_json(), "blocks": [m.source_block for m in self]},
                "map": {f"{m.source_block}>{m.target_block}": {"estimator": m.estimator, **m.info} for m in self},
                "rescale": rescale,
                "survival": survival,
                "refined": vector.provenance,
            },
        )

    def select(self, *pairs: tuple[int, int]) -> "MapSet":
        """Only the maps of these block pairs."""
        return replace(self, maps={pair: self[pair] for pair in pairs})

    def to_files(self) -> dict[str, bytes]:
        """The maps as the files of their wire format: safetensors and a JSON beside it."""
        tensors: dict[str, torch.Tensor] = {}
        entries = []
        for m in self:
            for name in _TENSORS:
                tensors[f"{m.source_block}.{m.target_block}.{name}"] = getattr(m, name).float().contiguous()
            entries.append(
                {
                    "source_block": m.source_block,
                    "target_block": m.target_block,
                    "source_spread": m.source_spread,
                    "target_spread": m.target_spread,
                    "target_norm": m.target_norm,
                    "estimator": m.estimator,
                    "info": m.info,
                }
            )
        header = {
            "format_version": FORMAT_VERSION,
            "kind": STEM,
            "source": self.source.to_json(),
            "target": self.target.to_json(),
            "maps": entries,
        }
        return {
            f"{STEM}.safetensors": save(tensors),
            f"{STEM}.json": json.dumps(header, indent=1, sort_keys=True, allow_nan=False).encode(),
        }

    @classmethod
    def from_files(cls, content: Mapping[str, bytes]) -> "MapSet":
        """Reads what `to_files` wrote.

        Raises:
            ArtifactError: a file is missing, damaged, newer than this version, or holds odd tensors.
        """
        header = read_header(dict(content), STEM, FORMAT_VERSION)
        tensors = read_tensors(dict(content), STEM)
        try:
            source, target = ModelRecord.from_json(header["source"]), ModelRecord.from_json(header["target"])
            maps = {}
            for entry in header["maps"]:
                pair = (int(entry["source_block"]), int(entry["target_block"]))
                parts = {name: tensors[f"{pair[0]}.{pair[1]}.{name}"] for name in _TENSORS}
                maps[pair] = AffineMap(
                    source_block=pair[0],
                    target_block=pair[1],
                    weight=parts["weight"],
                    bias=parts["bias"],
                    source_mean=parts["source_mean"],
                    target_mean=parts["target_mean"],
                    retained=parts["retained"],
                    source_spread=float(entry["source_spread"]),
                    target_spread=float(entry["target_spread"]),
                    target_norm=float(entry["target_norm"]),
                    estimator=str(entry["estimator"]),
                    info=dict(entry["info"]),
                )
                shape = (source.hidden_size, target.hidden_size)
                if parts["weight"].shape != shape or not all(bool(torch.isfinite(t).all()) for t in parts.values()):
                    raise ArtifactError(
                        f"The map {pair} is damaged: wrong shape or values that are not finite; fit it again."
                    )
        except (KeyError, ValueError, TypeError) as error:
            raise ArtifactError(f"The {STEM} is malformed ({error!r}); fit or pull it again.") from error
        return cls(source, target, maps)

    def save(self, folder: str | Path) -> Path:
        """Writes the maps into a folder, which is made if need be, and returns the folder."""
        return write_files(folder, self.to_files())

    @classmethod
    def load(cls, folder: str | Path) -> "MapSet":
        """Reads maps that `save` wrote.

        Raises:
            ArtifactError: they are missing, damaged or newer than this version.
        """
        return cls.from_files(read_files(folder, STEM))
