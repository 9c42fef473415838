"""`contrans run`."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import RenderableType
from rich.text import Text

from contrans.errors import ContransError, SpecError
from contrans.models import resolve
from flows.cli.talk import Talk, data_console, print_json
from flows.runs import open_registry
from flows.server import set_environment, start_server
from flows.spec import Matrix, PipelineSpec, Point, Sweep, load_sweep

if TYPE_CHECKING:
    from flows.sweep import Outcome
    from flows.tracking import Tracker

Pipeline = Callable[[dict[str, Any]], dict[str, Any]]


def run_command(spec: str, settings: Sequence[str], *, json_file: Path | None, quiet: bool, verbose: bool) -> None:
    """Runs a pipeline, or all of a sweep or a matrix, and shows what came out.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        json_file: Where the document goes; "-" is stdout.
        quiet: Whether to say nothing on the way.
        verbose: Whether to show the engine's log.

    Raises:
        ContransError: It cannot be run; of several, after everything was shown, that some of them failed.
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
    found, failed = run_all(sweep, talk, verbose=verbose)
    talk.cached()
    if to_stdout:
        print_json(found)
    else:
        show(sweep, found)
    if json_file is not None and not to_stdout:
        _write(json_file, found)
    if found["run"]["figure"] is not None:
        talk.console.print(f"figure    {found['run']['figure']}", soft_wrap=True)
    from flows.cli.front import program

    called = program()
    # What is copied stands at the end of its line, as it is typed.
    for what, command in (("list it:", "list"), ("browse it:", "browse")):
        talk.console.print(Text.assemble(f"{what:<12}", (f"{called} {command}", "bold")), soft_wrap=True)
    if failed is not None:
        raise failed


def run_all(sweep: Sweep, talk: Talk, *, verbose: bool = False) -> tuple[dict[str, Any], ContransError | None]:
    """Runs whatever a spec asks for: a pipeline, a sweep or a matrix.

    Args:
        sweep: What was read.
        talk: Is told what happens.
        verbose: Whether to show the engine's log.

    Returns:
        The document, see `flows.results`, and what failed of it.

    Raises:
        ContransError: A single pipeline cannot be run.
    """
    if isinstance(sweep, Matrix):
        from flows.matrix import running_order

        order = running_order(sweep)
        with _engine(sweep.points[order[0]].spec, talk, verbose=verbose, later=True) as (pipeline, tracker):
            return _matrix(sweep, pipeline, tracker, talk, order)
    with _engine(sweep.points[0].spec, talk, verbose=verbose) as (pipeline, _):
        if sweep.many:
            return _sweep(sweep, pipeline, talk)
        return pipeline(sweep.points[0].spec.canonical()), None


def show(sweep: Sweep, found: dict[str, Any]) -> None:
    """Prints the tables of what was run.

    Args:
        sweep: What was asked for.
        found: The document of it.
    """
    console = data_console()
    for part in _tables(sweep, found):
        console.print(part)


def _tables(sweep: Sweep, found: dict[str, Any]) -> Iterator[RenderableType]:
    if isinstance(sweep, Matrix):
        from flows.matrix_report import SHOWN, matrix_grid

        whole = matrix_grid(found)
        yield whole if len(whole.rows) <= SHOWN else matrix_grid(found, means=True)
        return
    from flows.cli.tables import result_tables, sweep_tables

    yield from sweep_tables(found) if sweep.many else result_tables(found)


def _sweep(sweep: Sweep, pipeline: Pipeline, talk: Talk) -> tuple[dict[str, Any], ContransError | None]:
    from flows.sweep import failure, keep, run_points, sweep_document

    outcomes = run_points(sweep, pipeline, begins=_begins(talk, len(sweep.points)), ends=_ends(talk))
    return keep(sweep_document(sweep, outcomes)), failure(outcomes)


def _matrix(
    matrix: Matrix, pipeline: Pipeline, tracker: "Tracker", talk: Talk, order: Sequence[int]
) -> tuple[dict[str, Any], ContransError | None]:
    from flows.matrix import keep_matrix, matrix_document, run_matrix
    from flows.matrix_tracking import LaterTracker, with_ids
    from flows.sweep import failure

    begins, ends = _begins(talk, len(matrix.points)), _ends(talk)
    outcomes = run_matrix(matrix, pipeline, begins=begins, ends=ends, order=order)
    if isinstance(tracker, LaterTracker):
        talk.wait("telling MLflow")
        ids = tracker.finish()
        outcomes = [replace(outcome, found=with_ids(outcome.found, ids)) for outcome in outcomes]
    return keep_matrix(matrix_document(matrix, outcomes)), failure(outcomes, what="cells of the matrix")


def _begins(talk: Talk, total: int) -> Callable[[int, Point], None]:
    def begins(number: int, point: Point) -> None:
        talk.console.print(Text.assemble((point.label, "bold"), (f"  {number + 1} of {total}", "dim")))

    return begins


def _ends(talk: Talk) -> Callable[["Outcome"], None]:
    def ends(outcome: "Outcome") -> None:
        if outcome.error is not None:
            talk.console.print(Text.assemble(("  failed: ", "bold red"), outcome.error))

    return ends


@contextmanager
def _engine(
    first: PipelineSpec, talk: Talk, *, verbose: bool, later: bool = False
) -> Iterator[tuple[Pipeline, "Tracker"]]:
    """The flow, with a server, a tracker and a watcher for as many runs as are wanted; the first begins at once.

    With `later` MLflow is told while further runs are under way, and the tracker must be finished at the end.
    """
    set_environment(verbose=verbose)
    server = start_server()
    from flows.ahead import Ahead

    with talk.bars() as watcher:
        talk.wait("starting")
        ahead = Ahead(first, watcher)
        try:
            # Two threads that import take turns, and the first step would come as late as Prefect.
            ahead.begun()
            from flows.matrix_tracking import LaterTracker
            from flows.pipeline import pipeline
            from flows.session import watched
            from flows.tracking import Tracker

            tracker = LaterTracker() if later else Tracker()
            if server is not None:
                server.wait()
            with watched(watcher, tracker, ahead), _engine_settings(own=server is not None):
                yield pipeline, tracker
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
