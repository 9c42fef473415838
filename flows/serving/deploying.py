"""What `deployments/prefect.yaml` says, brought about on a server: work pools, limits, deployments and automations.

The file is one that `prefect deploy --all` reads too; pools and limits stand under its `definitions`.
"""

from collections.abc import Mapping
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from contrans.errors import ContransError, SpecError
from flows.spec.sentences import Place, sentence

if TYPE_CHECKING:
    from prefect import Flow
    from prefect.client.orchestration import SyncPrefectClient

FILE = Path("deployments") / "prefect.yaml"
SILENT_AFTER = timedelta(minutes=10)
"""After how long a run that gives no sign of life is taken for dead; it gives one every three minutes."""
_SILENT = "contrans: move runs that fell silent"


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Pool(_Strict):
    """A work pool."""

    type: str = "process"
    description: str = ""
    concurrency_limit: Annotated[int, Field(ge=1)] | None = None


class Definitions(_Strict):
    """What deployments need."""

    work_pools: dict[str, Pool] = {}
    concurrency_limits: dict[str, Annotated[int, Field(ge=1)]] = {}


class Schedule(_Strict):
    """When a deployment runs by itself."""

    cron: str
    timezone: str = "UTC"
    slug: str
    active: bool = True


class WorkPool(_Strict):
    """Where a deployment runs."""

    name: str
    job_variables: dict[str, Any] = {}


class Deployment(_Strict):
    """A flow with its parameters, where it runs and when."""

    name: str
    entrypoint: Annotated[str, Field(pattern=r"^[\w.]+$")]
    description: str | None = None
    tags: list[str] = []
    parameters: dict[str, Any] = {}
    work_pool: WorkPool
    schedules: list[Schedule] = []
    concurrency_limit: Annotated[int, Field(ge=1)] | None = None

    def flow(self) -> "Flow[..., Any]":
        """The flow that it runs."""
        module, _, name = self.entrypoint.rpartition(".")
        try:
            return getattr(import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise SpecError(f"The deployment {self.name} names {self.entrypoint}, which there is not.") from error


class Deployments(BaseModel):
    """The file; keys that only `prefect deploy` knows are left to it."""

    definitions: Definitions = Definitions()
    deployments: list[Deployment]


def find_file(file: Path | None = None) -> Path:
    """The file of deployments: the one named, else that of this folder, else the one beside the package.

    Raises:
        SpecError: There is none.
    """
    places = [file] if file is not None else [Path.cwd() / FILE, Path(__file__).resolve().parents[2] / FILE]
    for place in places:
        if place.is_file():
            return place
    raise SpecError(f"There is no file {places[0]}; name the file of the deployments with --file.")


def read_file(path: Path) -> Deployments:
    """Reads a file of deployments.

    Raises:
        SpecError: It is not valid.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SpecError(f"{path} cannot be read as YAML ({str(error).splitlines()[0]}); correct it.") from error
    try:
        found = Deployments.model_validate(values)
    except ValidationError as error:
        raise SpecError(sentence(error, {}, Place(str(path)))) from error
    for deployment in found.deployments:
        if deployment.work_pool.name not in found.definitions.work_pools:
            raise SpecError(
                f"{path}: the deployment {deployment.name} runs in the work pool {deployment.work_pool.name}, which "
                "definitions.work_pools does not have; add it."
            )
    return found


def deploy(wanted: Deployments, *, many_machines: bool = True) -> list[str]:
    """Brings a file about on the server that is configured; what is there already is brought up to date.

    Args:
        wanted: The file.
        many_machines: Whether an automation moves runs of a machine that fell silent to another one.

    Returns:
        The deployments, each as "flow/name".

    Raises:
        ContransError: The server cannot be reached or refuses.
    """
    import httpx
    from prefect import get_client
    from prefect.exceptions import PrefectException

    try:
        with get_client(sync_client=True) as client:
            for name, pool in wanted.definitions.work_pools.items():
                _make_pool(client, name, pool)
            for name, limit in wanted.definitions.concurrency_limits.items():
                client.upsert_global_concurrency_limit_by_name(name, limit)
            made = [_make_deployment(one) for one in wanted.deployments]
            if many_machines:
                _make_automation(client)
    except (httpx.HTTPError, PrefectException, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ContransError(
            f"The deployments could not be registered at the server ({reason}); check PREFECT_API_URL."
        ) from error
    return made


def _make_pool(client: "SyncPrefectClient", name: str, pool: Pool) -> None:
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound

    try:
        client.read_work_pool(name)
    except ObjectNotFound:
        new = WorkPoolCreate(name=name, base_job_template=_template(pool.type), **pool.model_dump())
        client.create_work_pool(new)
    else:
        update = WorkPoolUpdate(description=pool.description, concurrency_limit=pool.concurrency_limit)
        client.update_work_pool(name, update)


def _template(kind: str) -> dict[str, Any]:
    if kind != "process":
        raise SpecError(f"A work pool of type {kind} is made with `prefect work-pool create`; here it is process.")
    from prefect.workers.process import ProcessWorker

    return ProcessWorker.get_default_base_job_template()


def _make_deployment(one: Deployment) -> str:
    from prefect.schedules import Cron
    from prefect.types.entrypoint import EntrypointType

    flow = one.flow()
    runner: Any = flow.to_deployment(
        name=one.name,
        schedules=[Cron(s.cron, timezone=s.timezone, slug=s.slug, active=s.active) for s in one.schedules],
        concurrency_limit=one.concurrency_limit,
        parameters=one.parameters,
        description=one.description,
        tags=one.tags,
        work_pool_name=one.work_pool.name,
        job_variables=one.work_pool.job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    runner.apply()
    return f"{flow.name}/{one.name}"


def _make_automation(client: "SyncPrefectClient") -> None:
    """Puts a run whose machine is gone back into its queue: another worker goes on with what is not done."""
    from prefect.automations import AutomationCore
    from prefect.client.schemas.objects import StateType
    from prefect.events.actions import ChangeFlowRunState
    from prefect.events.schemas.automations import EventTrigger, Posture
    from prefect.events.schemas.events import ResourceSpecification

    wanted = AutomationCore(
        name=_SILENT,
        description="A deployed run that gives no sign of life is scheduled again; its steps that are done stay done.",
        trigger=EventTrigger(
            posture=Posture.Proactive,
            match=ResourceSpecification.model_validate({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=_deployed_resources(),
            for_each={"prefect.resource.id"},
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},  # the end of a run too, after which none is expected
            threshold=1,
            within=SILENT_AFTER,
        ),
        actions=[
            ChangeFlowRunState(
                name="AwaitingRetry", state=StateType.SCHEDULED, force=True, message="It gave no sign of life."
            )
        ],
    )
    for known in client.read_automations_by_name(_SILENT):
        client.update_automation(known.id, wanted)
        return
    client.create_automation(wanted)


def _deployed_resources() -> Any:
    from prefect.events.schemas.events import ResourceSpecification

    specification: Mapping[str, str] = {
        "prefect.resource.role": "deployment",
        "prefect.resource.id": "prefect.deployment.*",
    }
    return ResourceSpecification.model_validate(specification)
