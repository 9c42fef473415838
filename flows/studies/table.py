"""The tidy table of a study: a row for each number that any of its runs measured, as Parquet.

| column | value |
|---|---|
| `source`, `target` | the models, as the spec names them |
| `source_block`, `target_block`, `estimator`, `rows` | what was chosen for the pair; `rows` are kinds, joined by "+" |
| `concept` | a concept, "all" for the mean over concepts, or a task of capability |
| `protocol`, `split`, `arm`, `metric` | what was measured, on what, with what in place |
| `dose`, `value`, `low`, `high`, `n` | the number, with its interval; null where there is none |
| `heldout_r2`, `match_rate`, `rows_fitted` | of the map, the same in all rows of a run |
| `run` | id of the run in the registry |
| `sweep.KEY` | the value of each swept setting: a number, or text (JSON where it is no text) |
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from contrans.errors import ContransError

_TEXT = ("source", "target", "concept", "protocol", "split", "arm", "metric", "estimator", "rows", "run")
_WHOLE = ("source_block", "target_block", "n", "rows_fitted")
_REAL = ("dose", "value", "low", "high", "heldout_r2", "match_rate")
COLUMNS = (
    *("source", "target", "source_block", "target_block", "estimator", "rows"),
    *("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n"),
    *("heldout_r2", "match_rate", "rows_fitted", "run"),
)
"""Columns that every study has, in their order; those of swept settings come after them."""
_OF_ROWS = ("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n")


def tidy(runs: Iterable[tuple[Mapping[str, Any], Mapping[str, Any]]], keys: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The rows of a study.

    Args:
        runs: the swept values of each run that finished, and its document (see `flows.results`).
        keys: the swept settings.
    """
    for values, found in runs:
        chosen = found["choice"]["chosen"]
        of_run = {
            "source": found["spec"]["source"],
            "target": found["spec"]["target"],
            "source_block": chosen["source_block"],
            "target_block": chosen["target_block"],
            "estimator": found["map"]["estimator"],
            "rows": "+".join(chosen["mix"]),
            "heldout_r2": found["map"]["heldout_r2"],
            "match_rate": found["match_rate"],
            "rows_fitted": found["rows_fitted"],
            "run": found["run"]["id"],
        }
        swept = {f"sweep.{key}": values[key] for key in keys}
        for row in found["validations"]:
            whole = {**of_run, **{column: row[column] for column in _OF_ROWS}}
            yield {**{column: whole[column] for column in COLUMNS}, **swept}


def write_parquet(rows: Sequence[Mapping[str, Any]], keys: Sequence[str], path: Path, *, about: str = "") -> None:
    """Writes the table of a study; a file that is there is replaced once the new one is whole.

    Args:
        rows: of `tidy`.
        keys: the swept settings.
        path: of the file.
        about: kept in the file's metadata under `contrans`, such as the spec as JSON.

    Raises:
        ContransError: it cannot be written.
    """
    import pyarrow as pa
    from pyarrow import parquet

    columns: dict[str, Any] = {}
    for name in COLUMNS:
        kind = pa.string() if name in _TEXT else pa.int64() if name in _WHOLE else pa.float64()
        columns[name] = pa.array([row[name] for row in rows], type=kind)
    for key in keys:
        columns[f"sweep.{key}"] = pa.array(plain([row[f"sweep.{key}"] for row in rows]))
    table = pa.table(columns).replace_schema_metadata({"contrans": about})
    part = path.with_name(f".{path.name}.part")
    try:
        parquet.write_table(table, part, compression="zstd")
        part.replace(path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise ContransError(f"The table cannot be written to {path} ({error}); name another folder.") from error


def plain(values: Sequence[Any]) -> list[Any]:
    """Values of a setting as one column: numbers or truth values if all are, else texts, with JSON for what is none."""
    given = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in given):
        return list(values)
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in given):
        whole = all(isinstance(value, int) for value in given)
        return list(values) if whole else [None if value is None else float(value) for value in values]
    return [value if value is None or isinstance(value, str) else json.dumps(value) for value in values]
