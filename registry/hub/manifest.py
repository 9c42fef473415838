"""`contrans.json`, the manifest of a published concept: what the files beside it are, and how they came to be.

A repository is of one transplant's name, and a tag `v3` is its version 3. The manifest is the root of trust: it
gives size and SHA-256 of every other file, and `content`, a hash over itself. The card is for people and stands
outside of it.
"""

import json
import re
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from contrans.errors import RegistryError
from contrans.hashing import digest
from contrans.models import ModelRecord
from registry.names import check_name

FORMAT_VERSION = 1
NEEDS = "0.1.0"  # the first version of contrans that reads this format
MANIFEST = "contrans.json"
TENSORS = "model.safetensors"
CARD = "README.md"
MAX_MANIFEST = 8 * 2**20  # bytes
_FIGURE = re.compile(r"figures/[A-Za-z0-9._/-]+\.png")
_EXPORT = re.compile(r"exports/[A-Za-z0-9._/-]+\.(gguf|pt|safetensors|yaml)")
_OUTSIDE_CONTENT = ("content", "library_versions")


def _name(value: str) -> str:
    try:
        return check_name(value)
    except RegistryError as error:
        raise ValueError(str(error)) from error


def _file(value: str) -> str:
    if value != TENSORS and not any(kind.fullmatch(_name(value)) for kind in (_FIGURE, _EXPORT)):
        raise ValueError(f"it lists {value[:80]!r}, but only {TENSORS} and figures/*.png or exports/* belong there")
    return value


def _segment(value: str) -> str:
    if "/" in _name(value):
        raise ValueError(f"{value[:80]!r} is no name of a model")
    return value


