"""A Prefect server for as long as a pipeline runs, where the user has none.

Prefect would start one by itself, but only when a flow begins, with its log on the user's screen, and it
would outlive a killed run. This one starts while the rest is being imported, and ends with its parent.
Run as `python -m flows.server PORT` this module is the server.
"""

import atexit
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import IO

from filelock import FileLock

from contrans.errors import ContransError
from registry import home

START_SECONDS = 120
_FLUSH_SECONDS = 1  # how often Prefect's server writes down the states of task runs
_QUIET = {
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": str(START_SECONDS),
}


def set_environment(*, verbose: bool = False) -> None:
    """Sets what Prefect reads when it is imported; what the user has set stays.

    Args:
        verbose: Whether Prefect's own log is shown.
    """
    os.environ.setdefault("PREFECT_HOME", str(home() / "prefect"))
    level = "INFO" if verbose else "CRITICAL"
    for name, value in {**_QUIET, "PREFECT_LOGGING_LEVEL": level}.items():
        os.environ.setdefault(name, value)


class Server:
    """A Prefect server on loopback in a process of its own.

    Attributes:
        url: Where its API answers.
    """

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/api"
        self._log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115  as long as the server
        folder = Path(os.environ["PREFECT_HOME"])
        folder.mkdir(parents=True, exist_ok=True)
        # Two servers that fill the same empty database would trip over each other.
        self._lock = FileLock(folder / ".start.lock", thread_local=False)
        self._lock.acquire(timeout=START_SECONDS)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "flows.server", str(port)],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            # A terminal's Ctrl-C is for the run, which then tells the server how it ended.
            start_new_session=True,
        )

    def wait(self) -> None:
        """Waits until the server answers.

        Raises:
            ContransError: It ended or did not answer in time.
        """
        deadline = time.monotonic() + START_SECONDS
        try:
            while not self._answers():
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise ContransError(f"Prefect's server did not start ({self._last_words()}). {_FIX}")
                time.sleep(0.05)
        finally:
            self._lock.release()

    def stop(self) -> None:
        """Tells the server to end; it still writes down what it was told last, which nobody need wait for."""
        self._lock.release()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return answer.status == 200
        except OSError:
            return False

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else "without a word"


_FIX = "Free memory and disk space and try again, or set PREFECT_API_URL to a server that runs."


def start_server() -> Server | None:
    """Starts a server unless the user has one, and makes Prefect use it; `wait` for it before the first flow.

    To be called after `set_environment` and before Prefect is imported. The server ends when Python exits.

    Returns:
        The server, or None where Prefect is configured or imported already.
    """
    if "prefect" in sys.modules or os.environ.get("PREFECT_API_URL"):
        return None
    if os.environ["PREFECT_HOME"] != str(home() / "prefect"):
        return None  # the profiles there may name a server; if they do not, Prefect starts its own
    server = Server()
    os.environ["PREFECT_API_URL"] = server.url
    # Registered before Prefect is imported, so run after Prefect has sent its last events.
    atexit.register(server.stop)
    return server


def _serve(port: int) -> None:
    os.environ |= {"PREFECT__SERVER_EPHEMERAL": "1", "PREFECT__SERVER_FINAL": "1", "PREFECT_UI_ENABLED": "0"}
    os.environ.pop("PREFECT_API_URL", None)
    import uvicorn
    from prefect.server.api.server import create_app

    config = uvicorn.Config(create_app(), host="127.0.0.1", port=port, log_level="error", lifespan="on")
    server = uvicorn.Server(config)

    def end_with_parent() -> None:
        sys.stdin.buffer.read()  # returns when the parent closes its end, or is killed
        time.sleep(2 * _FLUSH_SECONDS)
        server.should_exit = True
        time.sleep(10)
        os._exit(0)

    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _serve(int(sys.argv[1]))
