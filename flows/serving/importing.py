"""A published concept into the registry, as a flow."""

from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact
from prefect.cache_policies import NO_CACHE

from flows.retrying import RETRIES
from flows.runs import open_registry
from flows.serving.forms import Repository
from flows.serving.showing import begin_run, leave_assets
from registry.hub import fetch


@task(name="pull", cache_policy=NO_CACHE, **RETRIES)
def pull_concept(repo: str, target: str | None, allow_mismatch: bool) -> dict[str, Any]:
    """Pulls a concept, checks every hash and registers it, see `registry.hub.fetch`."""
    with open_registry() as registry:
        found = fetch(repo, target=target, allow_mismatch=allow_mismatch, registry=registry)
        if found.version is not None:
            leave_assets([found.version], registry)
        return found.as_json()


@flow(name="import-from-hub", timeout_seconds=3600)
def import_from_hub(repo: Repository, target: str | None = None, allow_mismatch: bool = False) -> dict[str, Any]:
    """Pulls a published concept, checks every hash, and registers it with where it came from.

    Args:
        repo: Repository of the Hub: ORG/NAME, ORG/NAME@tag or ORG/NAME@commit.
        target: The model to put it into; none for the source's own vector.
        allow_mismatch: Whether a transplant for other weights of the target will do.

    Returns:
        What was pulled, as `registry.hub.Pulled` gives it.

    Raises:
        ContransError: The Hub cannot be reached or does not hold it, or what it holds is damaged.
    """
    begin_run([f"hub:{repo.partition('@')[0]}"])
    found = pull_concept(repo, target, allow_mismatch)
    link = f"https://huggingface.co/{found['repo']}/tree/{found['commit']}"
    create_link_artifact(link, link_text=f"{found['repo']} at {found['commit'][:12]}", key="contrans-origin")
    return found
