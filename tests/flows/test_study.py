"""Studies: the tidy table holds every number of every run, the figures are those of the matrix and its pairs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pyarrow import parquet

from contrans.errors import ContransError
from flows.matrix import matrix_document, run_matrix
from flows.models import Models
from flows.runs import runs_folder
from flows.spec import Matrix, load_sweep
from flows.studies import COLUMNS
from flows.studies.figures import pair_sweeps, study_figures
from flows.studies.running import TABLE, write_study
from flows.studies.table import plain
from flows.sweep import run_points, sweep_document
from tests.flows.test_matrix import finished, of_files

SWEEP = "sweep: {refine.pairs: [5, 10, null]}"


def kept(spec: dict[str, Any]) -> dict[str, Any]:
    """The document of a run, which lies in the run's folder too."""
    found = finished(spec)
    found["run"] = {"id": spec["name"]}
    found["map"] |= {"estimator": "ridge"}
    found["rows_fitted"] = 40
    folder = runs_folder() / spec["name"]
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps(found))
    return found


def fails_for_b(spec: dict[str, Any]) -> dict[str, Any]:
    if spec["source"] == "org/b":
        raise ContransError("It cannot.")
    return kept(spec)


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "home"))


def ran(matrix: Matrix, run: Callable[[dict[str, Any]], dict[str, Any]] = kept) -> dict[str, Any]:
    return matrix_document(matrix, run_matrix(matrix, run, models=Models()))


def test_the_table_has_a_row_for_every_number(tmp_path: Path) -> None:
    matrix = of_files(tmp_path, SWEEP)
    found = {**ran(matrix), "run": {"id": "m"}}
    files = write_study(found, tmp_path / "study")
    assert [file.name for file in files][:2] == [TABLE, "results.json"]
    assert json.loads((tmp_path / "study" / "results.json").read_text()) == found
    table = parquet.read_table(tmp_path / "study" / TABLE)
    assert table.column_names == [*COLUMNS, "sweep.refine.pairs"]
    rows = table.to_pylist()
    documents = [json.loads(path.read_text()) for path in runs_folder().glob("*/results.json")]
    assert len(rows) == sum(len(document["validations"]) for document in documents) == 12 * 12
    chosen = [
        (r["source"], r["target"], r["sweep.refine.pairs"], r["value"])
        for r in rows
        if (r["concept"], r["arm"], r["metric"]) == ("fear", "transplanted", "gain_recovered")
    ]
    gains = {"ac": 0.9, "ad": 0.8, "bc": 0.3, "bd": 0.2}
    assert [(f"{s[-1]}{t[-1]}", n, v) for s, t, n, v in chosen] == [
        (pair, n, pytest.approx(gain)) for pair, gain in gains.items() for n in (5, 10, None)
    ]
    assert {(r["source_block"], r["target_block"], r["estimator"], r["rows"]) for r in rows} == {
        (2, 3, "ridge", "wrapped")
    }
    assert json.loads(table.schema.metadata[b"contrans"]) == found["spec"]


def test_cells_that_failed_have_no_rows(tmp_path: Path) -> None:
    found = {**ran(of_files(tmp_path), fails_for_b), "run": {"id": "m"}}
    write_study(found, tmp_path / "study")
    rows = parquet.read_table(tmp_path / "study" / TABLE).to_pylist()
    assert {row["source"] for row in rows} == {"org/a"}
    write_study({**ran(of_files(tmp_path), fails), "run": {"id": "m"}}, tmp_path / "none")
    empty = parquet.read_table(tmp_path / "none" / TABLE)
    assert (empty.num_rows, empty.column_names) == (0, list(COLUMNS))


def fails(_: dict[str, Any]) -> dict[str, Any]:
    raise ContransError("It cannot.")


def test_figures_are_heat_maps_and_curves_of_pairs(tmp_path: Path) -> None:
    found = ran(of_files(tmp_path, "sweep: {corpus.wrapped: [100, 1000]}"))
    figures = study_figures(found)
    assert set(figures) == {
        *(f"affinity.corpus.wrapped={n}.png" for n in (100, 1000)),
        *(f"by-corpus-wrapped.{pair}.png" for pair in ("a-c", "a-d", "b-c", "b-d")),
    }
    assert all(data.startswith(b"\x89PNG") for data in figures.values())
    of_pair = pair_sweeps(found)["b-d"]
    assert [point["values"] for point in of_pair["sweep"]["points"]] == [{"corpus.wrapped": n} for n in (100, 1000)]
    assert (of_pair["spec"]["source"], of_pair["spec"]["target"]) == ("org/b", "org/d")


def test_a_sweep_is_a_study_too(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("target: org/c\nsweep: {source: [org/a, org/b]}\n")
    sweep = load_sweep(path)
    found = {**sweep_document(sweep, run_points(sweep, kept)), "run": {"id": "s"}}
    files = write_study(found, tmp_path / "study")
    assert [file.name for file in files] == [TABLE, "results.json", "by-source.png"]
    table = parquet.read_table(tmp_path / "study" / TABLE)
    assert table.column("sweep.source").to_pylist() == table.column("source").to_pylist()


def test_a_study_is_written_again(tmp_path: Path) -> None:
    found = {**ran(of_files(tmp_path)), "run": {"id": "m"}}
    first, second = (write_study(found, tmp_path / "study") for _ in range(2))
    assert first == second
    assert {path.name for path in (tmp_path / "study").iterdir()} == {path.name for path in first}


def test_a_document_that_is_gone_is_named(tmp_path: Path) -> None:
    found = {**ran(of_files(tmp_path)), "run": {"id": "m"}}
    (runs_folder() / "my.a-c" / "results.json").unlink()
    with pytest.raises(ContransError, match=r"cannot be read from .*my\.a-c"):
        write_study(found, tmp_path / "study")
    with pytest.raises(ContransError, match="cannot be written to"):
        write_study({**ran(of_files(tmp_path), fails), "run": {"id": "m"}}, tmp_path / "my.yaml" / "x")


@pytest.mark.parametrize(
    ("values", "column"),
    [
        ([1, None, 3], [1, None, 3]),
        ([1, 0.5], [1.0, 0.5]),
        ([True, False], [True, False]),
        (["auto", 0.5], ["auto", "0.5"]),
        ([[1, 2], "x"], ["[1, 2]", "x"]),
        ([True, 1], ["true", "1"]),
    ],
)
def test_swept_values_become_columns(values: list[Any], column: list[Any]) -> None:
    assert plain(values) == column
    assert [type(v) for v in plain(values)] == [type(c) for c in column]


def test_one_pipeline_is_no_study(typed: Callable[..., tuple[int, str, str]], tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("source: org/a\ntarget: org/b\n")
    code, out, err = typed("study", path, "-o", tmp_path / "out")
    assert (code, out) == (2, "")
    assert "is one pipeline, and a study compares several" in " ".join(err.split())
    path.write_text("sources: [org/a, org/c]\ntarget: org/b\n")
    code, out, err = typed("study", path, "-o", path)
    assert (code, out) == (2, "")
    assert "is a file; name a folder" in " ".join(err.split())
