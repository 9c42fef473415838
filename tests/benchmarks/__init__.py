"""Benchmarks: each compares two things in one process and prints how many times faster the first is.

They are no tests: a machine that is busy makes a ratio wider, not a build red. `make bench` runs them all and writes
`benchmarks.json`; `python -m tests.benchmarks NAME …` runs some.
"""

from importlib import import_module

from .ratio import Benchmark

MODULES = ("capture", "precision", "maps", "validation", "steering", "orchestration", "registry", "browse")
"""Modules with a list `BENCHMARKS`, in the order that they run in."""


def all_benchmarks() -> list[Benchmark]:
    """Every benchmark."""
    return [b for name in MODULES for b in import_module(f"{__name__}.{name}").BENCHMARKS]
