"""Control vectors of llama.cpp, the format that repeng and EasySteer share: GGUF files of arch "controlvector".

`direction.N` is float32 [d] and is added to the output of block N, counted from 0 (llama.cpp's `il`): proven by
llama.cpp itself in tests/interop/test_llama_cpp.py. Its loader rejects a file with `direction.0`, so the first block
cannot be steered there. Its own cvector-generator writes the difference of the outputs of block N − 1 as
`direction.N`; what counts here, as there, is where it is added.
"""

import struct
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from contrans.errors import ArtifactError, SpecError
from contrans.exchange.foreign import MAX_BLOCKS, Foreign, collected
from contrans.exchange.shift import Shift

ARCH = "controlvector"
MAGIC = b"GGUF"
_STRING, _ARRAY = 8, 9
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_FLOATS: dict[int, tuple[torch.dtype, int]] = {
    0: (torch.float32, 4),
    1: (torch.float16, 2),
    28: (torch.float64, 8),
    30: (torch.bfloat16, 2),
}
_MAX_KEYS = 4096
_ALIGNMENT = 32


def write_llama_cpp(shift: Shift) -> bytes:
    """The file for `llama-cli --control-vector`.

    Raises:
        SpecError: the shift is at block 0, which llama.cpp cannot steer.
    """
    if 0 in shift.blocks:
        raise SpecError(
            "llama.cpp's control vectors begin at block 1, and this shift is at block 0; transplant at a later block, "
            "or export another format."
        )
    return write_gguf(shift)


