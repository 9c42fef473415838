"""`python -m tests.benchmarks [NAME …] [--rounds N] [--json FILE]`."""

import argparse
import gc
import json
import platform
import sys
from pathlib import Path

import torch

from tests.benchmarks import all_benchmarks

from .ratio import Benchmark


def main() -> None:
    """Runs benchmarks, prints a line for each and writes their document."""
    known = {b.name: b for b in all_benchmarks()}
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(known)}; all if none is given")
    parser.add_argument("--rounds", type=int, default=5, help="paired rounds of each, at least 5 for the record")
    parser.add_argument("--json", type=Path, default=Path("benchmarks.json"), help="where to write the results")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in known]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}; there are {', '.join(known)}")
    entries: list[dict[str, object]] = []
    for name in options.names or known:
        entry = _measured(known[name], options.rounds)
        if entry is not None:
            entries.append(entry)
            # after each, so that what was measured outlives an interruption
            options.json.write_text(json.dumps(entries, indent=1) + "\n", encoding="utf-8")


def _measured(benchmark: Benchmark, rounds: int) -> dict[str, object] | None:
    try:
        found = benchmark.run(rounds)
    except RuntimeError as error:
        # what a comparison needs beside this environment may not be to be had; the others go on
        sys.stderr.write(f"{benchmark.name} is left out: {error}\n")
        return None
    entry = benchmark.entry(found)
    ratio = entry["ratio"]
    sys.stdout.write(
        f"{benchmark.name:<22} {ratio['median']:>8.3f}  [{ratio['min']:.3f} … {ratio['max']:.3f}]  "
        f"asked {benchmark.target:g}  against {benchmark.against}  {entry.get('notes') or ''}\n"
    )
    sys.stdout.flush()
    gc.collect()
    machine = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    return {**entry, "machine": machine}


if __name__ == "__main__":
    main()
