"""Which task runner a setting asks for, and that one that is not installed says so."""

import sys
from typing import Any

import pytest
from prefect.task_runners import ThreadPoolTaskRunner

from contrans.errors import SpecError
from flows.serving.runners import RUNNERS, SETTING, WORKERS, handed_to, task_runner


@pytest.fixture(autouse=True)
def _nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SETTING, raising=False)
    monkeypatch.delenv(WORKERS, raising=False)


@pytest.mark.parametrize(("workers", "wanted"), [(None, 1), ("", 1), ("3", 3)])
def test_threads_unless_something_is_set(monkeypatch: pytest.MonkeyPatch, workers: str | None, wanted: int) -> None:
    if workers is not None:
        monkeypatch.setenv(WORKERS, workers)
    runner = task_runner()
    assert isinstance(runner, ThreadPoolTaskRunner)
    assert runner == ThreadPoolTaskRunner(max_workers=wanted)


@pytest.mark.parametrize("name", ["spark", "threads:8", "Dask", ":"])
def test_an_unknown_one_is_refused(name: str) -> None:
    with pytest.raises(SpecError, match=SETTING):
        task_runner(name)


@pytest.mark.parametrize(
    ("name", "deployment"),
    [("workers", "cell/on-demand"), ("workers:cell/on-gpu", "cell/on-gpu"), ("threads", None), ("dask:tcp://x", None)],
)
def test_workers_are_handed_runs_of_a_deployment(
    monkeypatch: pytest.MonkeyPatch, name: str, deployment: str | None
) -> None:
    assert handed_to() is None
    assert handed_to(name) == deployment
    monkeypatch.setenv(SETTING, name)
    assert handed_to() == deployment


@pytest.mark.parametrize("workers", ["0", "many", "-1", "1.5", "٣"])
def test_a_number_of_workers_that_is_none(monkeypatch: pytest.MonkeyPatch, workers: str) -> None:
    monkeypatch.setenv(WORKERS, workers)
    with pytest.raises(SpecError, match=WORKERS):
        task_runner()


@pytest.mark.parametrize("name", RUNNERS[1:])
def test_one_that_is_not_installed_says_how(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setitem(sys.modules, f"prefect_{name}", None)
    with pytest.raises(SpecError, match=rf"pip install 'contrans\[{name}\]'"):
        task_runner(name)


@pytest.mark.parametrize("name", RUNNERS[1:])
def test_a_running_cluster_is_named_by_its_address(name: str) -> None:
    pytest.importorskip(f"prefect_{name}", reason=f"needs prefect-{name}")
    runner: Any = task_runner(f"{name}:tcp://10.0.0.1:8786")
    assert runner.address == "tcp://10.0.0.1:8786"
    of_its_own: Any = task_runner(name, workers=3)
    assert of_its_own.address is None
    assert 3 in (of_its_own.cluster_kwargs if name == "dask" else of_its_own.init_kwargs).values()
