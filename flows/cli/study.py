"""`contrans study`."""

import os
from collections.abc import Sequence
from pathlib import Path

from contrans.errors import SpecError
from contrans.models import resolve
from flows.cli.run import run_all, show
from flows.cli.talk import Talk, print_json
from flows.runs import open_registry
from flows.spec import load_sweep


def study_command(
    spec: str, settings: Sequence[str], *, out: Path, as_json: bool = False, quiet: bool, verbose: bool
) -> None:
    """Runs a sweep or a matrix and writes its table and figures.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        out: The folder of the study.
        as_json: Whether to print the document (see `flows.results`) instead of tables.
        quiet: Whether to say nothing on the way.
        verbose: Whether to show the engine's log.

    Raises:
        ContransError: The spec asks for one pipeline alone, it cannot be run, or the folder cannot be written; after
            everything was written, that some of its pipelines failed.
    """
    sweep = load_sweep(spec, settings)
    if not sweep.many:
        raise SpecError(
            f"{spec} is one pipeline, and a study compares several: give it a sweep, or sources and targets; "
            f"`contrans run` runs it as it is."
        )
    for reference in dict.fromkeys(r for point in sweep.points for r in (point.spec.source, point.spec.target)):
        resolve(reference)
    open_registry().close()
    _check_folder(out)
    talk = Talk(quiet=quiet, verbose=verbose)
    found, failed = run_all(sweep, talk, verbose=verbose)
    from flows.studies.running import write_study

    files = write_study(found, out)
    talk.cached()
    if as_json:
        print_json(found)
    else:
        show(sweep, found)
    for file in files:
        talk.console.print(f"study     {file}", soft_wrap=True)
    if failed is not None:
        raise failed


def _check_folder(path: Path) -> None:
    if path.exists() and not path.is_dir():
        raise SpecError(f"{path} is a file; name a folder for --out.")
    nearest = next(p for p in (path.absolute(), *path.absolute().parents) if p.exists())
    if not os.access(nearest, os.W_OK):
        raise SpecError(f"{path} cannot be written; name another folder for --out.")
