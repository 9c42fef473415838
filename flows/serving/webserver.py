"""Prefect's server as an application that uvicorn serves, with a scheduler that works on SQLAlchemy 2.1."""

from collections.abc import MutableMapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastapi import FastAPI


def create_app() -> "FastAPI":
    """Prefect's API, UI and services."""
    from prefect.server.api.server import create_app as prefects_own

    mend_scheduler()
    return prefects_own()


def mend_scheduler() -> None:
    """Lets Prefect's scheduler write runs down.

    It gives their first state along with each row, which is no column. SQLAlchemy 2.0 passed over that; 2.1 asks the
    property `state` what to do with it and refuses where it does not say, so that no deployment ever ran by itself.
    """
    from prefect.server.database.orm_models import FlowRun
    from sqlalchemy import inspect

    state: Any = inspect(FlowRun).all_orm_descriptors["state"]
    inplace = state.inplace
    if hasattr(inplace, "bulk_dml") and state.bulk_dml_setter is None:
        inplace.bulk_dml(_pass_over)


def _pass_over(_model: type, _row: MutableMapping[str, Any], _value: Any) -> None:
    """Leaves the state out: the scheduler writes it into its own table next."""
