"""The parts of a pipeline as flows of their own: refine, align, transplant.

Each runs the steps of a spec that it needs, and what another run has done is not done again: a refined concept, an
aligned pair and a whole pipeline share all that they have in common, whichever comes first.
"""

import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from prefect import flow

from contrans.errors import ContransError
from flows.pipeline import prepare_models, register, run_all, run_steps
from flows.registering import Until
from flows.serving.forms import Settings, Spec, read
from flows.serving.showing import Progress, begin_run, leave_assets, leave_results
from flows.serving.slots import gpu_slot
from flows.session import Session, current, run_session, watched, watching
from flows.spec import PipelineSpec
from flows.tracking import Tracker

_HOUR = 3600.0
TRANSPLANT_GOALS = ("figure",)
"""Calibrated, validated and drawn: all but what is measured beside the protocol."""


class Untracked(Tracker):
    """Notes nothing, and connects to nothing: vectors and maps have no numbers to compare."""

    def __init__(self) -> None:
        self.told = {}

    def track(self, *_: Any, **__: Any) -> None:
        """Notes nothing."""


@flow(name="refine", timeout_seconds=6 * _HOUR)
def refine(spec: Spec = "quickstart", settings: Settings = []) -> dict[str, Any]:  # noqa: B006  it is a form's default
    """Refines a spec's concepts in its source model and registers the vectors.

    Their manifests name the block where the concepts are told apart best; which one is transplanted from, only what
    they do in a target tells.

    Args:
        spec: Name of a spec that ships, path of a YAML file where the worker runs, or the spec itself as JSON.
        settings: Settings over those of the spec, KEY=VALUE each, such as refine.pairs=20.

    Returns:
        `spec`, `timings`, `versions`, `steps` and `run`, as `flows.results` describes them.

    Raises:
        ContransError: The spec, the model, a text or the registry cannot be used.
    """
    return run_stage(
        read(spec, settings), lambda session: _part(session, ("refine · source",), "vector"), tracker=Untracked()
    )


@flow(name="align", timeout_seconds=24 * _HOUR)
def align(spec: Spec = "quickstart", settings: Settings = []) -> dict[str, Any]:  # noqa: B006
    """Fits the maps from a spec's source into its target and registers them.

    Args:
        spec: Name of a spec that ships, path of a YAML file where the worker runs, or the spec itself as JSON.
        settings: Settings over those of the spec, KEY=VALUE each, such as validate.random_draws=5.

    Returns:
        As for `refine`.

    Raises:
        ContransError: As for `refine`.
    """
    return run_stage(read(spec, settings), lambda session: _part(session, ("fit maps",), "map"), tracker=Untracked())


@flow(name="transplant", timeout_seconds=48 * _HOUR)
def transplant(spec: Spec = "quickstart", settings: Settings = []) -> dict[str, Any]:  # noqa: B006
    """Calibrates the dose of a spec's transplants, validates every arm, registers and tracks what came out.

    What the spec measures beside its protocol (`contrans run` does) is left out.

    Args:
        spec: Name of a spec that ships, path of a YAML file where the worker runs, or the spec itself as JSON.
        settings: Settings over those of the spec, KEY=VALUE each, such as validate.random_draws=5.

    Returns:
        The document that `flows.results` describes.

    Raises:
        ContransError: As for `refine`.
    """
    found = run_stage(read(spec, settings), lambda session: run_all(session, goals=TRANSPLANT_GOALS))
    show(found)
    return found


def show(found: dict[str, Any]) -> None:
    """Leaves a pipeline's tables and its figure on the server."""
    figure = found["run"]["figure"]
    leave_results(found, Path(figure).read_bytes() if figure else None)


def run_stage(
    spec: PipelineSpec, work: Callable[[Session], dict[str, Any]], *, tracker: Tracker | None = None
) -> dict[str, Any]:
    """Does some work of a spec as a server sees it: with tags, progress, assets, and a GPU for itself.

    Args:
        spec: What it is about.
        work: What is done.
        tracker: Notes the run; MLflow by default.

    Returns:
        What the work gives.
    """
    begin_run([f"spec:{spec.name}", *(f"concept:{Path(concept).stem}" for concept in spec.concepts)])
    progress = Progress(lambda: len(current().steps), watching())

    def shown(session: Session) -> dict[str, Any]:
        found = work(session)
        leave_assets(session.registry.run_versions(session.run_id), session.registry)
        return found

    with gpu_slot(spec.compute.device), watched(progress, tracker or Tracker()):
        return run_session(spec.canonical(), shown)


def _part(session: Session, goals: Collection[str], until: Until) -> dict[str, Any]:
    models = prepare_models()
    run_steps(session, models, {}, goals=goals)
    versions = register(models, until)
    found = {
        "spec": session.spec.canonical(),
        "timings": session.timings,
        "versions": [version.as_json() for version in versions],
        "steps": {
            "computed": list(session.computed),
            "cached": [name for name in session.steps if name not in session.computed],
        },
        "run": {"id": session.run_id, "spec_hash": session.spec.hash, "flow_run_id": session.flow_run_id},
    }
    try:
        (session.folder / "results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    except OSError as error:
        raise ContransError(f"The results cannot be written to {session.folder} ({error.strerror}).") from error
    return found
