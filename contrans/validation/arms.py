"""Arms: the directions that are compared on the same items.

| arm | direction |
|---|---|
| unsteered | none |
| transplanted | the source's vector through the map |
| own | the target's own vector, refined in the target from the same texts: the reference |
| random | isotropic, of the same length, many draws |
| shuffled_map | the source's vector through a map fitted on rows that do not belong together |
| wrong_concept | another concept's transplant |
| paper | the source's vector through the paper's map (min-norm, plain truncated sentences) |
"""

import torch

ARMS = ("unsteered", "transplanted", "own", "random", "shuffled_map", "wrong_concept", "paper")
SEARCHED = ("transplanted", "own", "paper")
"""Arms whose dose is searched on dev; the controls take the dose of the transplanted arm, so equal length."""


def random_direction(width: int, seed: int, draw: int) -> torch.Tensor:
    """A unit vector [width], float32, uniform on the sphere."""
    generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
    v = torch.randn(width, generator=generator, dtype=torch.float64)
    return (v / v.norm()).float()


def wrong_concepts(concepts: list[str]) -> dict[str, str]:
    """For each concept the next one of the family, whose vector serves as its wrong-concept control."""
    return {c: concepts[(i + 1) % len(concepts)] for i, c in enumerate(concepts)}
