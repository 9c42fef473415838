"""The pipeline spec: what a YAML file may say, and reading it with errors that name the line and the fix."""

from flows.spec.model import Blocks, Compute, CorpusRows, MapSettings, PipelineSpec, Refine, Validate
from flows.spec.reading import find_spec, load_spec, load_sweep, shipped_specs
from flows.spec.sweeps import Point, Sweep

__all__ = [
    "Blocks",
    "Compute",
    "CorpusRows",
    "MapSettings",
    "PipelineSpec",
    "Point",
    "Refine",
    "Sweep",
    "Validate",
    "find_spec",
    "load_spec",
    "load_sweep",
    "shipped_specs",
]
