"""Safetensors of directions: {"block.N": [d]}, the plain format, and how such a file is read without trusting it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

from contrans.errors import ArtifactError
from contrans.exchange.foreign import MAX_BLOCKS, Foreign, collected
from contrans.exchange.shift import Shift

_MAX_HEADER = 2**20
"""Bytes; a tensor takes some 100 of them."""
_FLOATS = ("F64", "F32", "F16", "BF16")
_PICKLES = (b"\x80", b"PK", b"\x1f\x8b")  # pickle, PyTorch's zip, gzip


def write_plain(shift: Shift) -> bytes:
    """The shift as {"block.N": [d]}, with what it is in the metadata."""
    return write_named(shift, "block")


def write_named(shift: Shift, stem: str, **more: str) -> bytes:
    """The shift as {"STEM.N": [d]}.

    Args:
        shift: what it adds.
        stem: beginning of the tensors' names.
        more: further metadata.
    """
    metadata = {
        "format": "pt",
        "concept": shift.concept,
        "model": shift.model.reference,
        "fingerprint": shift.model.fingerprint,
        "model_hint": shift.model.family,
        "dose": f"{shift.dose:g}",
        "description": shift.described,
        **more,
    }
    return _serialised({f"{stem}.{b}": t for b, t in sorted(shift.blocks.items())}, metadata)


def _serialised(tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> bytes:
    # The library's own writer puts metadata in another order each time, and equal content must be equal bytes.
    header: dict[str, Any] = {"__metadata__": dict(metadata)}
    data = b""
    for name, tensor in tensors.items():
        raw = tensor.detach().cpu().float().contiguous().numpy().astype("<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, sort_keys=True).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + data


def read_safetensors(data: bytes, *, what: str) -> Foreign:
    """Reads directions whose names end in a block's number, such as "block.14" or "layer_activations.14".

    Args:
        data: the file.
        what: its name, for the message.

    Raises:
        ArtifactError: no safetensors file (a pickle, say), damaged, or with tensors that are no directions.
    """
    metadata = _checked_header(data, what)
    try:
        tensors = load(data)
    except (SafetensorError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        raise _damaged(what, str(error).partition("\n")[0][:120]) from error
    directions = collected(sorted(tensors.items()), what=what)
    hint = metadata.get("model_hint")
    known = {k: v for k, v in metadata.items() if k in ("concept", "model", "fingerprint", "dose", "description")}
    return Foreign(directions, hint, {k: v[:200] for k, v in known.items()})


def refuse_pickle(data: bytes, *, what: str) -> None:
    """Refuses a pickle, which may run code when it is read, and says what to do instead.

    Raises:
        ArtifactError: it looks like one.
    """
    if data.startswith(_PICKLES):
        raise ArtifactError(
            f"{what} is a pickle or an archive, which may run code when it is read, so it is not opened; where you "
            f'trust it, load it in the tool that made it and save {{"block.N": tensor}} with safetensors.'
        )


def _checked_header(data: bytes, what: str) -> dict[str, str]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(_MAX_HEADER, len(data) - 8):
        refuse_pickle(data, what=what)
        raise _damaged(what, "it is too short" if len(data) < 8 else f"its header claims {length:,} bytes")
    try:
        header = json.loads(data[8 : 8 + length], object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        refuse_pickle(data, what=what)
        raise _damaged(what, f"its header is not valid JSON: {str(error)[:80]}") from None
    if not isinstance(header, dict):
        raise _damaged(what, "its header is no JSON object")
    metadata = header.pop("__metadata__", {})
    if len(header) > MAX_BLOCKS:
        raise _damaged(what, f"it has {len(header):,} tensors, where one for each block is due")
    for name, entry in header.items():
        if not isinstance(entry, dict) or entry.get("dtype") not in _FLOATS:
            raise _damaged(what, f"{name[:60]!r} is no tensor of floating-point numbers")
    return {str(k): str(v) for k, v in metadata.items()} if isinstance(metadata, dict) else {}


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a tensor stands there twice")
    return found


def _damaged(what: str, why: str) -> ArtifactError:
    return ArtifactError(f"{what} cannot be read as safetensors: {why}; export it again.")