def write_gguf(shift: Shift, **more: str) -> bytes:
    """A GGUF control vector, as `ControlVector.import_gguf` of repeng and EasySteer read it too.

    Args:
        shift: what it adds.
        more: further keys under "controlvector".
    """
    from gguf import GGUFWriter

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vector.gguf"
        writer = GGUFWriter(path, ARCH)
        writer.add_description(shift.described)
        writer.add_string(f"{ARCH}.model_hint", shift.model.family)
        writer.add_uint32(f"{ARCH}.layer_count", len(shift.blocks))
        for key, value in more.items():
            writer.add_string(f"{ARCH}.{key}", value)
        for block, tensor in sorted(shift.blocks.items()):
            writer.add_tensor(f"direction.{block}", tensor.float().contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        return path.read_bytes()


def read_gguf(data: bytes, *, what: str) -> Foreign:
    """Reads a GGUF control vector from a source that need not be trusted.

    Args:
        data: the file.
        what: its name, for the message.

    Raises:
        ArtifactError: no GGUF control vector, cut short, or with tensors that are no directions.
    """
    if not data.startswith(MAGIC):
        raise ArtifactError(f"{what} is not a GGUF file; pass what repeng, EasySteer or llama.cpp exported.")
    cursor = _Cursor(data, what)
    version, n_tensors, n_keys = cursor.take("I", 4), cursor.take("Q", 8), cursor.take("Q", 16)
    if version not in (2, 3):
        raise ArtifactError(f"{what} has GGUF version {version}; versions 2 and 3 are read, so export it again.")
    if n_keys > _MAX_KEYS or n_tensors > MAX_BLOCKS:
        raise ArtifactError(f"{what} claims {n_keys:,} keys and {n_tensors:,} tensors, so it is no control vector.")
    cursor.position = 24
    keys: dict[str, Any] = {}
    for _ in range(n_keys):
        key = cursor.text()
        if key in keys:
            raise ArtifactError(f"{what} has the key {key[:60]!r} twice, so it is damaged.")
        keys[key] = cursor.value(cursor.next("I"))
    arch = keys.get("general.architecture")
    if arch != ARCH:
        raise ArtifactError(
            f'{what} has the architecture {str(arch)[:40]!r} where "{ARCH}" is due: it is no control vector, maybe a '
            f"whole model."
        )
    tensors = [cursor.tensor_info() for _ in range(n_tensors)]
    odd = [name for name, *_ in tensors if not name.startswith("direction.")]
    if odd:
        raise ArtifactError(
            f"{what} has a tensor {odd[0][:60]!r}, where `direction.N` is due: it is no control vector."
        )
    alignment = keys.get("general.alignment", _ALIGNMENT)
    if not isinstance(alignment, int) or not 0 < alignment <= 2**16:
        raise ArtifactError(f"{what} has an alignment of {str(alignment)[:20]}, so it is damaged.")
    start = cursor.position + -cursor.position % alignment
    directions = collected(((t[0], cursor.tensor(start, *t)) for t in tensors), what=what)
    count = keys.get(f"{ARCH}.layer_count")
    if isinstance(count, int) and count != len(directions):
        raise ArtifactError(
            f"{what} is to hold {count} directions and holds {len(directions)}: some blocks are missing; "
            f"export it again."
        )
    hint = keys.get(f"{ARCH}.model_hint")
    plain = {k.removeprefix(f"{ARCH}."): v for k, v in keys.items() if k.startswith(f"{ARCH}.")}
    facts = {
        k: v for k, v in plain.items() if isinstance(v, str | int | float) and k not in ("model_hint", "layer_count")
    }
    return Foreign(directions, hint if isinstance(hint, str) else None, _jsonable(facts))


class _Cursor:
    """Reads little-endian values one after the other, and never past the end."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.position = data, what, 4

    def take(self, code: str, position: int) -> Any:
        size = struct.calcsize(f"<{code}")
        if position + size > len(self.data):
            raise ArtifactError(f"{self.what} ends in the middle: it was cut short; fetch or export it again.")
        return struct.unpack_from(f"<{code}", self.data, position)[0]

    def next(self, code: str) -> Any:
        value = self.take(code, self.position)
        self.position += struct.calcsize(f"<{code}")
        return value

    def skip(self, length: int) -> bytes:
        if length > len(self.data) - self.position:
            raise ArtifactError(f"{self.what} ends in the middle: it was cut short; fetch or export it again.")
        self.position += length
        return self.data[self.position - length : self.position]

    def text(self) -> str:
        return self.skip(self.next("Q")).decode("utf-8", "replace")

    def value(self, kind: int) -> Any:
        if kind == _STRING:
            return self.text()
        if kind == _ARRAY:
            return self._array()
        if kind not in _SCALARS:
            raise ArtifactError(f"{self.what} has a value of the unknown type {kind}, so it is damaged.")
        return self.next(_SCALARS[kind])

    def _array(self) -> None:
        """Passes an array over: a control vector needs none."""
        kind, count = self.next("I"), self.next("Q")
        if kind in _SCALARS:
            self.skip(count * struct.calcsize(f"<{_SCALARS[kind]}"))
        elif kind == _STRING:
            if count * 8 > len(self.data):
                raise ArtifactError(f"{self.what} ends in the middle: it was cut short; fetch or export it again.")
            for _ in range(count):
                self.skip(self.next("Q"))
        else:
            raise ArtifactError(f"{self.what} has an array of the type {kind}, which no control vector has.")

    def tensor_info(self) -> tuple[str, list[int], int, int]:
        name, n_dims = self.text(), self.next("I")
        if n_dims > 4:
            raise ArtifactError(f"{self.what} has a tensor of {n_dims} dimensions, so it is damaged.")
        return name, [self.next("Q") for _ in range(n_dims)], self.next("I"), self.next("Q")

    def tensor(self, start: int, name: str, shape: list[int], kind: int, offset: int) -> torch.Tensor:
        if kind not in _FLOATS:
            raise ArtifactError(f"{self.what} has {name[:60]!r} as type {kind}; export it as float32.")
        dtype, width = _FLOATS[kind]
        count = 1
        for length in shape:  # not np.prod, which overflows
            count *= length
        if not shape or count == 0 or start + offset + count * width > len(self.data):
            raise ArtifactError(
                f"{self.what} ends before {name[:60]!r} does: it was cut short; fetch or export it again."
            )
        raw = np.frombuffer(self.data, dtype=np.uint8, count=count * width, offset=start + offset).copy()
        # GGUF lists dimensions from the innermost to the outermost
        return torch.from_numpy(raw).view(dtype).reshape(shape[::-1])


def _jsonable(facts: dict[str, Any]) -> dict[str, str | int | float]:
    finite = {k: v for k, v in facts.items() if not isinstance(v, float) or np.isfinite(v)}
    return {k[:60]: v[:200] if isinstance(v, str) else v for k, v in list(finite.items())[:40]}
