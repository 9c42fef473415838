"""A matrix of tiny models through the whole pipeline: models loaded once, one summary, failures beside it."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from contrans.errors import ContransError
from flows.matrix import keep_matrix, matrix_document, run_matrix, running_order
from flows.matrix_report import affinity, matrix_grid, model_labels
from flows.models import Models
from flows.pool import known_record
from flows.spec import Matrix, load_sweep
from flows.steps import build_steps
from flows.store import Store
from registry import Registry
from tests.crash.material import write_matrix
from tests.flows.conftest import Finished, Runner
from tests.flows.test_bad_input import spoil_weights
from tests.results import document, row

COUNT = """
import atexit, json, os
from pathlib import Path
from flows.models import SHARED
atexit.register(lambda: Path(os.environ["LOADS"]).write_text(json.dumps(SHARED.loads)))
"""


@dataclass
class Ran:
    home: Path
    folder: Path
    process: Finished
    found: dict[str, Any]
    loads: dict[str, int]


@pytest.fixture(scope="module")
def ran(contrans: Runner, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """Two sources and two targets with six concepts, and a third target that cannot be loaded."""
    place = tmp_path_factory.mktemp("matrix")
    home, folder = place / "home", place / "tiny"
    spec = write_matrix(folder, sources=2, targets=2, concepts=6)
    spoil_weights(folder / "target-0", folder / "spoilt", float("nan"))
    out, loads = place / "found.json", place / "loads.json"
    arguments = ("run", spec, *(word for setting in asked(folder) for word in ("--set", setting)))
    process = contrans(home, *arguments, "--json", out, code=COUNT, LOADS=str(loads))
    assert process.returncode == 2, process.stderr
    return Ran(home, folder, process, json.loads(out.read_text()), json.loads(loads.read_text()))


def asked(folder: Path) -> list[str]:
    targets = json.dumps([str(folder / name) for name in ("target-0", "spoilt", "target-1")])
    return [f"targets={targets}", 'exclude=[{source: "source-1", target: spoilt}]']


def cells(ran: Ran) -> list[dict[str, Any]]:
    return ran.found["matrix"]["cells"]


def test_every_model_is_loaded_once(ran: Ran) -> None:
    assert {Path(reference).name: n for reference, n in ran.loads.items()} == {
        "source-0": 1,
        "source-1": 1,
        "target-0": 1,
        "target-1": 1,
    }


def test_cells_stand_in_the_order_of_the_spec(ran: Ran) -> None:
    assert set(ran.found) == {"spec", "matrix", "run"}
    pairs = [(Path(cell["source"]).name, Path(cell["target"]).name) for cell in cells(ran)]
    assert pairs == [
        ("source-0", "target-0"),
        ("source-0", "spoilt"),
        ("source-0", "target-1"),
        ("source-1", "target-0"),
        ("source-1", "target-1"),
    ]
    for cell in cells(ran):
        assert set(cell) == {
            *("source", "target", "concepts", "values", "error", "summary", "choice", "effects", "rows", "findings"),
            "run",
        }
        assert len(cell["concepts"]) == 6


def test_a_cell_that_fails_is_reported_and_the_rest_goes_on(ran: Ran) -> None:
    errors = [cell["error"] for cell in cells(ran)]
    assert [error is not None for error in errors] == [False, True, False, False, False]
    assert "NaN or infinite" in errors[1]
    said = " ".join(ran.process.stderr.split())
    assert "Error: 1 of 5 cells of the matrix failed, source-0 → spoilt first: " in said
    assert "source-1 → target-1 5 of 5" in said
    with Registry.open(ran.home / "registry.db") as registry:
        assert registry.check() == []
        states = sorted(run.state for run in registry.runs())
        ids = {run.id: run.mlflow_run_id for run in registry.runs()}
        assert len({version.name for version in registry.list(kind="transplant")}) == 4 * 6
    assert states == ["completed"] * 4 + ["failed"]
    runs = [cell["run"] for cell in cells(ran) if cell["run"] is not None]
    assert {run["id"]: run["mlflow_run_id"] for run in runs} == {k: v for k, v in ids.items() if "spoilt" not in k}
    for run in runs:
        assert run["mlflow_run_id"]
        assert json.loads((Path(run["figure"]).parent / "results.json").read_text())["run"] == run
    assert list((ran.home / "mlflow-waiting").glob("*.json")) == []


def test_captures_are_shared_among_cells(ran: Ran) -> None:
    documents = [
        json.loads((Path(c["run"]["figure"]).parent / "results.json").read_text()) for c in cells(ran) if c["run"]
    ]
    captured = [step for found in documents for step in found["steps"]["computed"] if step.startswith("capture")]
    assert sorted(captured) == sorted(
        f"capture {what} · {side}" for what in ("concepts", "corpus") for side in ("source", "target") for _ in range(2)
    )


def test_the_summary_has_a_row_for_each_cell_and_concept(ran: Ran) -> None:
    folder = Path(ran.found["run"]["folder"])
    assert {path.name for path in folder.iterdir()} >= {"results.json", "table.md"}
    assert json.loads((folder / "results.json").read_text()) == ran.found
    lines = [line for line in (folder / "table.md").read_text().splitlines() if "source-" in line]
    assert len(lines) == 4 * 7 + 1
    assert "failed" in ran.process.stdout
    assert ran.process.stdout.count("│ source-") == len(lines)


def test_a_study_of_what_is_done_loads_nothing(contrans: Runner, ran: Ran, tmp_path: Path) -> None:
    settings = ("--set", 'include=[{source: "source-0", target: "target-[01]"}]')
    loads, out = tmp_path / "loads.json", tmp_path / "study"
    process = contrans(
        ran.home, "study", ran.folder / "matrix.yaml", *settings, "-o", out, code=COUNT, LOADS=str(loads)
    )
    assert process.returncode == 0, process.stderr
    assert json.loads(loads.read_text()) == {}
    rows = parquet.read_table(out / "study.parquet").to_pylist()
    document = json.loads((out / "results.json").read_text())
    runs = [
        json.loads((Path(c["run"]["figure"]).parent / "results.json").read_text()) for c in document["matrix"]["cells"]
    ]
    assert len(rows) == sum(len(found["validations"]) for found in runs) > 0
    assert {Path(row["target"]).name for row in rows} == {"target-0", "target-1"}
    assert all(found["steps"]["computed"] == [] for found in runs)
    assert str(out / "study.parquet") in process.stderr


def of_files(tmp_path: Path, text: str = "") -> Matrix:
    path = tmp_path / "my.yaml"
    path.write_text(
        f"sources: [org/a, org/b]\ntargets: [org/c, org/d]\nconcepts: [emotion/anger, emotion/fear]\n{text}"
    )
    found = load_sweep(path)
    assert isinstance(found, Matrix)
    return found


def finished(spec: dict[str, Any]) -> dict[str, Any]:
    gain = {"org/a": 0.9, "org/b": 0.3}[spec["source"]] - (0.1 if spec["target"] == "org/d" else 0.0)
    rows = [
        row(concept, arm, metric, value, low=value - 0.1, high=value + 0.1)
        for concept in ("anger", "fear", "all")
        for arm, metric, value in (
            ("unsteered", "logit_accuracy", 0.1),
            ("transplanted", "logit_accuracy", 0.1 + gain / 2),
            ("own", "logit_accuracy", 0.6),
            ("transplanted", "gain_recovered", gain),
        )
    ]
    chosen = {"source_block": 2, "target_block": 3, "mix": ["wrapped"], "lambda_select": "r2"}
    found = {"spec": spec, "choice": {"chosen": chosen, "tried": []}, "run": {"id": "r"}, "findings": []}
    summary = {arm: {"value": gain, "low": gain - 0.1, "high": gain + 0.1} for arm in ("unsteered", "transplanted")}
    return document(rows, **{**found, "summary": summary, "effects": {"emotion": "logit_accuracy"}})


def test_who_can_give_to_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    matrix = of_files(tmp_path, "exclude: [{source: org/b, target: org/d}]")
    found = matrix_document(matrix, run_matrix(matrix, finished, models=Models()))
    shown = affinity(found["matrix"]["cells"], "gain_recovered")
    assert (shown["rows"], shown["columns"]) == (["a", "b"], ["c", "d"])
    assert shown["values"][0] == pytest.approx([0.9, 0.8])
    assert shown["values"][1] == pytest.approx([0.3, float("nan")], nan_ok=True)
    assert shown["low"][0] == pytest.approx([0.8, 0.7])
    kept = keep_matrix(found)
    assert Path(kept["run"]["figure"]).name == "affinity.png"
    assert Path(kept["run"]["figure"]).read_bytes().startswith(b"\x89PNG")
    grid = matrix_grid(found)
    assert grid.columns == ("source", "target", "concept", "unsteered", "transplanted", "own", "gain recovered")
    assert len(grid.rows) == 3 * 3
    assert len(matrix_grid(found, means=True).rows) == 3
    assert (
        "a",
        "d",
        "mean",
        "0.10 [0.00, 0.20]",
        "0.50 [0.40, 0.60]",
        "0.60 [0.50, 0.70]",
        "0.80 [0.70, 0.90]",
    ) in grid.rows


def test_a_swept_matrix_has_a_heat_map_for_each_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    matrix = of_files(tmp_path, "sweep: {refine.pairs: [5, 10]}")
    found = keep_matrix(matrix_document(matrix, run_matrix(matrix, finished, models=Models())))
    files = {path.name for path in Path(found["run"]["folder"]).glob("*.png")}
    assert files == {"affinity.refine.pairs=5.png", "affinity.refine.pairs=10.png"}
    assert matrix_grid(found).columns[:4] == ("source", "target", "refine.pairs", "concept")
    assert len(matrix_grid(found, means=True).rows) == 8


def test_a_matrix_of_failures_has_a_table_and_no_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))

    def fails(_: dict[str, Any]) -> dict[str, Any]:
        raise ContransError("It cannot.")

    matrix = of_files(tmp_path)
    found = keep_matrix(matrix_document(matrix, run_matrix(matrix, fails, models=Models())))
    assert found["run"]["figure"] is None
    assert (Path(found["run"]["folder"]) / "table.md").read_text().count("failed") == 4


def test_cells_run_along_a_path_where_memory_is_short(tmp_path: Path) -> None:
    path = tmp_path / "known.yaml"
    path.write_text("sources: [EleutherAI/pythia-70m, EleutherAI/pythia-160m]\ntargets: [x/y, google/gemma-3-270m]\n")
    orders = {}
    for memory in (0.001, 1000):
        matrix = load_sweep(path, [f"compute.memory_gb={memory}"])
        assert isinstance(matrix, Matrix)
        orders[memory] = running_order(matrix)
    assert orders == {0.001: [0, 2, 3, 1], 1000: [0, 1, 2, 3]}  # what is loaded twice is the smallest
    ran: list[str] = []
    unknown = of_files(tmp_path)
    run_matrix(unknown, finished, begins=lambda number, cell: ran.append(f"{number} {cell.label}"), models=Models())
    assert ran == ["0 a → c", "1 a → d", "2 b → d", "3 b → c"]


def test_what_is_not_done_comes_first(contrans: Runner, ran: Ran, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setenv("CONTRANS_CACHE", str(contrans.cache))
    monkeypatch.setenv("CONTRANS_HOME", str(shutil.copytree(ran.home, tmp_path / "home")))
    matrix = load_sweep(ran.folder / "matrix.yaml", asked(ran.folder))
    assert isinstance(matrix, Matrix)
    assert running_order(matrix) == [1, 0, 2, 3, 4]  # the spoilt target is never done
    last = matrix.points[4].spec
    records = [known_record(reference, "cpu") for reference in (last.source, last.target)]
    assert records[0] is not None
    assert records[1] is not None
    keys = {step.name: step.key for step in build_steps(last, *records)}
    shutil.rmtree(Store(tmp_path / "home" / "steps").path(keys["validate"]))
    assert running_order(matrix) == [1, 4, 0, 2, 3]
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "new"))
    assert running_order(matrix) == [0, 1, 2, 3, 4]


def test_labels_tell_models_apart() -> None:
    assert model_labels(["org/a", "org/b", "org/a"]) == {"org/a": "a", "org/b": "b"}
    assert model_labels(["x/a@1", "x/a@2"]) == {"x/a@1": "1", "x/a@2": "2"}


def test_a_matrix_is_planned(typed: Callable[..., tuple[int, str, str]], ran: Ran) -> None:
    arguments = ("plan", ran.folder / "matrix.yaml", "--on", "h100")
    planned = json.loads(typed(*arguments, "--json", home=ran.home)[1])
    assert next(cell["name"] for cell in planned["matrix"]["cells"]) == "tiny-matrix.source-0-target-0"
    assert [step["points"] for step in planned["steps"] if step["name"] == "capture concepts · source"] == [
        [0, 1],
        [2, 3],
    ]
    assert all(step["cached"] for step in planned["steps"])
    assert "tiny-matrix: 4 pairs of 2 sources and 2 targets" in typed(*arguments, home=ran.home)[1]
