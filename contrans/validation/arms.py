"""Arms: the directions that are compared on the same items.

| arm | direction |
|---|---|
| unsteered | none |
| transplanted | the source's vector through the map |
| own | the target's own vector, refined in the target from the same texts: the reference |
| random | isotropic, of the same length, many draws |
| shuffled_map | the source's vector through maps fitted on rows that do not belong together, several draws |
| wrong_concept | another concept's transplant |
| opposite | the transplant turned round (−α) |
| prompt | none: the concept is asked for in words |
| paper | the source's vector through the paper's map (min-norm, plain truncated sentences) |
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch  # slow, and a plan needs names alone

ARMS = (
    "unsteered",
    "transplanted",
    "own",
    "random",
    "shuffled_map",
    "wrong_concept",
    "opposite",
    "prompt",
    "paper",
)
SEARCHED = ("transplanted", "own", "paper")
"""Arms whose dose is chosen by effect on dev; the controls then take the transplanted arm's, so equal length."""
_BORROWED = ("wrong_concept", "opposite")
"""Arms that put in the transplanted arm's own shifts, for another concept or turned round."""


def random_direction(width: int, seed: int, draw: int) -> "torch.Tensor":
    """A unit vector [width], float32, uniform on the sphere."""
    import torch

    generator = torch.Generator().manual_seed(seed * 1_000_003 + draw)
    v = torch.randn(width, generator=generator, dtype=torch.float64)
    return (v / v.norm()).float()


def draw_of(arm: str, draw: int) -> str:
    """The name that a draw of an arm's directions has in `Directions.by_arm`: the arm's own for the first."""
    return arm if draw == 0 else f"{arm}.{draw}"


def wrong_concepts(concepts: list[str]) -> dict[str, str]:
    """For each concept the next one of the family, whose vector serves as its wrong-concept control."""
    return {c: concepts[(i + 1) % len(concepts)] for i, c in enumerate(concepts)}


@dataclass(frozen=True)
class Directions:
    """Directions of every arm at one block of the target.

    Attributes:
        by_arm: per arm and concept a float32 tensor [d]; arms "transplanted", "own", "shuffled_map", "paper"; further
            draws of an arm under the names that `draw_of` gives.
        residual_norm: median residual norm at the block, the unit of a dose.
        seed: of the random arm.
    """

    by_arm: Mapping[str, Mapping[str, "torch.Tensor"]]
    residual_norm: float
    seed: int = 0

    def shift(self, arm: str, concept: str, dose: float, draw: int = 0) -> "torch.Tensor":
        """What an arm adds at a dose, float32 [d]."""
        of = self.by_arm["transplanted"]
        if arm == "random":
            direction = random_direction(len(next(iter(of.values()))), self.seed, draw)
        elif arm == "wrong_concept":
            direction = of[wrong_concepts(self.concepts)[concept]]
        elif arm == "opposite":
            direction = -of[concept]
        else:
            direction = self.by_arm[draw_of(arm, draw)][concept]
        return direction / direction.norm() * (dose * self.residual_norm)

    @property
    def concepts(self) -> list[str]:
        """The concepts that are transplanted."""
        return list(self.by_arm["transplanted"])

    def n_draws(self, arm: str) -> int:
        """How many draws of directions an arm has; of random ones there is no end, and this is 1."""
        return 1 + sum(name.startswith(f"{arm}.") for name in self.by_arm)

    def steered(self, arms: Sequence[str]) -> list[str]:
        """Those of some arms that put a shift in, and that there are directions for."""
        have = {"random", "opposite", *self.by_arm, *(("wrong_concept",) if len(self.concepts) > 1 else ())}
        return [a for a in arms if a != "unsteered" and a in have]

    def searched(self, arms: Sequence[str], *, select: str) -> list[str]:
        """The arms whose dose is searched: by effect the serious ones, by KL all with shifts of their own."""
        steered = self.steered(arms)
        return [a for a in steered if a in SEARCHED or (select == "kl" and a not in _BORROWED)]
