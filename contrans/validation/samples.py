"""What does every arm write after the same prompts? Free generations side by side."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from contrans.errors import SpecError, TextError
from contrans.models import Model
from contrans.validation.generation import Progress, Sampling, Shifts, continue_prompts
from contrans.validation.samples_result import Sample, Samples
from contrans.validation.text_measures import LIMITS, Limits, flaw_of

__all__ = ["Sample", "Samples", "by_concept", "side_by_side"]


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


def by_concept(
    model: Model, prompts: Sequence[str], shifts: Mapping[str, Mapping[str, Shifts]], **settings: Any
) -> Samples:
    """`side_by_side` for several concepts, beside what the unsteered model writes, which is asked only once.

    Args:
        model: the model that writes.
        prompts: what it continues.
        shifts: per concept the shift of each arm.
        settings: as for `side_by_side`.

    Raises:
        SpecError: there are no concepts, or one has no arms.
        TextError: as for `side_by_side`.
    """
    if not shifts:
        raise SpecError("There are no concepts to set side by side; name at least one.")
    plain = side_by_side(model, prompts, {"unsteered": None}, **settings)
    samples: list[Sample] = []
    for concept, arms in shifts.items():
        found = side_by_side(model, prompts, arms, **settings).samples
        for i, unsteered in enumerate(plain.samples):
            of_prompt = [unsteered, *found[i * len(arms) : (i + 1) * len(arms)]]
            samples += [replace(s, concept=concept) for s in of_prompt]
    return Samples(samples, plain.settings)
