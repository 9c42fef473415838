"""What does every arm write after the same prompts? Free generations side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.table import Table

from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.validation.generation import Progress, Sampling, Shifts, continue_prompts
from contrans.validation.grids import Grid
from contrans.validation.text_measures import LIMITS, Limits, flaw_of


@dataclass(frozen=True)
class Sample:
    """One prompt's continuation under one arm.

    Attributes:
        prompt: the prompt.
        arm: what was added.
        text: what the model wrote.
        flaw: "empty", "copied" or "degenerate" if the text is one of these, else "".
        n_tokens: new tokens.
    """

    prompt: str
    arm: str
    text: str
    flaw: str
    n_tokens: int


@dataclass(frozen=True)
class Samples:
    """What every arm wrote after the same prompts.

    Attributes:
        samples: prompt by prompt, in each the arms in their order.
        settings: how the text was generated.
    """

    samples: list[Sample]
    settings: dict[str, Any]

    @property
    def arms(self) -> list[str]:
        """The arms, in order."""
        return list(dict.fromkeys(s.arm for s in self.samples))

    def rows(self) -> list[dict[str, Any]]:
        """One JSON object per prompt and arm."""
        return [asdict(s) for s in self.samples]

    def to_json(self) -> dict[str, Any]:
        """Rows and settings."""
        return {"settings": self.settings, "rows": self.rows()}

    def table(self) -> Table:
        """A rich table: a row per prompt, a column per arm."""
        return self._grid().rich()

    def markdown(self) -> str:
        """A markdown table: a row per prompt, a column per arm."""
        return self._grid().markdown_table() + "\n"

    def _grid(self) -> Grid:
        arms = self.arms
        by_prompt = (self.samples[i : i + len(arms)] for i in range(0, len(self.samples), len(arms)))
        rows = tuple((of_one[0].prompt, *map(_shown, of_one)) for of_one in by_prompt)
        return Grid("Free generation", ("prompt", *arms), rows, prose=True)


def side_by_side(
    model: Model,
    prompts: Sequence[str],
    shifts: Mapping[str, Shifts | None],
    *,
    positions: str = "all",
    max_new_tokens: int = 60,
    batch_size: int = 16,
    seed: int = 0,
    sampling: Sampling | None = None,
    limits: Limits = LIMITS,
    special_tokens: bool = True,
    progress: Progress | None = None,
) -> Samples:
    """Lets every arm continue the same prompts, from the same random draws where tokens are sampled.

    Args:
        model: the model that writes.
        prompts: what it continues.
        shifts: per arm its shift, [d] per block; None for the unsteered model.
        positions: where the shift is added.
        max_new_tokens: most tokens of a continuation.
        batch_size: prompts in one batch.
        seed: of sampling.
        sampling: how tokens are drawn; None for greedy decoding.
        limits: from where on a text is marked as copied or degenerate.
        special_tokens: whether the tokenizer puts its BOS before; False for a chat template's text.
        progress: called after every batch of every arm.

    Raises:
        SpecError: there are no arms.
        TextError: there are no prompts, one is empty, or one is too long.
    """
    if not shifts:
        raise SpecError("There are no arms to set side by side; name at least one, such as unsteered.")
    if not prompts:
        raise TextError("There are no prompts to continue; give at least one.")
    written = {
        arm: continue_prompts(
            model,
            prompts,
            shift=shift,
            positions=positions,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            seed=seed,
            sampling=sampling,
            special_tokens=special_tokens,
            progress=progress,
        )
        for arm, shift in shifts.items()
    }
    samples = []
    for i, prompt in enumerate(prompts):
        for arm, texts in written.items():
            one = texts[i]
            samples.append(Sample(prompt, arm, one.text, flaw_of(one, limits=limits), len(one.ids)))
    settings = {
        "model": model.name,
        "positions": positions,
        "max_new_tokens": max_new_tokens,
        "seed": seed,
        "sampling": None if sampling is None else asdict(sampling),
    }
    return Samples(samples, settings)


def _shown(sample: Sample) -> str:
    mark = f"({sample.flaw}) " if sample.flaw else ""
    return f"{mark}{sample.text.strip()}".rstrip()
