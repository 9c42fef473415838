"""Re-validation: published transplants scored again on the newest revision of the model that they were made for."""

import logging
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from prefect import flow, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.runtime import flow_run

from contrans.errors import ContransError
from contrans.hashing import digest
from contrans.models import resolve
from contrans.validation.drift import Change
from contrans.validation.outcomes import FILE
from flows.drift import compare, note
from flows.retrying import RETRIES
from flows.runs import alive, open_registry
from flows.serving.forms import Night, Transplant
from flows.serving.rescoring import Judged, judged, register_rescored, rescore
from flows.serving.showing import begin_run
from flows.serving.slots import gpu_slot
from flows.session import noted
from flows.tracking import Tracker, note_of_night
from registry import Registry, Version
from registry.hub import publications

if TYPE_CHECKING:
    from contrans.models import Model
    from flows.spec import Compute

log = logging.getLogger(__name__)
_HOUR = 3600.0


class _Targets:
    """The target that was used last, since transplants for one model come one after another."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] | None = None
        self._model: Model | None = None

    def get(self, reference: str, compute: "Compute") -> "Model":
        key = (reference, compute.device, compute.device_map)
        if self._model is None or self._key != key:
            from contrans.models import load_model

            self._model = None  # before the next one takes its memory
            self._model = load_model(reference, device=compute.device, device_map=compute.device_map)
            self._key = key
        return self._model


@flow(name="revalidate", timeout_seconds=24 * _HOUR)
def revalidate(
    transplants: list[Transplant] = [],  # noqa: B006  a form's default
    night: Night | None = None,
) -> dict[str, Any]:
    """Scores transplants again against the newest revision of their target; what was scored before stays.

    The directions and doses are those that were registered, the items those that were tested then, so that a change of
    a score is a change of the model. Each transplant gets one more validation, with how right each item is.

    Args:
        transplants: Which ones, NAME, NAME@version or NAME@alias each; none for all that are published.
        night: The date that the scores are noted under, such as 2026-01-31; today's by default.

    Returns:
        `night`, and `scored`: for each transplant its `transplant`, `baseline` and `validation` as references, whether
        the target's weights `changed`, the `summary`, and the `drift`: what became of the effect, see
        `contrans.validation.drift`; null where the baseline did not keep what was right on each item.

    Raises:
        ContransError: A transplant cannot be scored, after all others were.
    """
    night = night or f"{datetime.now(UTC):%Y-%m-%d}"
    begin_run([f"night:{night}"])
    failures = list[str]()
    with open_registry() as registry:
        every = _judged(registry, transplants, failures)
        entries = _night(registry, every, night, failures) if every else []
    _raise_for(failures)
    return {"night": night, "scored": entries}


def _night(registry: Registry, every: list[Judged], night: str, failures: list[str]) -> list[dict[str, Any]]:
    """Scores transplants again as one run of the registry and of MLflow, and says of each what became of it."""
    started, tracker, own = time.time(), Tracker(), str(flow_run.get_id())
    run_id = f"revalidate-{night}-{own[:8]}"
    asked = {"night": night, "transplants": [one.transplant.ref for one in every]}
    targets, scored = _Targets(), list[tuple[Judged, Version]]()
    with (
        alive(run_id, registry),
        noted(registry, run_id, spec=asked, spec_hash=digest(asked), flow_run_id=own),
    ):
        for together in grouped(every):
            try:
                versions = _score_again(registry, together, targets, night, run_id)
            except ContransError as error:
                failures.append(f"{together[0].transplant.ref}: {error}")
                continue
            scored += zip(together, versions, strict=True)
        changes = _changes(registry, scored)
        entries = [_entry(one, version, changes.get(version.ref)) for one, version in scored]
        if entries:
            _leave_table(entries, night)
            note = note_of_night(night, entries, started=started, ended=time.time(), run_id=run_id, flow_run_id=own)
            mlflow_run_id = tracker.note(note)
            if mlflow_run_id is not None:
                registry.link_mlflow(run_id, mlflow_run_id)
        _raise_for(failures)
    return entries


def _raise_for(failures: list[str]) -> None:
    if failures:
        raise ContransError(f"{len(failures)} of the transplants could not be scored again, the first is {failures[0]}")


def chosen(registry: Registry, transplants: Iterable[str]) -> list[Version]:
    """The transplants of some references; of none, all that were published from this registry.

    Raises:
        RegistryError: there is no such transplant.
    """
    named = [registry.get(reference, "transplant") for reference in transplants]
    return named or [version for version in registry.list("transplant") if publications(registry, version)]


def grouped(every: Iterable[Judged]) -> list[list[Judged]]:
    """Transplants that are scored together: those of one spec and one block, by target so that each is loaded once."""
    groups: dict[tuple[str, str, int], list[Judged]] = {}
    for one in every:
        choice = one.validation.manifest["choice"]
        groups.setdefault((one.spec.target, one.spec.hash, choice["target_block"]), []).append(one)
    return [groups[key] for key in sorted(groups)]


def newest(reference: str) -> str:
    """A model's reference without the revision that a spec pinned."""
    return resolve(reference).text


def _score_again(
    registry: Registry, together: list[Judged], targets: _Targets, night: str, run_id: str
) -> list[Version]:
    """Scores transplants that share a spec and a block, and registers a validation of each, as a task."""
    spec = together[0].spec

    # Without parameters, since Prefect would look through models and specs for results of other tasks.
    @task(name=f"score {spec.name} again", cache_policy=NO_CACHE, **RETRIES)
    def score() -> list[Version]:
        with gpu_slot(spec.compute.device):
            found = rescore(registry, together, targets.get(newest(spec.target), spec.compute))
        return [register_rescored(registry, one, found, night=night, run_id=run_id) for one in together]

    return score()


def _judged(registry: Registry, transplants: list[str], failures: list[str]) -> list[Judged]:
    found = []
    for version in dict.fromkeys(chosen(registry, transplants)):
        try:
            found.append(judged(registry, version))
        except ContransError as error:
            failures.append(f"{version.ref}: {error}")
    if not found and not failures:
        log.warning("No transplant was published from this registry, so there is nothing to score again.")
    return found


def _changes(registry: Registry, scored: list[tuple[Judged, Version]]) -> dict[str, Change]:
    """What became of each transplant, by its new validation, over all of the night at once; written down too."""
    comparable = [(one, now) for one, now in scored if FILE in registry.files(one.validation)]
    found = compare(registry, [(one.validation, now) for one, now in comparable])
    for (one, now), change in zip(comparable, found, strict=True):
        note(registry, one.transplant, now, change)
    return {now.ref: change for (_, now), change in zip(comparable, found, strict=True)}


def _entry(one: Judged, version: Version, change: Change | None) -> dict[str, Any]:
    return {
        "transplant": one.transplant.ref,
        "baseline": one.validation.ref,
        "validation": version.ref,
        "changed": version.manifest["revalidation"]["changed"],
        "summary": version.manifest["summary"],
        "drift": None if change is None else change.to_json(),
    }


def _leave_table(scored: list[dict[str, Any]], night: str) -> None:
    rows = []
    for entry in scored:
        values = {key: (found or {}).get("value") for key, found in entry["summary"].items()}
        drift = entry["drift"]["words"] if entry["drift"] else "not comparable"
        rows.append({key: entry[key] for key in ("transplant", "validation", "changed")} | values | {"drift": drift})
    create_table_artifact(rows, key="contrans-revalidation", description=f"Scored again, {night}")
