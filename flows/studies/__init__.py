"""Studies: a sweep or a matrix as one tidy table and its figures."""

from flows.studies.table import COLUMNS, tidy, write_parquet

__all__ = ["COLUMNS", "tidy", "write_parquet"]
