"""MLflow beside the cells of a matrix: what it should know is kept at once, and told while the next cells run.

A note lies on disk from the moment its cell ends until MLflow has it, so that nothing is lost with a process that is
killed: the next run that finds MLflow tells it.
"""

import json
import logging
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flows.runs import open_registry, runs_folder
from flows.sweep import RESULTS
from flows.tracking.notes import note_of
from flows.tracking.tracker import Tracker, failures
from flows.tracking.waiting import put_by, tell_waiting

log = logging.getLogger(__name__)


class LaterTracker(Tracker):
    """Notes runs in a thread of its own.

    Attributes:
        ids: MLflow's ids of the runs that were told, by the ids of the pipelines' runs.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ids: dict[str, str] = {}
        self._wake, self._ending = threading.Event(), threading.Event()
        self._teller = threading.Thread(target=self._tell_all, name="mlflow-notes", daemon=True)
        self._teller.start()

    def track(
        self, document: Mapping[str, Any], *, started: float, tags: Mapping[str, str], files: Mapping[str, bytes]
    ) -> str | None:
        """Keeps a note of what `Tracker.track` tells at once and gives no id, see `finish`; an id if that fails."""
        if put_by(note_of(document, started=started, ended=time.time(), tags=tags, files=files)) is None:
            return super().track(document, started=started, tags=tags, files=files)
        self._wake.set()
        return None

    def finish(self) -> dict[str, str]:
        """Returns once MLflow has all notes, or does not answer.

        Returns:
            MLflow's ids by those of the runs, which stand in the registry and in the runs' documents now.
        """
        self._ending.set()
        self._wake.set()
        self._teller.join()
        for run, its_id in self.ids.items():
            _note_in_document(runs_folder() / run / RESULTS, its_id)
        return self.ids

    def _tell_all(self) -> None:
        self._thread.join()
        why = self._failure
        while not self._ending.is_set() or self._wake.is_set():
            self._wake.wait()
            self._wake.clear()
            if self._client is None:
                continue
            try:
                while told := tell_waiting(self._tell_again):
                    self.ids |= told
                    with open_registry() as registry:
                        for run, its_id in told.items():
                            registry.link_mlflow(run, its_id)
                why = None
            except failures() as error:
                why = error
        if why is not None:
            log.warning("Runs that wait for MLflow wait on (%s). The registry has them all the same.", why)


def with_ids(found: Mapping[str, Any] | None, ids: Mapping[str, str]) -> Mapping[str, Any] | None:
    """A run's document with MLflow's id, where it is known by now.

    Args:
        found: The document; None of a run that failed.
        ids: MLflow's ids by those of the runs.
    """
    if found is None or found["run"]["id"] not in ids:
        return found
    return {**found, "run": {**found["run"], "mlflow_run_id": ids[found["run"]["id"]]}}


def _note_in_document(path: Path, mlflow_run_id: str) -> None:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        part = path.with_name(f".{path.name}.part")
        part.write_text(json.dumps({**found, "run": {**found["run"], "mlflow_run_id": mlflow_run_id}}, indent=1))
        part.replace(path)
    except (OSError, ValueError, KeyError) as error:
        log.warning("MLflow's id of a run cannot be noted in %s (%s); the registry has it.", path, error)
