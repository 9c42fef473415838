"""Scoring transplants again: the same directions, doses and items, on whatever the target's weights are now."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from contrans.errors import RegistryError
from contrans.models import ModelRecord
from contrans.validation.outcomes import FILE, Outcomes
from contrans.validation.rows import Row, gain_recovered, gain_rows, mcnemar_rows, rows_of
from contrans.validation.shares import merged, n_counted
from flows.judging import items, protocol
from flows.spec import PipelineSpec
from flows.study import study
from registry import Registry, Result, Version

if TYPE_CHECKING:
    from contrans.models import Model
    from contrans.validation.arms import Directions
    from contrans.validation.shares import ConceptHits

ARMS = ("unsteered", "transplanted", "own")


@dataclass(frozen=True)
class Judged:
    """A transplant of the registry with the validation that judged it when it was made.

    Attributes:
        transplant: the transplant.
        validation: its first validation that a pipeline made: the fixed baseline.
        spec: the spec of that pipeline.
    """

    transplant: Version
    validation: Version
    spec: PipelineSpec

    @property
    def concept(self) -> str:
        """The concept."""
        return self.validation.manifest["concept"]


@dataclass(frozen=True)
class Rescored:
    """What one scoring of several transplants found.

    Attributes:
        target: the model that was scored.
        rows: all rows, over the concepts that were scored together.
        outcomes: what was right on each item, so that two scorings are compared item by item.
    """

    target: ModelRecord
    rows: list[Row]
    outcomes: Outcomes


def judged(registry: Registry, transplant: Version) -> Judged:
    """A transplant with its baseline and its spec.

    Raises:
        RegistryError: no pipeline validated it here, as after an import from the Hub.
    """
    for validation in _validations(registry, transplant):
        runs = registry.runs(version=validation)
        if "revalidation" not in validation.manifest and runs:
            return Judged(transplant, validation, PipelineSpec.model_validate(runs[0].spec))
    raise RegistryError(
        f"{transplant.ref} was validated by no pipeline of this registry, so there is nothing to compare with; run its "
        "spec here first."
    )


def scorings(registry: Registry, one: Judged) -> list[Version]:
    """The validations that scored a transplant again, the earliest first; each holds the outcomes of its items."""
    return [version for version in _validations(registry, one.transplant) if "revalidation" in version.manifest]


def rescore(
    registry: Registry,
    together: Sequence[Judged],
    target: Model,
    *,
    tick: Callable[[int], None] = lambda _: None,
) -> Rescored:
    """Scores transplants of one spec and one block on the test items of their protocol.

    The directions, their doses and the residual norm that doses are shares of are those of the registry, so that what
    is put in is the same to the last digit; only the target's weights may differ.

    Args:
        registry: has the directions.
        together: the transplants.
        target: the target as it is now.
        tick: called with tokens done.

    Raises:
        ContransError: a text or a direction cannot be read, or the block does not exist any more.
    """
    from contrans.states.precision import resolve_precision
    from contrans.validation.fluency import FluencyMeter
    from contrans.validation.pricing import mean_kl
    from contrans.validation.scorer import Scorer

    first = together[0]
    spec, manifest = first.spec, first.validation.manifest
    block: int = manifest["choice"]["target_block"]
    source = ModelRecord.from_json(_input(registry, _input(registry, first.transplant, "vector"), "model").manifest)
    asked = study(spec, source, target.record)
    directions = _directions(registry, together, block, spec.seed)
    precision = resolve_precision(spec.compute.precision, target.device)
    scored = protocol(asked, target, "test", block, precision)
    meter = FluencyMeter(target, block, asked.generic.texts, precision=precision)
    score = Scorer(scored, directions, tick)
    doses: Mapping[str, float] = manifest["doses"]
    hits: dict[str, ConceptHits] = {}
    rows: list[Row] = []
    for arm in ARMS:
        if arm != "unsteered" and arm not in directions.by_arm:
            continue
        dose = None if arm == "unsteered" else doses[arm]
        hits[arm] = merged([score.hits(arm, dose)])
        rows += rows_of(scored, hits[arm], "test", arm, dose, seed=spec.seed, bootstrap=True)
        if dose is None:
            continue
        rows += gain_rows(scored, hits, arm, dose, seed=spec.seed)
        rows += mcnemar_rows(scored, hits, arm, dose)
        kl = mean_kl(meter, directions, arm, dose, tick)
        rows.append(Row("all", scored.name, "generic", arm, "kl", dose, kl, None, None, meter.n_tokens))
    if "own" in hits:
        rows += _gains(scored.name, scored.effect, scored.n_items, hits, doses["transplanted"], spec.seed)
    return Rescored(
        target.record,
        rows,
        Outcomes.of(scored.effect, items(asked, "test").names, hits),
    )


def register_rescored(
    registry: Registry, one: Judged, found: Rescored, *, night: str, run_id: str | None = None
) -> Version:
    """Registers what a scoring found of one transplant, as the next version under the name of its validation.

    Nothing is overwritten: the baseline and every night stay. The same numbers of the same night are one version.

    Args:
        registry: where it goes.
        one: the transplant.
        found: of `rescore`.
        night: the date, ISO 8601.
        run_id: the run to link it to.
    """
    concept, base = one.concept, one.validation.manifest
    target = registry.register("model", found.target.name, manifest=found.target.to_json(), run_id=run_id)
    was = _input(registry, one.transplant, "target")
    inputs = {"transplant": one.transplant, "baseline": one.validation, "target": target}
    if "own" in found.outcomes.arms:
        inputs["own"] = _input(registry, one.validation, "own")
    return registry.register(
        "validation",
        one.validation.name,
        manifest={
            "protocol": base["protocol"],
            "effect": found.outcomes.effect,
            "split": "test",
            "concept": concept,
            "doses": {arm: dose for arm, dose in base["doses"].items() if arm in found.outcomes.arms},
            "choice": base["choice"],
            "summary": _summary(found.outcomes.effect, found.rows, concept),
            "seed": base["seed"],
            "revalidation": {
                "of": one.validation.ref,
                "night": night,
                "fingerprint": found.target.fingerprint,
                "revision": found.target.revision,
                "changed": found.target.fingerprint != was.manifest["fingerprint"],
            },
        },
        files={FILE: json.dumps(found.outcomes.only(concept).to_json()).encode()},
        inputs=inputs,
        results=[Result(**asdict(row)) for row in found.rows if row.concept in (concept, "all")],
        run_id=run_id,
    )


def _directions(registry: Registry, together: Sequence[Judged], block: int, seed: int) -> Directions:
    from contrans.concepts import ConceptVector
    from contrans.maps.affine import MapSet
    from contrans.validation.arms import Directions

    def vector(version: Version) -> Any:
        names = ("concept_vector.safetensors", "concept_vector.json")
        return ConceptVector.from_files({name: registry.read(version, name) for name in names}).direction(block)

    by_arm: dict[str, dict[str, Any]] = {"transplanted": {j.concept: vector(j.transplant) for j in together}}
    if all("own" in j.validation.manifest["doses"] for j in together):
        by_arm["own"] = {j.concept: vector(_input(registry, j.validation, "own")) for j in together}
    fitted = _input(registry, together[0].transplant, "map")
    names = ("affine_map.safetensors", "affine_map.json")
    maps = MapSet.from_files({name: registry.read(fitted, name) for name in names})
    norm = maps[together[0].validation.manifest["choice"]["source_block"], block].target_norm
    return Directions(by_arm, norm, seed)


def _validations(registry: Registry, transplant: Version) -> list[Version]:
    """All validations made with a transplant, the earliest first."""
    made = registry.lineage(transplant, "down", depth=1).children(transplant)
    return sorted((version for _, version in made if version.kind == "validation"), key=lambda v: v.number)


def _input(registry: Registry, version: Version, role: str) -> Version:
    found = next((p for r, p in registry.lineage(version, "up", depth=1).parents(version) if r == role), None)
    if found is None:
        raise RegistryError(f"{version.ref} has no {role!r} among its inputs, so it cannot be scored again.")
    return found


def _gains(
    name: str, effect: str, n_items: int, hits: Mapping[str, ConceptHits], dose: float, seed: int
) -> Iterator[Row]:
    """Gain recovered, over all concepts and for each, where the own vector gains something significant."""
    concepts = list(hits["own"][effect])
    for concept in ["all", *concepts]:
        of = concepts if concept == "all" else [concept]
        value, low, high = gain_recovered(hits, effect, of, n_items, seed)
        if value is None:
            continue
        n = n_counted(hits["own"][effect], of)
        yield Row(concept, name, "test", "transplanted", "gain_recovered", dose, value, low, high, n)


def _summary(effect: str, rows: Sequence[Row], concept: str) -> dict[str, Any]:
    """What a pipeline's validation says in its manifest too, see `flows.registering`."""
    found: dict[str, Any] = {"gain_recovered": None, "gain_recovered_of_concept": None}
    for row in rows:
        value = {"value": row.value, "low": row.low, "high": row.high}
        if row.concept == "all" and row.metric in (effect, "gain_recovered"):
            found[row.arm if row.metric == effect else row.metric] = value
        elif row.concept == concept and row.metric == "gain_recovered":
            found["gain_recovered_of_concept"] = value
    return found
