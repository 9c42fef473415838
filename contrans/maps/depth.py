"""Which block lies at which relative depth."""

SOURCE_DEPTH, TARGET_DEPTH = 0.9, 0.78
"""Relative depths of the blocks taken where none are named."""


def block_at(depth: float, n_blocks: int) -> int:
    """The block (0-based) at a relative depth of 0 to 1."""
    return min(max(round(depth * n_blocks), 0), n_blocks - 1)
