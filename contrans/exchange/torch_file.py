"""`.pt` files, for the tools that know nothing else: written plainly, and read only where they hold one tensor."""

import io
import pickle
import pickletools
import zipfile

import torch

from contrans.errors import ArtifactError
from contrans.exchange.tensors import refuse_pickle

_STORAGES = ("FloatStorage", "DoubleStorage", "HalfStorage", "BFloat16Storage")
_ALLOWED = {"torch._utils _rebuild_tensor_v2", "collections OrderedDict", *(f"torch {name}" for name in _STORAGES)}
_MAX_PROGRAM = 2**14
"""Bytes of the pickle that says how a tensor is put together; it takes some 200."""


def saved(value: object) -> bytes:
    """A value as `torch.save` writes it; of plain tensors and numbers, so that weights_only=True reads it."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def read_one_tensor(data: bytes, *, what: str) -> torch.Tensor:
    """Reads a file of `torch.save` that holds one tensor, and opens none that holds anything else.

    The pickle in it is taken apart before anything runs: it may name the four floating-point storages and the function
    that makes a tensor of one, and nothing else. Then PyTorch's own restricted reader reads it.

    Args:
        data: the file.
        what: its name, for the message.

    Raises:
        ArtifactError: it holds anything else, or is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            packed = any(e.compress_type != zipfile.ZIP_STORED or e.file_size > len(data) for e in entries)
            programs = [e for e in entries if e.filename.endswith(".pkl")]
            if packed or len(programs) != 1 or programs[0].file_size > _MAX_PROGRAM:
                refuse_pickle(data, what=what)
            program = archive.read(programs[0])
        named = _names_in(program)
    except (zipfile.BadZipFile, NotImplementedError, ValueError, IndexError, OSError, EOFError, RuntimeError) as error:
        refuse_pickle(data, what=what)
        raise ArtifactError(f"{what} is no file that torch.save wrote; export it again.") from error
    if not named <= _ALLOWED:
        refuse_pickle(data, what=what)
    try:
        tensor = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, ValueError, TypeError, KeyError, IndexError, AttributeError, EOFError, OSError,
            OverflowError, AssertionError, pickle.UnpicklingError) as error:  # fmt: skip
        raise ArtifactError(f"{what} is damaged, so PyTorch cannot read it; export it again.") from error
    if not isinstance(tensor, torch.Tensor) or not tensor.is_floating_point() or tensor.layout != torch.strided:
        raise ArtifactError(f"{what} holds no tensor of floating-point numbers; save the vector of one block in it.")
    # A stride of 0 makes a tensor of any size out of one number.
    if tensor.numel() * tensor.element_size() > len(data):
        raise ArtifactError(f"{what} claims {tensor.numel():,} values and holds fewer, so it is damaged.")
    return tensor


def _names_in(program: bytes) -> set[str]:
    """Everything importable that a pickle names; anything else that could make an object is a ValueError."""
    named: set[str] = set()
    for opcode, argument, _ in pickletools.genops(program):
        if opcode.name == "GLOBAL":
            named.add(str(argument))
        elif opcode.name in ("STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"):
            named.add(opcode.name)
    return named
