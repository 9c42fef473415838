"""`contrans run`."""

import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from contrans.errors import SpecError
from contrans.models import resolve
from flows.cli.talk import Talk, data_console, print_json
from flows.runs import open_registry
from flows.server import set_environment, start_server
from flows.spec import load_spec


def run_command(spec: str, settings: Sequence[str], *, json_file: Path | None, quiet: bool, verbose: bool) -> None:
    """Runs a pipeline and shows what came out.

    Args:
        spec: The spec's file or name.
        settings: "key=value" each.
        json_file: Where the document goes; "-" is stdout.
        quiet: Whether to say nothing on the way.
        verbose: Whether to show the engine's log.
    """
    checked = load_spec(spec, settings)
    # What can be seen at once is said at once, not after minutes of work.
    resolve(checked.source)
    resolve(checked.target)
    open_registry().close()
    to_stdout = json_file is not None and str(json_file) == "-"
    if json_file is not None and not to_stdout:
        _check_writable(json_file)
    talk = Talk(quiet=quiet, verbose=verbose)
    found = _run(checked.canonical(), talk, verbose=verbose)
    talk.cached()
    if to_stdout:
        print_json(found)
    else:
        from flows.cli.tables import result_tables

        console = data_console()
        for part in result_tables(found):
            console.print(part)
    if json_file is not None and not to_stdout:
        _write(json_file, found)
    talk.console.print(f"figure    {found['run']['figure']}", soft_wrap=True)
    talk.console.print("registry  [bold]contrans list[/bold] shows what is there now")


def _run(spec: dict[str, Any], talk: Talk, *, verbose: bool) -> dict[str, Any]:
    set_environment(verbose=verbose)
    server = start_server()
    from flows.tracking import Tracker

    tracker = Tracker()
    with talk.working("starting"):
        from flows.pipeline import pipeline, watched

        if server is not None:
            server.wait()
    with talk.bars() as watcher, watched(watcher, tracker), _engine_settings(own=server is not None):
        return pipeline(spec)


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
