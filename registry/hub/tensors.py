r"""`model.safetensors` of a published concept: which names its tensors have, and what is refused in it.

`source.block.{l}` is the direction of the source's own vector at block l, `target.{model}.block.{l}` the one of the
transplant for a model, both float32 [hidden_size] and unnormalised.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from contrans.errors import ArtifactError
from registry.hub.manifest import TENSORS, Manifest, VectorEntry

if TYPE_CHECKING:
    import torch

    from contrans.concepts import ConceptVector

MAX_TENSORS = 2**30  # bytes
_MAX_HEADER = 2**22  # bytes; a tensor takes some 100 of them
_PICKLES = (b"\x80", b"PK", b"\x1f\x8b")  # pickle, PyTorch's zip, gzip


def source_tensor(block: int) -> str:
    """The name of a direction of the source's own vector."""
    return f"source.block.{block}"


def target_tensor(model: str, block: int) -> str:
    """The name of a direction of a transplant."""
    return f"target.{model}.block.{block}"


def pack(vectors: Mapping[str, "ConceptVector"]) -> bytes:
    """Puts vectors into one file.

    Args:
        vectors: by the beginning of their tensors' names: "source" or "target.{model}".
    """
    from safetensors.torch import save

    tensors = {
        f"{stem}.block.{b}": v.direction(b).float().contiguous() for stem, v in vectors.items() for b in v.blocks
    }
    return save(tensors, metadata={"format": "pt"})


def expected_size(manifest: Manifest) -> int:
    """Bytes that the tensors of a manifest take, without their header."""
    return sum(4 * vector.model.hidden_size * len(vector.blocks) for vector in manifest.vectors)


def check_size(manifest: Manifest, *, what: str) -> None:
    """Refuses a tensor file that is larger than what it has to hold, before it is fetched.

    Raises:
        ArtifactError: it is.
    """
    size, due = manifest.files[TENSORS].size, expected_size(manifest)
    if due > MAX_TENSORS or not due + 8 <= size <= due + 8 + _MAX_HEADER:
        raise ArtifactError(
            f"{TENSORS} of {what} is to be {size:,} bytes long, which does not fit the {due:,} bytes of its tensors "
            f"(at most {MAX_TENSORS:,}); do not use it."
        )


def read_tensors(data: bytes, manifest: Manifest, *, what: str) -> dict[str, "torch.Tensor"]:
    """Reads the tensors from a source that need not be trusted.

    Returns:
        Exactly the tensors that the manifest names, each float32 [hidden_size], finite and not zero.

    Raises:
        ArtifactError: the file is not the manifest's, no safetensors file, or holds other tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    check_size(manifest, what=what)
    _check_hash(data, manifest, what)
    shapes = {b.tensor: vector.model.hidden_size for vector in manifest.vectors for b in vector.blocks.values()}
    _check_header(data, shapes, what)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise _damaged(what, str(error).partition("\n")[0][:120]) from error
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor).all()) or not bool(tensor.any()):
            raise _damaged(what, f"{name} holds values that are not finite, or nothing but zeros")
    return tensors


def vector_of(entry: VectorEntry, concept: str, tensors: Mapping[str, "torch.Tensor"]) -> "ConceptVector":
    """Puts a vector of a manifest together."""
    from contrans.concepts import ConceptVector

    blocks = {int(block): part for block, part in entry.blocks.items()}
    return ConceptVector(
        concept,
        entry.model.record(),
        {block: tensors[part.tensor] for block, part in blocks.items()},
        {block: part.spread for block, part in blocks.items()},
        {block: part.residual_norm for block, part in blocks.items()},
        entry.provenance,
    )


def _check_hash(data: bytes, manifest: Manifest, what: str) -> None:
    entry = manifest.files[TENSORS]
    if len(data) != entry.size:
        raise _damaged(what, f"it is {len(data):,} bytes long where {entry.size:,} are due")
    found = hashlib.sha256(data).hexdigest()
    if found != entry.sha256:
        raise _damaged(what, f"its SHA-256 is {found[:12]}… where {entry.sha256[:12]}… is due")


def _check_header(data: bytes, shapes: Mapping[str, int], what: str) -> None:
    length = int.from_bytes(data[:8], "little")
    if length > min(_MAX_HEADER, len(data) - 8):
        if data.startswith(_PICKLES):
            raise _damaged(what, "it is a pickle or an archive, which may run code when it is read")
        raise _damaged(what, f"its header claims {length:,} bytes")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise _damaged(what, f"its header is not valid JSON: {str(error)[:80]}") from None
    if not isinstance(header, dict):
        raise _damaged(what, "its header is no JSON object")
    header.pop("__metadata__", None)
    if header.keys() != shapes.keys():
        odd = sorted(header.keys() ^ shapes.keys())[0]
        raise _damaged(what, f"it and the manifest do not name the same tensors ({odd[:80]!r})")
    for name, width in shapes.items():
        entry = header[name]
        if not isinstance(entry, dict) or entry.get("dtype") != "F32" or entry.get("shape") != [width]:
            raise _damaged(what, f"{name} is not F32 [{width}]")


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key stands there twice")
    return found


def _damaged(what: str, why: str) -> ArtifactError:
    return ArtifactError(f"{TENSORS} of {what} cannot be trusted: {why}; do not use it.")