Text = Annotated[str, Field(max_length=2000)]
Name = Annotated[str, AfterValidator(_name)]
FileName = Annotated[str, AfterValidator(_file)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Block = Annotated[str, Field(pattern=r"^(0|[1-9][0-9]{0,3})$")]
Scale = Annotated[float, Field(gt=0)]


class _Part(BaseModel):
    # Unknown keys are let through, so that a later version may add some without a new format.
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore", allow_inf_nan=False)


class FileEntry(_Part):
    """Size in bytes and SHA-256 of a file."""

    size: Annotated[int, Field(ge=0)]
    sha256: Sha256


class Registered(_Part):
    """A version of the publisher's registry."""

    kind: Annotated[str, Field(max_length=16)]
    name: Name
    number: Annotated[int, Field(ge=1)]
    digest: Sha256

    @property
    def ref(self) -> str:
        """The reference "name@number"."""
        return f"{self.name}@{self.number}"


class ModelEntry(_Part):
    """A model that a vector lives in; see `contrans.models.ModelRecord`."""

    reference: Text
    name: Annotated[str, AfterValidator(_segment)]
    revision: Text | None
    fingerprint: Text
    family: Text
    hidden_size: Annotated[int, Field(ge=1, le=2**20)]
    n_blocks: Annotated[int, Field(ge=1, le=9999)]
    licence: Text | None
    dtype: Text
    base_model: Text | None = None

    def record(self) -> ModelRecord:
        """The entry as `contrans` knows models."""
        return ModelRecord.from_json(self.model_dump())


class BlockEntry(_Part):
    """A direction: its tensor in `model.safetensors` (float32 [hidden_size]) and the scales of its block."""

    tensor: Name
    spread: Scale
    residual_norm: Scale


class VectorEntry(_Part):
    """A concept vector in one model's space: the source's own, or a transplant.

    Attributes:
        registered: the version that it is.
        model: the model that it lives in.
        blocks: its directions, by block.
        block: the block it is to be put in, for a transplant.
        dose: the dose that dev items chose, in median norms of the residual stream.
        provenance: settings, text hashes and diagnostics, as `ConceptVector.provenance`.
    """

    registered: Registered
    model: ModelEntry
    blocks: Annotated[dict[Block, BlockEntry], Field(min_length=1)]
    block: Annotated[int, Field(ge=0)] | None = None
    dose: float | None = None
    provenance: dict[str, Any]

    @model_validator(mode="after")
    def _blocks_of_the_model(self) -> Self:
        if max(map(int, self.blocks)) >= self.model.n_blocks:
            raise ValueError(f"{self.model.name} has {self.model.n_blocks} blocks, but a direction is at a later one")
        if self.block is not None and str(self.block) not in self.blocks:
            raise ValueError(f"the block {self.block} of {self.registered.ref} has no direction")
        return self


class ResultEntry(_Part):
    """One number of a validation; see `registry.Result`."""

    concept: Text
    protocol: Text
    split: Text
    arm: Text
    metric: Text
    dose: float | None
    value: float | None
    low: float | None
    high: float | None
    n: Annotated[int, Field(ge=0, lt=2**31)] | None


class ValidationEntry(_Part):
    """A validation of one of the transplants: its settings, its numbers with intervals, its figures."""

    registered: Registered
    of: Annotated[str, Field(max_length=220)]
    protocol: Text
    settings: dict[str, Any]
    results: list[ResultEntry]
    figures: list[FileName]


class Split(_Part):
    """A set of texts that something here was made from or judged by; the texts themselves are not published."""

    registered: Registered
    hash: Text
    split: Text | None
    n_texts: Annotated[int, Field(ge=0)] | None
    licence: Text | None
    roles: list[Text]


class Ancestor(_Part):
    """A version in the lineage, with its settings and the digests of its inputs by role."""

    registered: Registered
    inputs: dict[Text, Sha256]
    settings: dict[str, Any]


class Manifest(_Part):
    """The manifest; `content` is a hash over all but itself and the library versions."""

    format_version: int
    needs_contrans: Text
    concept: Name
    description: Text | None
    registered: Registered
    source: VectorEntry
    transplants: Annotated[list[VectorEntry], Field(min_length=1, max_length=64)]
    validations: Annotated[list[ValidationEntry], Field(max_length=1024)]
    splits: list[Split]
    lineage: list[Ancestor]
    files: Annotated[dict[FileName, FileEntry], Field(max_length=2048)]
    library_versions: dict[Text, Text]
    content: Sha256

    @classmethod
    def sealed(cls, **parts: Any) -> Self:
        """A manifest of this format, with its own hash."""
        unsealed = cls(format_version=FORMAT_VERSION, needs_contrans=NEEDS, content="0" * 64, **parts)
        return unsealed.model_copy(update={"content": content_hash(unsealed.model_dump(mode="json"))})

    @property
    def tag(self) -> str:
        """The tag of the version: "v3"."""
        return f"v{self.registered.number}"

    @property
    def vectors(self) -> list[VectorEntry]:
        """The source's vector and the transplants."""
        return [self.source, *self.transplants]

    def to_bytes(self) -> bytes:
        """The manifest as the file `contrans.json`."""
        text = json.dumps(self.model_dump(mode="json"), indent=1, sort_keys=True, ensure_ascii=False, allow_nan=False)
        return text.encode() + b"\n"

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if TENSORS not in self.files:
            raise ValueError(f"it lists no {TENSORS}")
        names = [block.tensor for vector in self.vectors for block in vector.blocks.values()]
        if len(set(names)) != len(names):
            raise ValueError("two directions share a tensor")
        models = [vector.model.name for vector in self.transplants]
        if len(set(models)) != len(models):
            raise ValueError("two transplants are for models of one name")
        if any(figure not in self.files for validation in self.validations for figure in validation.figures):
            raise ValueError("a validation shows a figure that is not among the files")
        return self


def content_hash(found: dict[str, Any]) -> str:
    """SHA-256, in hex, over a manifest's JSON without `content` and the library versions."""
    return digest({key: value for key, value in found.items() if key not in _OUTSIDE_CONTENT})
