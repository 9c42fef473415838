"""The directions of registered vectors as arrays, read without torch, and what they say of each other."""

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load

from contrans.errors import RegistryError
from registry.browse.facts import VECTOR_FILES
from registry.browse.reading import Reader
from registry.records import Version

Array = NDArray[np.float64]


def blocks_of(registry: Reader, version: Version) -> dict[int, Array]:
    """The direction at each block, float64 [d]; empty for what is no vector.

    Raises:
        RegistryError: If the file is missing from the store or damaged.
    """
    if VECTOR_FILES[1] not in registry.files(version):
        return {}
    try:
        tensors = load(registry.read(version, VECTOR_FILES[1]))
        return {int(name.removeprefix("block.")): t.astype(np.float64) for name, t in tensors.items()}
    except (SafetensorError, ValueError, TypeError) as error:
        raise RegistryError(f"The tensors of {version} cannot be read; make or pull it again.") from error


def cosine(first: Array | None, second: Array | None) -> float:
    """Cosine of two directions [d]; nan where one is zero or not there."""
    if first is None or second is None:
        return float("nan")
    lengths = float(np.linalg.norm(first) * np.linalg.norm(second))
    return float(first @ second) / lengths if lengths else float("nan")


def cosines(directions: Array) -> Array:
    """Cosine of every direction with every other, [k, k] from [k, d]; directions of length 0 have cosines of 0."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.where(lengths > 0, lengths, 1.0)
    return unit @ unit.T


def plane(directions: Array) -> tuple[Array, tuple[float, float]]:
    """The first two principal components of unit directions about their mean: [k, 2], and the shares of variance."""
    lengths = np.linalg.norm(directions, axis=1, keepdims=True)
    unit = directions / np.where(lengths > 0, lengths, 1.0)
    centred = unit - unit.mean(0)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    kept = np.zeros((len(directions), 2))
    k = min(2, len(values))
    kept[:, :k] = left[:, :k] * values[:k]
    total = float((values**2).sum()) or 1.0
    shares = [float(v**2) / total for v in values[:2]]
    return kept, (shares[0] if shares else 0.0, shares[1] if len(shares) > 1 else 0.0)
