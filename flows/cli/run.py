"""`contrans run`."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.text import Text

from contrans.errors import ContransError, SpecError
from contrans.models import resolve
from flows.cli.talk import Talk, data_console, print_json
from flows.runs import open_registry
from flows.server import set_environment, start_server
from flows.spec import PipelineSpec, Point, Sweep, load_sweep

Pipeline = Callable[[dict[str, Any]], dict[str, Any]]


def run_command(spec: str, settings: Sequence[str], *, json_file: Path | None, quiet: bool, verbose: bool) -> None:
    """Runs a pipeline, or all of a sweep, and shows what came out.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        json_file: Where the document goes; "-" is stdout.
        quiet: Whether to say nothing on the way.
        verbose: Whether to show the engine's log.

    Raises:
        ContransError: It cannot be run; of a sweep, after everything was shown, that points of it failed.
    """
    sweep = load_sweep(spec, settings)
    # What can be seen at once is said at once, not after minutes of work.
    for reference in dict.fromkeys(r for point in sweep.points for r in (point.spec.source, point.spec.target)):
        resolve(reference)
    open_registry().close()
    to_stdout = json_file is not None and str(json_file) == "-"
    if json_file is not None and not to_stdout:
        _check_writable(json_file)
    talk = Talk(quiet=quiet, verbose=verbose)
    failed = None
    with _engine(sweep.points[0].spec, talk, verbose=verbose) as pipeline:
        if sweep.axes:
            found, failed = _sweep(sweep, pipeline, talk)
        else:
            found = pipeline(sweep.points[0].spec.canonical())
    talk.cached()
    if to_stdout:
        print_json(found)
    else:
        from flows.cli.tables import result_tables, sweep_tables

        console = data_console()
        for part in sweep_tables(found) if sweep.axes else result_tables(found):
            console.print(part)
    if json_file is not None and not to_stdout:
        _write(json_file, found)
    if found["run"]["figure"] is not None:
        talk.console.print(f"figure    {found['run']['figure']}", soft_wrap=True)
    talk.console.print("registry  [bold]contrans list[/bold] shows what is there now")
    if failed is not None:
        raise failed


def _sweep(sweep: Sweep, pipeline: Pipeline, talk: Talk) -> tuple[dict[str, Any], ContransError | None]:
    from flows.sweep import Outcome, failure, keep, run_points, sweep_document

    def begins(number: int, point: Point) -> None:
        counted = f"  {number + 1} of {len(sweep.points)}"
        talk.console.print(Text.assemble((point.label, "bold"), (counted, "dim")))

    def ends(outcome: Outcome) -> None:
        if outcome.error is not None:
            talk.console.print(Text.assemble(("  failed: ", "bold red"), outcome.error))

    outcomes = run_points(sweep, pipeline, begins=begins, ends=ends)
    return keep(sweep_document(sweep, outcomes)), failure(outcomes)


@contextmanager
def _engine(first: PipelineSpec, talk: Talk, *, verbose: bool) -> Iterator[Pipeline]:
    """The flow, with a server, a tracker and a watcher for as many runs as are wanted; the first begins at once."""
    set_environment(verbose=verbose)
    server = start_server()
    from flows.ahead import Ahead

    with talk.bars() as watcher:
        talk.wait("starting")
        ahead = Ahead(first, watcher)
        try:
            from flows.pipeline import pipeline, watched
            from flows.tracking import Tracker

            tracker = Tracker()
            if server is not None:
                server.wait()
            with watched(watcher, tracker, ahead), _engine_settings(own=server is not None):
                yield pipeline
        finally:
            ahead.abandon()


@contextmanager
def _engine_settings(*, own: bool) -> Iterator[None]:
    if not own:
        yield
        return
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    # Heartbeats tell a server of dead runs; ours dies with the run, and their thread costs a second to join.
    with temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


def _check_writable(path: Path) -> None:
    if path.is_dir():
        raise SpecError(f"{path} is a folder; name a file for --json.")
    if not path.absolute().parent.is_dir():
        raise SpecError(f"The folder of {path} does not exist; create it, or name another file for --json.")
    if not os.access(path if path.exists() else path.absolute().parent, os.W_OK):
        raise SpecError(f"{path} cannot be written; name another file for --json.")


def _write(path: Path, found: dict[str, Any]) -> None:
    text = json.dumps(found, indent=1, ensure_ascii=False)
    if path.exists() and not path.is_file():  # such as /dev/stderr
        path.write_text(text, encoding="utf-8")
        return
    handle, name = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
        Path(name).chmod(0o644)
        Path(name).replace(path)
    except OSError as error:
        Path(name).unlink(missing_ok=True)
        raise SpecError(f"The results cannot be written to {path} ({error.strerror}).") from error
