"""Runs of pipelines: their ids elsewhere, their state, and the versions they made."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from contrans.errors import RegistryError
from registry.names import check_name, plain_json
from registry.records import Run
from registry.schema import RunRow, RunVersionRow
from registry.writing import insert_all_missing, insert_missing

STATES = ("running", "completed", "failed", "cancelled", "crashed")


def start(
    session: Session,
    run_id: str,
    *,
    flow_run_id: str | None,
    spec: Mapping[str, Any],
    spec_hash: str,
    commit: str | None,
) -> Run:
    """Notes that a run begins, or that one with this id goes on; see `Registry.start_run`."""
    check_name(run_id, "run id")
    plain = plain_json(spec, "spec")
    insert_missing(
        session,
        RunRow,
        id=run_id,
        flow_run_id=flow_run_id,
        commit=commit,
        spec_hash=spec_hash,
        spec=plain,
        state="running",
        started=datetime.now(UTC),
    )
    row = session.scalars(select(RunRow).where(RunRow.id == run_id).with_for_update()).one()
    if row.spec_hash != spec_hash:
        raise RegistryError(f"The run {run_id!r} exists with another spec; give the new run another id.")
    row.state, row.ended = "running", None
    row.flow_run_id = flow_run_id or row.flow_run_id
    row.commit = commit or row.commit
    return to_run(row)


def finish(session: Session, run_id: str, state: str, *, mlflow_run_id: str | None) -> Run:
    """Notes how a run ended; see `Registry.finish_run`."""
    if state not in STATES:
        raise RegistryError(f"There is no state {state!r} of a run; the states are {', '.join(STATES)}.")
    row = _run(session, run_id)
    row.state = state
    row.ended = None if state == "running" else datetime.now(UTC)
    row.mlflow_run_id = mlflow_run_id or row.mlflow_run_id
    return to_run(row)


def link_mlflow(session: Session, run_id: str, mlflow_run_id: str) -> None:
    """Notes MLflow's id of a run; see `Registry.link_mlflow`."""
    row = session.get(RunRow, run_id)
    if row is not None:
        row.mlflow_run_id = mlflow_run_id


def link(session: Session, run_id: str, *version_ids: int) -> None:
    """Notes that a run made, or came upon, versions."""
    run = _run(session, run_id).id
    values = [{"run_id": run, "version_id": version_id} for version_id in sorted(set(version_ids))]
    insert_all_missing(session, RunVersionRow, values)


def to_run(row: RunRow) -> Run:
    """Turns a row into what the registry hands out."""
    return Run(
        id=row.id,
        flow_run_id=row.flow_run_id,
        mlflow_run_id=row.mlflow_run_id,
        commit=row.commit,
        spec_hash=row.spec_hash,
        spec=row.spec,
        state=row.state,
        started=row.started,
        ended=row.ended,
    )


def _run(session: Session, run_id: str) -> RunRow:
    row = session.get(RunRow, run_id)
    if row is None:
        raise RegistryError(f"There is no run {run_id!r} in the registry; start it with `start_run`.")
    return row
