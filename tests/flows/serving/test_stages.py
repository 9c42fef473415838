"""Refine, align and transplant by themselves: only what each needs is run and registered, and nothing twice."""

import json
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from registry import Registry
from tests.flows.conftest import Done, Runner

NEEDED = {
    "refine": {"capture concepts · source", "refine · source"},
    "align": {
        "capture concepts · source",
        "refine · source",
        "capture corpus · source",
        "capture corpus · target",
        "choose",
        "fit maps",
    },
}
KINDS = {"refine": {"model", "text_set", "vector"}, "align": {"model", "text_set", "map"}}


@pytest.fixture(scope="module")
def staged(contrans: Runner, spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """What the stages gave, one after another on one home."""
    home, found = tmp_path_factory.mktemp("staged"), {}
    for stage in ("refine", "align", "transplant"):
        process = contrans(home, stage, spec_path, "--json")
        assert process.returncode == 0, process.stderr
        found[stage] = json.loads(process.stdout)
    return home, found


@pytest.mark.parametrize("stage", ["refine", "align"])
def test_a_stage_runs_and_registers_what_it_needs(staged: tuple[Path, dict[str, Any]], stage: str) -> None:
    found = staged[1][stage]
    assert {*found["steps"]["computed"], *found["steps"]["cached"]} == NEEDED[stage]
    assert {version["kind"] for version in found["versions"]} == KINDS[stage]
    assert {v["name"] for v in found["versions"] if v["kind"] == "vector"} <= {
        f"{c}/source" for c in ["calm", "hurry", "doubt"]
    }


def test_what_one_stage_did_the_next_one_does_not(staged: tuple[Path, dict[str, Any]]) -> None:
    _, found = staged
    done: set[str] = set()
    for stage in found.values():
        computed = set(stage["steps"]["computed"])
        assert not computed & done
        assert set(stage["steps"]["cached"]) == done & {*computed, *stage["steps"]["cached"]}
        done |= computed
    assert {"calibrate dose", "validate", "figure"} <= done


def test_stages_end_where_a_whole_pipeline_does(staged: tuple[Path, dict[str, Any]], done: Done) -> None:
    home, found = staged
    whole = {(v["kind"], v["ref"], v["digest"]) for v in done.found["versions"]}
    assert {(v["kind"], v["ref"], v["digest"]) for v in found["transplant"]["versions"]} == whole
    assert found["transplant"]["summary"] == done.found["summary"]
    for stage in found.values():  # one block of each model, so that even the vectors of `refine` are the pipeline's
        assert {(v["kind"], v["ref"], v["digest"]) for v in stage["versions"]} <= whole
    with Registry.open(home / "registry.db") as registry:
        assert registry.check() == []
        assert [run.state for run in registry.runs()] == ["completed"] * 3
        by_stage = {run.id: {v.digest for v in registry.run_versions(run.id)} for run in registry.runs()}
    for stage in found.values():
        assert by_stage[stage["run"]["id"]] == {v["digest"] for v in stage["versions"]}


def test_only_numbers_are_tracked(staged: tuple[Path, dict[str, Any]]) -> None:
    with sqlite3.connect(staged[0] / "mlflow.db") as mlflow:
        runs = {value for (value,) in mlflow.execute("select value from tags where key = 'contrans.run_id'")}
    assert runs == {staged[1]["transplant"]["run"]["id"]}


def test_artifacts_and_assets_are_on_the_server(staged: tuple[Path, dict[str, Any]], prefect_url: str) -> None:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterFlowRunId

    def artifacts(stage: str) -> dict[str, Any]:
        run = staged[1][stage]["run"]["flow_run_id"]
        mine = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        with SyncPrefectClient(prefect_url) as client:
            return {str(a.key or a.type): a for a in client.read_artifacts(artifact_filter=mine)}

    refined, transplanted = artifacts("refine"), artifacts("transplant")
    assert refined["contrans-progress"].data == 100.0
    assert {"contrans-progress", "contrans-results", "contrans-validation", "contrans-dose"} <= set(transplanted)
    assert str(transplanted["contrans-dose"].data).startswith("data:image/png;base64,iVBORw0KGgo")
    rows = json.loads(str(transplanted["contrans-validation"].data))
    assert {row["arm"] for row in rows} >= {"unsteered", "transplanted", "own"}
    with SyncPrefectClient(prefect_url) as client:
        run = client.read_flow_run(staged[1]["align"]["run"]["flow_run_id"])
    assert {"spec:tiny", "concept:calm"} <= set(run.tags)


def test_mistakes_are_sentences_and_start_nothing(contrans: Runner, spec_path: Path, tmp_path: Path) -> None:
    process = contrans(tmp_path, "align", spec_path, "--set", "sede=3")
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.strip().startswith("Error: --set sede=3")
    assert len(process.stderr.strip().splitlines()) == 1
