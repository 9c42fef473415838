"""Sweeps and the other protocols through the whole pipeline, on tiny models; and the parts of a sweep by themselves."""

import json
import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from contrans.errors import ContransError, FitError
from flows.results import RESULTS
from flows.spec import Sweep, load_sweep
from flows.sweep import Outcome, failure, keep, run_points, sweep_document
from registry import Registry
from tests.flows import tiny_studies
from tests.flows.conftest import Done, Runner
from tests.results import document


@dataclass
class Studies:
    """How each study ended, and where."""

    home: Path
    folder: Path
    mlflow: Path

    def found(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.json").read_text())

    def ended(self, name: str) -> dict[str, Any]:
        return json.loads((self.folder / f"{name}.ended.json").read_text())


@pytest.fixture(scope="module")
def studies(contrans: Runner, done: Done, spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Studies:
    place = tmp_path_factory.mktemp("studies")
    home, folder = place / "home", place / "tiny"
    settings = tiny_studies.write(spec_path, folder)
    arguments = f"Path({str(folder / spec_path.name)!r}), {settings!r}, Path({str(place)!r})"
    code = "from flows.server import set_environment\nset_environment()\nfrom pathlib import Path\n"
    code += f"from tests.flows.tiny_studies import type_all\ntype_all({arguments})"
    mlflow = done.home / "mlflow.db"  # filled already
    process = contrans(home, "--version", code=code, MLFLOW_TRACKING_URI=f"sqlite:///{mlflow}")
    assert process.returncode == 0, process.stderr
    return Studies(home, place, mlflow)


def points(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    return found["sweep"]["points"]


def test_a_sweep_over_numbers_gives_a_point_for_each(studies: Studies) -> None:
    found, ended = studies.found(tiny_studies.PAIRS), studies.ended(tiny_studies.PAIRS)
    assert ended["code"] == 0, ended["err"]
    assert set(found) == {"spec", "sweep", "run"}
    assert found["sweep"]["keys"] == ["refine.pairs"]
    assert [point["values"] for point in points(found)] == [{"refine.pairs": 4}, {"refine.pairs": 12}]
    assert found["spec"]["sweep"] == {"refine.pairs": [4, 12]}
    assert "pairs" not in found["spec"]["refine"]
    for point in points(found):
        assert set(point) == {"values", "error", "summary", "choice", "effects", "rows", "findings", "run"}
        assert {"unsteered", "transplanted", "own"} <= set(point["summary"])
        whole = json.loads((Path(point["run"]["figure"]).parent / "results.json").read_text())
        assert {"spec", "timings", "versions", "steps", "run", *RESULTS} == set(whole)
        assert whole["spec"]["refine"]["pairs"] == point["values"]["refine.pairs"]
        assert whole["spec"]["name"] == f"tiny.pairs-{point['values']['refine.pairs']}"
        assert (whole["summary"], whole["choice"]) == (point["summary"], point["choice"])
        assert all(row in whole["validations"] for row in point["rows"])
        assert {row["metric"] for row in point["rows"]} >= {"logit_accuracy", "gain"}
    first, second = (
        json.loads((Path(p["run"]["figure"]).parent / "results.json").read_text())["steps"] for p in points(found)
    )
    assert first["cached"] == []
    assert second["cached"] == ["capture corpus · source", "capture corpus · target"]


def test_a_sweep_leaves_table_figure_and_document(studies: Studies) -> None:
    found, ended = studies.found(tiny_studies.PAIRS), studies.ended(tiny_studies.PAIRS)
    folder = Path(found["run"]["folder"])
    assert {path.name for path in folder.iterdir()} == {"results.json", "sweep.png", "table.md"}
    assert json.loads((folder / "results.json").read_text()) == found
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert "| 12 |" in (folder / "table.md").read_text()
    assert "gain recovered" in ended["out"]
    assert "refine.pairs=12: " in ended["out"]
    assert "refine.pairs=12  2 of 2" in ended["err"]
    assert str(folder / "sweep.png") in ended["err"]


def test_every_point_is_a_run_of_its_own(studies: Studies) -> None:
    runs = [p["run"] for name in (tiny_studies.PAIRS, tiny_studies.SOURCES) for p in points(studies.found(name))]
    finished = [run for run in runs if run]
    with Registry.open(studies.home / "registry.db") as registry:
        states = {run.id: (run.state, run.flow_run_id, run.mlflow_run_id) for run in registry.runs()}
    assert len({run["flow_run_id"] for run in finished}) == 4
    for run in finished:
        assert states[run["id"]] == ("completed", run["flow_run_id"], run["mlflow_run_id"])
    assert [state for id_, (state, *_) in states.items() if id_.startswith("tiny.source-spoilt-")] == ["failed"]
    with sqlite3.connect(studies.mlflow) as mlflow:
        noted = {row[0] for row in mlflow.execute("select run_uuid from runs")}
    assert {run["mlflow_run_id"] for run in finished} <= noted


def test_a_point_that_fails_is_reported_and_the_rest_goes_on(studies: Studies) -> None:
    found, ended = studies.found(tiny_studies.SOURCES), studies.ended(tiny_studies.SOURCES)
    good, bad, other = points(found)
    assert ended["code"] == 2
    assert bad["error"] == next(p["error"] for p in points(found) if p["error"])
    assert "holds NaN or infinite values" in bad["error"]
    assert (bad["summary"], bad["choice"], bad["run"], bad["rows"], bad["findings"]) == (None, None, None, [], [])
    assert (good["error"], other["error"]) == (None, None)
    assert other["run"]["id"] != good["run"]["id"]
    said = " ".join(ended["err"].split())
    assert "failed: " in said
    assert "Error: 1 of 3 points of the sweep failed, source=" in said
    assert "Traceback" not in ended["err"]
    assert "source" not in found["spec"]
    assert "| spoilt |" in (Path(found["run"]["folder"]) / "table.md").read_text()


def test_strict_one_map_for_all_and_several_concepts_run_through(studies: Studies) -> None:
    ended = studies.ended(tiny_studies.STRICT)
    assert ended["code"] == 0, ended["err"]
    found = studies.found(tiny_studies.STRICT)
    assert found["spec"]["validate"]["select"] == "kl"
    assert found["effects"] == {"emotion": "selectivity"}
    on_test = [r for r in found["validations"] if (r["concept"], r["arm"], r["split"]) == ("all", "own", "test")]
    of_own = {r["metric"]: r["value"] for r in on_test}
    assert found["summary"]["own"]["value"] == of_own["selectivity"]
    assert {"gain", "logit_accuracy", "logit_accuracy_gain"} <= set(of_own)
    assert "selectivity at equal KL" in ended["out"]
    assert "beyond the rate of mistakes" in ended["out"]
    assert found["choice"]["chosen"]["mix"] == ["spread"]
    assert found["rows_fitted"] == 30
    # three concepts: each alone, and every pair
    assert len({row["concept_in"] for row in found["cross_effects"]["rows"]}) == 6
    assert "opposite" in {row["arm"] for row in found["validations"]}


def test_a_concept_of_two_labels_runs_through(studies: Studies) -> None:
    ended = studies.ended(tiny_studies.BINARY)
    assert ended["code"] == 0, ended["err"]
    found = studies.found(tiny_studies.BINARY)
    assert found["chance"] == {"logit_accuracy_positives": 0.5}
    assert {row["concept"] for row in found["validations"]} == {"civility", "all"}


@pytest.mark.parametrize(
    ("name", "protocol", "effect"), [(tiny_studies.TRUTH, "truthfulqa", "mc1"), (tiny_studies.TOXIC, "toxicity", None)]
)
def test_other_protocols_run_through(studies: Studies, name: str, protocol: str, effect: str | None) -> None:
    ended = studies.ended(name)
    assert ended["code"] == 0, ended["err"]
    found = studies.found(name)
    assert list(found["effects"]) == [protocol]
    assert effect in (None, found["effects"][protocol])
    assert {row["protocol"] for row in found["validations"]} == {protocol}
    tested = {row["arm"] for row in found["validations"] if row["split"] == "test"}
    assert {"unsteered", "transplanted", "own", "random", "shuffled_map", "paper"} <= tested
    assert "wrong_concept" not in tested  # there is but one
    assert found["spec"]["validate"]["protocol"] == protocol
    assert any(v["ref"].split("/")[-1].startswith(protocol) for v in found["versions"] if v["kind"] == "validation")


def tiny_sweep(tmp_path: Path, text: str = "sweep: {refine.pairs: [3, 5, null]}") -> Sweep:
    path = tmp_path / "my.yaml"
    path.write_text(f"source: org/a\ntarget: org/b\n{text}\n")
    return load_sweep(path)


def finished(spec: dict[str, Any]) -> dict[str, Any]:
    chosen = {"source_block": 2, "target_block": 3, "mix": ["wrapped"], "lambda_select": "r2"}
    summary = {"transplanted": {"value": 0.5, "low": 0.4, "high": 0.6}}
    found = {"spec": spec, "choice": {"chosen": chosen, "tried": []}, "run": {"id": "r"}, "findings": []}
    return document(**{**found, "summary": summary, "effects": {"emotion": "logit_accuracy"}})


def test_points_run_in_order_and_only_their_own_errors_are_survived(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path)
    seen: list[tuple[int, str]] = []

    def run(spec: dict[str, Any]) -> dict[str, Any]:
        if spec["refine"]["pairs"] == 5:
            raise FitError("There are too few rows; give more.\nAnd a second line.")
        return finished(spec)

    outcomes = run_points(sweep, run, begins=lambda i, point: seen.append((i, point.label)))
    assert seen == [(0, "refine.pairs=3"), (1, "refine.pairs=5"), (2, "refine.pairs=null")]
    assert [outcome.error for outcome in outcomes] == [None, "There are too few rows; give more.", None]
    assert isinstance(failure(outcomes), ContransError)
    assert str(failure(outcomes)) == (
        "1 of 3 points of the sweep failed, refine.pairs=5 first: There are too few rows; give more."
    )
    assert failure(outcomes[:1]) is None

    def broken(_: dict[str, Any]) -> dict[str, Any]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_points(sweep, broken)


def test_a_model_that_does_not_fit_into_memory_fails_its_point_alone(tmp_path: Path) -> None:
    import torch

    def run(spec: dict[str, Any]) -> dict[str, Any]:
        if spec["refine"]["pairs"] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return finished(spec)

    outcomes = run_points(tiny_sweep(tmp_path), run)
    assert [outcome.error for outcome in outcomes] == ["CUDA out of memory.", None, None]


def test_rows_of_a_point_are_those_of_the_effect_on_test(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path)
    found = sweep_document(sweep, run_points(sweep, finished))
    rows = found["sweep"]["points"][0]["rows"]
    assert {row["split"] for row in rows} == {"test"}
    assert {row["metric"] for row in rows} == {"logit_accuracy", "gain_recovered"}
    assert {row["arm"] for row in rows} == {"unsteered", "transplanted", "own", "paper"}
    assert (found["spec"]["name"], found["spec"]["source"]) == ("my", "org/a")


def test_what_failed_altogether_is_kept_without_a_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "home"))
    sweep = tiny_sweep(tmp_path)
    kept = keep(sweep_document(sweep, [Outcome(point, error="It failed.") for point in sweep.points]))
    assert kept["run"]["figure"] is None
    assert {path.name for path in Path(kept["run"]["folder"]).iterdir()} == {"results.json", "table.md"}
    (tmp_path / "file").touch()
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "file"))
    with pytest.raises(ContransError, match=r"cannot be written to .*; free space and run it again"):
        keep(kept)


def test_the_shared_spec_reads_back_to_the_same_points(tmp_path: Path) -> None:
    sweep = tiny_sweep(tmp_path, "preset: strict\nsweep: {seed: [0, 1], refine.estimator: [pca, lda]}")
    (tmp_path / "again.yaml").write_text(json.dumps(sweep.spec))
    assert load_sweep(tmp_path / "again.yaml") == sweep
