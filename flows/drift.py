"""Did a transplant lose what it had? A night's scores against the baseline of each, and what is done about a loss."""

import json
import logging
from collections.abc import Sequence

from contrans.validation.drift import LEVEL, Change, changes
from contrans.validation.outcomes import FILE, Outcomes, paired
from registry import Registry, Version

log = logging.getLogger(__name__)

REGRESSED = "regressed"
"""The tag of a transplant whose last scores are significantly below its baseline."""
EVENT = "contrans.transplant.regressed"
"""Prefect's event of a loss, which an automation can wait for."""
_MARGIN = 0.02


def compare(
    registry: Registry,
    scored: Sequence[tuple[Version, Version]],
    *,
    arm: str = "transplanted",
    level: float = LEVEL,
    margin: float = _MARGIN,
) -> list[Change]:
    """A night's validations against their baselines, item by item.

    The p-values are adjusted over all of them, so that a night on which nothing changed raises an alarm with a chance
    of at most `level`, however many transplants were scored.

    Args:
        registry: has the validations.
        scored: a baseline and the new validation of the same transplant, for each transplant.
        arm: the arm to compare.
        level: of the night.
        margin: least change that counts, in units of the effect.

    Returns:
        What became of each, in the same order, under the baseline's reference.

    Raises:
        ContransError: two validations cannot be compared.
    """
    pairs = {}
    for baseline, now in scored:
        concept = baseline.manifest["concept"]
        before, after = (Outcomes.from_json(json.loads(registry.read(v, FILE))) for v in (baseline, now))
        pairs[baseline.ref] = paired(before, after, arm, concept)
    return changes(pairs, level=level, margin=margin)


def note(registry: Registry, transplant: Version, validation: Version, change: Change) -> None:
    """Writes down what became of a transplant: its tag in the registry, and for a loss a warning and an event.

    Args:
        registry: has the transplant.
        transplant: the one that was scored again.
        validation: its new scores.
        change: what became of it.
    """
    if change.verdict != "worse":
        registry.untag(transplant, REGRESSED)
        return
    registry.tag(transplant, REGRESSED)
    log.warning("%s has lost some of its effect. %s.", transplant.ref, change.words)
    from prefect.events import emit_event

    emit_event(
        EVENT,
        resource={
            "prefect.resource.id": f"contrans.transplant.{transplant.name}",
            "prefect.resource.name": transplant.ref,
            "contrans.concept": str(validation.manifest["concept"]),
        },
        payload={"transplant": transplant.ref, "validation": validation.ref, **change.to_json()},
    )
