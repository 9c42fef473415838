"""What may not be claimed: from the numbers of arms to a sentence that says why not, and what to do about it.

Each function judges one claim and returns its finding, or None where all is well.
"""

from collections.abc import Sequence

from contrans.validation.finding import Finding
from contrans.validation.statistics import power_note
from contrans.validation.wording import listed, percent, shown, spoken

CONTROLS = ("random", "shuffled_map", "wrong_concept", "opposite")
"""Arms that must not do what the transplant does."""


def below_chance(metric: str, high: float, chance: float) -> Finding | None:
    """Whether the unsteered model is worse than guessing, which is the prompt's fault more often than the model's.

    Args:
        metric: what it was scored by.
        high: upper end of its interval.
        chance: what guessing scores.
    """
    if high >= chance:
        return None
    return Finding(
        "below_chance",
        "warning",
        f"The unsteered model is below chance in {spoken(metric)} (at most {percent(high)}, guessing scores "
        f"{percent(chance)}), so it misreads the prompt, and an arm may gain by mending that alone. Use a prompt for "
        f"base models, such as the question-and-answer primer.",
    )


def not_significant(effect: str, cases: Sequence[str], n: int | None = None) -> Finding | None:
    """Says that the transplant's effect is not proven, for the mean or for some concepts.

    Args:
        effect: the metric.
        cases: what is not proven, each in words, such as "fear (p = 0.21)"; none is no finding.
        n: items behind each, for a note on what they can see; None for a metric that is no share.
    """
    if not cases:
        return None
    power = f"{power_note(n)}; score" if n else "Score"
    return Finding(
        "not_significant",
        "warning",
        f"Not significant: the transplant's change of {spoken(effect)} for {listed(cases)}. {power} more items, or "
        f"raise the dose within its KL budget.",
    )


def wrong_way(effect: str, cases: Sequence[str]) -> Finding | None:
    """Says that the transplant significantly lowers the effect, for the mean or for some concepts, each in words."""
    if not cases:
        return None
    return Finding(
        "wrong_way",
        "failure",
        f"The transplant lowers {spoken(effect)} instead of raising it, for {listed(cases)}. Check the sides of the "
        f"contrast set, and lower the dose.",
    )


def control_does_as_well(low: float, rivals: Sequence[str]) -> Finding | None:
    """Says that directions which are not the concept's do the same.

    Args:
        low: lower end of the transplant's interval.
        rivals: each control that does, in words, such as "random (0.49 in the mean, p = 0.07)"; none is no finding.
    """
    if not rivals:
        return None
    return Finding(
        "control_does_as_well",
        "failure",
        f"The effect is not the concept's own: {listed(rivals)} {'do' if len(rivals) > 1 else 'does'} as well as the "
        f"transplant (from {shown(low)}). Do not claim a transplant; look for another block pair or a corpus that "
        f"covers the concept.",
    )


def control_moves(
    effect: str,
    control: str,
    gain: str,
    *,
    alarms: float | None = None,
    selective: bool = True,
    selectivity: str | None = None,
) -> Finding:
    """Says that a control significantly raises the effect above the unsteered model's, though less than the transplant.

    Args:
        effect: the metric.
        control: its arm.
        gain: its gain over the unsteered model, in words with its interval.
        alarms: the share of its draws, if it has several, that raise it significantly by themselves.
        selective: whether it raises the selectivity too, as far as the protocol has one.
        selectivity: its gain of selectivity likewise.
    """
    raised = f"The control {spoken(control)} raises {spoken(effect)} too, by {gain}"
    if alarms is not None:
        raised += f"; by itself {percent(alarms)} of its draws would pass for significant"
    if selective:
        return Finding(
            "control_moves", "warning", f"{raised}. So much of the effect is not the concept's own; take it off."
        )
    return Finding(
        "control_moves",
        "note",
        f"{raised}. It does not raise the selectivity ({selectivity}): it disturbs the model, which then gives all "
        f"wrong labels more often, and carries no concept. Read the transplant's selectivity beside its effect.",
    )


def own_gains_nothing(concepts: Sequence[str] = ()) -> Finding | None:
    """Says that the target's own vector gains nothing, so that there is nothing to recover.

    Args:
        concepts: for which of them; none is no finding.
    """
    if not concepts:
        return None
    return Finding(
        "own_gains_nothing",
        "warning",
        f"The target's own vector gains nothing significant for {listed(concepts)}, so no share of it can be given. "
        f"Steer another block, or take items on which the target can be moved.",
    )


def side_effect(protocol: str, metrics: Sequence[str]) -> Finding | None:
    """Says that the transplant costs the target something that it should keep.

    Args:
        protocol: what measured it.
        metrics: what became significantly worse, each in words with its values; none is no finding.
    """
    if not metrics:
        return None
    return Finding(
        "side_effect",
        "warning",
        f"The transplant costs the target {spoken(protocol)}: {listed(metrics)}. Lower the dose, or choose it under a "
        f"KL budget.",
    )
