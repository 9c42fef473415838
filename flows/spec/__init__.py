"""The pipeline spec: what a YAML file may say, and reading it with errors that name the line and the fix."""

from flows.spec.matrix import Cell, Matrix
from flows.spec.model import Blocks, Compute, CorpusRows, MapSettings, PipelineSpec, Publish, Refine, Validate
from flows.spec.reading import find_spec, load_spec, load_sweep, shipped_specs
from flows.spec.sweeps import Point, Sweep

__all__ = [
    "Blocks",
    "Cell",
    "Compute",
    "CorpusRows",
    "MapSettings",
    "Matrix",
    "PipelineSpec",
    "Point",
    "Publish",
    "Refine",
    "Sweep",
    "Validate",
    "find_spec",
    "load_spec",
    "load_sweep",
    "shipped_specs",
]
