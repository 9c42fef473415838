import pytest

from contrans.errors import RegistryError
from registry import Registry
from tests.registry.conftest import make_chain


def test_a_run_is_linked_both_ways(registry: Registry) -> None:
    started = registry.start_run("run-1", flow_run_id="f", spec={"source": {"model": "m"}}, spec_hash="h", commit="c")
    assert (started.state, started.ended, started.mlflow_run_id) == ("running", None, None)
    version = registry.register("model", "m", manifest={"reference": "r"}, run_id="run-1")
    registry.register("model", "m", manifest={"reference": "r"}, run_id="run-1")
    other = make_chain(registry)["texts"]
    registry.link("run-1", other)
    registry.link("run-1", other)
    ended = registry.finish_run("run-1", "completed", mlflow_run_id="m")
    assert ended.ended is not None
    assert ended.ended >= ended.started
    assert registry.runs() == [ended]
    assert (ended.flow_run_id, ended.mlflow_run_id, ended.commit, ended.spec_hash) == ("f", "m", "c", "h")
    assert registry.runs()[0].spec == {"source": {"model": "m"}}
    assert registry.run_versions("run-1") == [version, other]
    assert registry.runs(version=version) == [ended]
    assert registry.runs(version="gemma-3") == []


def test_a_killed_run_goes_on(registry: Registry) -> None:
    first = registry.start_run("r", flow_run_id="f1", spec={}, spec_hash="h", commit="c")
    registry.finish_run("r", "crashed")
    again = registry.start_run("r", flow_run_id="f2", spec={}, spec_hash="h")
    assert (again.state, again.ended, again.flow_run_id, again.commit) == ("running", None, "f2", "c")
    assert again.started == first.started
    with pytest.raises(RegistryError, match="exists with another spec"):
        registry.start_run("r", spec={}, spec_hash="other")


def test_latest_runs_first(registry: Registry) -> None:
    for name in "abc":
        registry.start_run(name, spec={}, spec_hash="h")
    assert [run.id for run in registry.runs(limit=2)] == ["c", "b"]


def test_bad_input(registry: Registry) -> None:
    with pytest.raises(RegistryError, match="no run 'x'"):
        registry.finish_run("x", "completed")
    registry.start_run("r", spec={}, spec_hash="h")
    with pytest.raises(RegistryError, match="no state 'done' of a run; the states are running, completed"):
        registry.finish_run("r", "done")
    with pytest.raises(RegistryError, match=r"spec\.a is nan"):
        registry.start_run("s", spec={"a": float("nan")}, spec_hash="h")
