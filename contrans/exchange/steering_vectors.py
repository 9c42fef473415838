"""Vectors of the package steering-vectors, which has no file format of its own but pickles: here as safetensors."""

from contrans.exchange.shift import Shift
from contrans.exchange.tensors import write_named

STEM = "layer_activations"


def write_steering_vectors(shift: Shift) -> bytes:
    """{"layer_activations.N": [d]}, from which `SteeringVector` is made in one line; N counts blocks from 0."""
    return write_named(shift, STEM, layer_type="decoder_block")
