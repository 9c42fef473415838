"""Where words go: data to stdout, talk to stderr, nothing but data and errors when quiet."""

import json
import logging
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TaskID, TextColumn, TimeElapsedColumn
from rich.text import Text

_LOGGERS = ("contrans", "registry", "flows")
WIDE = 120  # columns where there is no terminal whose width counts


def data_console() -> Console:
    """Where tables go."""
    return Console(width=None if sys.stdout.isatty() else shutil.get_terminal_size((WIDE, 24)).columns)


def print_json(value: Any) -> None:
    """Prints JSON on stdout, the same whether a person or a program reads it."""
    sys.stdout.write(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def complain(sentence: str) -> None:
    """Says on stderr what was wrong."""
    console = Console(stderr=True, soft_wrap=True)
    console.print(Text.assemble(("Error: ", "bold red"), sentence))


class Talk:
    """Talk on stderr about what a command does; watches a pipeline (see `flows.progress.Watcher`).

    Args:
        quiet: Whether to say nothing.
        verbose: Whether to show the library's own log too.
    """

    def __init__(self, *, quiet: bool = False, verbose: bool = False) -> None:
        self.console = Console(stderr=True, quiet=quiet, highlight=False)
        self._progress: Progress | None = None
        self._current: Task | None = None
        self._waiting: TaskID | None = None
        self._began = 0.0
        self._tokens = 0
        self._found_done = 0
        level = logging.ERROR if quiet else logging.INFO if verbose else logging.WARNING
        for name in _LOGGERS:
            logger = logging.getLogger(name)
            logger.handlers = [_Handler(self.console)]
            logger.setLevel(level)
            logger.propagate = False

    @contextmanager
    def working(self, text: str) -> Iterator[None]:
        """Shows that something is being done, on a terminal."""
        with self.console.status(text):
            yield

    @contextmanager
    def bars(self) -> Iterator["Talk"]:
        """Shows progress bars on a terminal while a pipeline runs; elsewhere a line for each step."""
        columns = (
            TextColumn("  {task.description}"),
            BarColumn(bar_width=24),
            _Rate(),
            TimeElapsedColumn(),
        )
        live = self.console.is_terminal and not self.console.quiet
        with Progress(*columns, console=self.console, transient=True, disable=not live) as progress:
            self._progress = progress
            try:
                yield self
            finally:
                self._progress = self._current = self._waiting = None

    def say(self, text: str) -> None:
        """Prints a remark; between steps a bar without an end runs until the next thing is told."""
        self.console.print(f"  [dim]{text}[/dim]")
        self.wait(text)

    def wait(self, text: str) -> None:
        """Between steps, runs a bar without an end until the next thing is told."""
        self._wait_no_more()
        if self._progress is not None and self._current is None:
            self._waiting = self._progress.add_task(text, total=None)

    def begin(self, step: str, tokens: int) -> None:
        """Shows a bar for a step."""
        self._wait_no_more()
        self._began, self._tokens = time.monotonic(), 0
        if self._progress is not None:
            identity = self._progress.add_task(step, total=tokens or None)
            self._current = next(task for task in self._progress.tasks if task.id == identity)

    def advance(self, tokens: int) -> None:
        """Moves the bar."""
        self._tokens += tokens
        if self._progress is not None and self._current is not None:
            self._progress.advance(self._current.id, tokens)

    def end(self, step: str, seconds: float, *, computed: bool) -> None:
        """Takes the bar away and leaves a line; steps that were done before are counted."""
        self._wait_no_more()
        if self._progress is not None and self._current is not None:
            self._progress.remove_task(self._current.id)
            self._current = None
        if not computed:
            self._found_done += 1
            return
        took = time.monotonic() - self._began
        rate = f"  {self._tokens / took:,.0f} tokens/s" if self._tokens and took > 0 else ""
        self.console.print(f"  [green]✓[/green] {step}  [dim]{seconds:.1f} s{rate}[/dim]")

    def _wait_no_more(self) -> None:
        if self._progress is not None and self._waiting is not None:
            self._progress.remove_task(self._waiting)
            self._waiting = None

    def cached(self) -> None:
        """Says how many steps had been done before."""
        if self._found_done:
            steps = "step was" if self._found_done == 1 else "steps were"
            self.console.print(f"  [dim]{self._found_done} {steps} done before and not done again[/dim]")


class _Rate(ProgressColumn):
    """Tokens a second."""

    def render(self, task: Task) -> Text:
        """Renders the rate; nothing where no tokens are counted."""
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} tokens/s" if speed and task.total else "", style="cyan")


class _Handler(logging.Handler):
    """Log records as remarks between the progress bars."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Prints a record."""
        style = "yellow" if record.levelno >= logging.WARNING else "dim"
        self._console.print(Text(f"  {record.getMessage()}", style=style))
