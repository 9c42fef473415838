"""Every model, text set, vector, map, transplant and validation as an immutable version with its lineage."""

from registry.api import Registry
from registry.database import home
from registry.lineage import Edge, Lineage, Step
from registry.names import KINDS
from registry.records import AliasMove, Collected, NewVersion, Outdated, Problem, Result, Run, Version

__all__ = [
    "KINDS",
    "AliasMove",
    "Collected",
    "Edge",
    "Lineage",
    "NewVersion",
    "Outdated",
    "Problem",
    "Registry",
    "Result",
    "Run",
    "Step",
    "Version",
    "home",
]
