"""Running a study: all its pipelines, then its table, its figures and its document in one folder."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from contrans.errors import ContransError
from flows.runs import runs_folder
from flows.studies.figures import study_figures
from flows.studies.table import tidy, write_parquet
from flows.sweep import RESULTS

TABLE = "study.parquet"


def write_study(document: Mapping[str, Any], folder: Path) -> list[Path]:
    """Writes what came of a sweep or a matrix; a study that is run again replaces its files.

    Args:
        document: of the sweep or matrix, see `flows.results`. The documents of its runs are read from their folders.
        folder: where it goes; it is made.

    Returns:
        The files: the table, the document, the figures.

    Raises:
        ContransError: a run's document is gone, or the folder cannot be written.
    """
    part = document["sweep"] if "sweep" in document else document["matrix"]
    entries = part["points"] if "sweep" in document else part["cells"]
    rows = list(tidy(_runs(entries), part["keys"]))
    files = {RESULTS: json.dumps(document, indent=1, ensure_ascii=False).encode(), **study_figures(document)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in files.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise ContransError(f"The study cannot be written to {folder} ({error.strerror}); name another.") from error
    write_parquet(rows, part["keys"], folder / TABLE, about=json.dumps(document["spec"]))
    return [folder / TABLE, *(folder / name for name in files)]


def _runs(entries: list[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    for entry in entries:
        if entry["run"] is None:
            continue
        path = runs_folder() / entry["run"]["id"] / RESULTS
        try:
            yield entry["values"], json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise ContransError(
                f"The results of a run cannot be read from {path} ({error}); run the study again, what is done is not "
                f"done again."
            ) from error
