"""Vectors of EasyEdit2: a folder with one `layer_N.pt` for each block, and the settings of its CAA applier beside."""

import re
from collections.abc import Mapping

import yaml

from contrans.errors import ArtifactError
from contrans.exchange.foreign import MAX_BLOCKS, Foreign, collected
from contrans.exchange.shift import Shift
from contrans.exchange.torch_file import read_one_tensor, saved

SETTINGS = "apply_caa.yaml"
_FILE = re.compile(r"(layer_[0-9]{1,4})\.pt")


def write_easyedit2(shift: Shift) -> dict[str, bytes]:
    """The folder's files; EasyEdit2 adds `layer_N.pt` to the output of block N, counted from 0, at every token."""
    blocks = sorted(shift.blocks)
    settings = {"alg_name": "caa", "layers": blocks, "multipliers": [1.0] * len(blocks)}
    files = {f"layer_{b}.pt": saved(shift.blocks[b].float().contiguous()) for b in blocks}
    return files | {SETTINGS: yaml.safe_dump(settings, sort_keys=False).encode()}


def read_easyedit2(files: Mapping[str, bytes], *, what: str) -> Foreign:
    """Reads the `layer_N.pt` files of a folder, each of which must hold one tensor and nothing else.

    Args:
        files: the folder's files by name; others are left alone.
        what: its name, for the message.

    Raises:
        ArtifactError: there is none, or one is damaged or holds anything else.
    """
    found = {match[1]: name for name in files if (match := _FILE.fullmatch(name))}
    if not found or len(found) > MAX_BLOCKS:
        raise ArtifactError(f"{what} has no `layer_N.pt`; pass the folder that EasyEdit2 wrote its vectors to.")
    tensors = [(stem, read_one_tensor(files[name], what=f"{what}/{name}")) for stem, name in sorted(found.items())]
    return Foreign(collected(tensors, what=what))
