"""Processes that serve: started, watched, started again when they die, and ended together."""

import logging
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from contrans.errors import ContransError

log = logging.getLogger(__name__)

_QUICK_DEATHS, _QUICK_SECONDS = 3, 20.0
_REST_SECONDS = 3.0  # for what an ended process leaves behind
_MOST_LOG = 10_000_000  # bytes, after which a log begins anew


@dataclass
class Child:
    """A Python module in a process of its own, which ends when this one does.

    Attributes:
        name: What people call it; also that of its log.
        module: The module and its arguments.
        environment: Its environment.
        logs: Folder of its log.
        health: Address that answers with status 200 once it is ready, if any.
        deaths: When it died of itself, in seconds of the monotonic clock.
    """

    name: str
    module: Sequence[str]
    environment: Mapping[str, str]
    logs: Path
    health: str | None = None
    deaths: list[float] = field(default_factory=list)
    _process: "subprocess.Popen[bytes] | None" = None

    @property
    def pid(self) -> int | None:
        """The process, while there is one."""
        return self._process.pid if self._process is not None else None

    @property
    def log(self) -> Path:
        """Where it writes what it has to say."""
        return self.logs / f"{self.name}.log"

    def start(self) -> None:
        """Starts it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _MOST_LOG:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flows.serving.tethered", *self.module],
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=out,
                env=dict(self.environment),
                start_new_session=True,  # a terminal's Ctrl-C is for the one that ends them all
            )

    def died(self) -> bool:
        """Whether it has ended of itself since it was started."""
        return self._process is not None and self._process.poll() is not None

    def answers(self) -> bool:
        """Whether it is ready; one without an address is once it runs."""
        if self.health is None:
            return not self.died()
        try:
            with urllib.request.urlopen(self.health, timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait(self, seconds: float, unless: Callable[[], bool] = lambda: False) -> None:
        """Waits until it is ready.

        Args:
            seconds: For how long at most.
            unless: Whether to wait no longer, ready or not.

        Raises:
            ContransError: It ended, or is not ready in time.
        """
        deadline = time.monotonic() + seconds
        while not self.answers() and not unless():
            if self.died() or time.monotonic() > deadline:
                raise ContransError(f"The {self.name} did not start: {self.last_words()} See {self.log}.")
            time.sleep(0.1)

    def last_words(self) -> str:
        """The last line of its log."""
        lines = self.log.read_text(encoding="utf-8", errors="replace").strip().splitlines() if self.log.exists() else []
        words = lines[-1].strip()[:200] if lines else "it said nothing"
        return words if words.endswith(".") else f"{words}."

    def tell(self) -> None:
        """Tells it to end."""
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def end(self, seconds: float) -> None:
        """Waits until it has ended, and ends it and what it started if that takes too long."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.1, seconds))
        except subprocess.TimeoutExpired:
            with suppress(ProcessLookupError):  # it ended in between
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        _end_rest(self._process.pid)
        if self._process.stdin is not None:
            self._process.stdin.close()
        self._process = None


def _end_rest(group: int) -> None:
    """Ends what a process that has ended leaves in its group, as MLflow's server does its own children."""
    deadline = time.monotonic() + _REST_SECONDS
    with suppress(ProcessLookupError):
        os.killpg(group, signal.SIGTERM)
        while time.monotonic() < deadline:
            os.killpg(group, 0)
            time.sleep(0.05)
        os.killpg(group, signal.SIGKILL)


def watch(children: Sequence[Child], until: Callable[[], bool], revived: Callable[[Child], None]) -> None:
    """Starts children again that die, until told to stop.

    Args:
        children: All that run.
        until: Whether to stop.
        revived: Told of each that was started again.

    Raises:
        ContransError: One died several times right after its start.
    """
    while not until():
        for child in children:
            if not child.died():
                continue
            now = time.monotonic()
            child.deaths = [*(at for at in child.deaths if now - at < _QUICK_SECONDS * _QUICK_DEATHS), now]
            if len(child.deaths) > _QUICK_DEATHS:
                raise ContransError(f"The {child.name} dies whenever it is started: {child.last_words()}")
            log.warning("The %s died and is started again.", child.name)
            child.start()
            revived(child)
        time.sleep(0.25)


def stop(children: Sequence[Child], seconds: float = 15.0) -> None:
    """Ends children, those first that were started last, so that workers still find their server."""
    deadline = time.monotonic() + seconds
    for child in reversed(children):
        child.tell()
        child.end(deadline - time.monotonic())
