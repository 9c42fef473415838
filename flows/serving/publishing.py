"""Publishing from a server: what somebody may have to approve first, through the UI or the API."""

from datetime import timedelta
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.input.actions import create_flow_run_input, read_flow_run_input
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import Field

from flows.retrying import RETRIES
from flows.runs import open_registry
from flows.serving.forms import Days, Repository, Transplant
from flows.serving.showing import begin_run
from flows.serving.slots import deployed
from registry import Registry, Version
from registry.hub import publish as send

_KEY = "approval"
_PINNED = "contrans-version"
_POLL_SECONDS = 2
REJECTED = "Rejected"
"""Name of the state of a run whose publication was not approved; nothing failed."""


class Approval(RunInput):
    """Whether a transplant may be published."""

    approve: bool = Field(default=False, description="Whether it may be published.")
    note: str = Field(default="", max_length=2000, description="Why; it is kept with the run.")


@task(name="send", cache_policy=NO_CACHE, **RETRIES)
def send_version(ref: str, to: str, options: dict[str, Any]) -> dict[str, Any]:
    """Publishes a version, see `registry.hub.publish`."""
    with open_registry() as registry:
        return send(registry, ref, to, **options).as_json()


@flow(name="publish")
def publish(
    name: Transplant,
    to: Repository,
    targets: list[str] = [],  # noqa: B006  a form's default
    private: bool = False,
    licence: str | None = None,
    dry_run: bool = False,
    ask: bool = False,
    days: Days = 7,
) -> Any:
    """Publishes a transplant with its evidence to the Hub. Publishing the same again changes nothing.

    With `ask` the run stops until it is resumed with an `Approval`; a deployed one occupies no worker meanwhile. What
    is published is the version that was asked about, wherever its alias points by then.

    Args:
        name: The transplant: NAME, NAME@version or NAME@alias in the registry.
        to: Repository of the Hub, ORG/NAME; made if need be.
        targets: Further models whose transplants of the same vector go along; "all" for all there are.
        private: Whether a new repository is private.
        licence: Identifier of the Hub; by default that of its parts.
        dry_run: Whether to check everything and send nothing.
        ask: Whether somebody must approve first.
        days: How long an answer is waited for.

    Returns:
        `published` (whether it is on the Hub now), `version`, `note`, and `publication` as `registry.hub.Publication`
        gives it, or null. A run that was not approved ends as completed under the name "Rejected".

    Raises:
        ContransError: There is no such transplant, or the Hub refuses.
    """
    with open_registry() as registry:
        version = _pinned(registry, name)
        text = _question(registry, version, to)
    begin_run([f"transplant:{version.name}", f"hub:{to}"])
    options = {"targets": targets, "private": private, "licence": licence}
    answer = Approval(approve=True)
    if ask:
        # What cannot be published is not asked about.
        send_version(version.ref, to, {**options, "dry_run": True})
        answer = _asked(text, timedelta(days=days))
    found: dict[str, Any] = {"published": False, "version": version.ref, "note": answer.note, "publication": None}
    if not answer.approve:
        create_markdown_artifact(f"{text}\n\n**Not approved.** {answer.note}", key="contrans-publication")
        return Completed(name=REJECTED, message=f"{version.ref} was not approved. {answer.note}".strip(), data=found)
    done = send_version(version.ref, to, {**options, "dry_run": dry_run})
    if not dry_run:
        create_link_artifact(done["url"], link_text=f"{version.ref} on the Hub", key="contrans-publication-link")
    return {**found, "published": not dry_run, "publication": done}


def _pinned(registry: Registry, name: str) -> Version:
    """The version that a run is about; the same when the run begins again after it was suspended."""
    if flow_run.get_id() is None:
        return registry.get(name, "transplant")
    known = read_flow_run_input(_PINNED)
    if known is not None:
        return registry.get(str(known), "transplant")
    version = registry.get(name, "transplant")
    create_flow_run_input(_PINNED, version.ref)
    return version


def _question(registry: Registry, version: Version, to: str) -> str:
    lines = [f"Publish `{version.ref}` to `{to}`?", ""]
    for validation in registry.validations(version):
        lines.append(f"- validation `{validation.ref}`")
        for key, found in validation.manifest.get("summary", {}).items():
            if isinstance(found, dict) and key in ("unsteered", "transplanted", "own", "gain_recovered"):
                lines.append(f"    - {key.replace('_', ' ')}: {_number(found)}")
    return "\n".join(lines)


def _number(found: dict[str, Any]) -> str:
    if found.get("value") is None:
        return "–"
    interval = "" if found.get("low") is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['value']:.3f}{interval}"


def _asked(text: str, patience: timedelta) -> Approval:
    form = Approval.with_initial_data(description=text)
    seconds = round(patience.total_seconds())
    if deployed():
        return suspend_flow_run(wait_for_input=form, timeout=seconds, key=_KEY)
    return pause_flow_run(wait_for_input=form, timeout=seconds, poll_interval=_POLL_SECONDS, key=_KEY)
