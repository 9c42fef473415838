"""The first steps of a run, done while Prefect is still starting.

The engine takes seconds to import and to start, in which a small pipeline can do a good part of its work. Steps are
named by what they are made from, so whoever does one first leaves what any other would have made: a thread begins with
the first step at once, and the flow takes over after the step that is under way.
"""

import logging
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

from flows.locks import Abandoned, to_compute
from flows.pool import Pool
from flows.progress import Watcher, waiting_for
from flows.runs import steps_folder
from flows.spec import PipelineSpec
from flows.steps import Step, StepContext, build_steps, spared
from flows.store import Store
from flows.study import SIDES

log = logging.getLogger(__name__)


class _Left(Exception):
    """Ends a step that nobody waits for any more."""


class Ahead:
    """Does the steps of a spec in order, in a thread, until the flow takes over.

    What fails here fails again in the flow, which says so and notes it.

    Attributes:
        spec: The spec.
        pool: Its models, with which the flow goes on.
        preparing: Seconds that naming both models took, and fetching or loading those that were never loaded here.
        seconds: Time of each step that was done here, by its key.
    """

    def __init__(self, spec: PipelineSpec, watcher: Watcher) -> None:
        self.spec, self.pool = spec, Pool(spec, say=watcher.say)
        self.preparing = 0.0
        self.seconds: dict[str, float] = {}
        self._watcher = watcher
        self._begun, self._enough, self._leaving = threading.Event(), threading.Event(), threading.Event()
        executor = ThreadPoolExecutor(1, thread_name_prefix="first-steps")
        self._work: Future[None] = executor.submit(self._run)
        executor.shutdown(wait=False)

    def begun(self) -> None:
        """Returns once the first step computes, or none will: from then on Python is free for another's imports."""
        self._begun.wait()

    def finish(self) -> None:
        """Returns once the step that is under way is done; no other is begun."""
        self._enough.set()
        error = self._work.exception()
        if error is not None:
            log.info("The first steps were not all done while the engine started (%s).", error)

    def abandon(self) -> None:
        """Returns once the step that is under way is done, or is left at its next sign of life."""
        self._leaving.set()
        self.finish()

    def _advance(self, tokens: int) -> None:
        if self._leaving.is_set():
            raise _Left
        self._begun.set()
        self._watcher.advance(tokens)

    def _run(self) -> None:
        try:
            self._do_all()
        finally:
            self._begun.set()

    def _do_all(self) -> None:
        start = time.monotonic()
        records = [self.pool.record(side) for side in SIDES]
        self.preparing = time.monotonic() - start
        store = Store(steps_folder())
        steps = {step.name: step for step in build_steps(self.spec, *records)}
        context = StepContext(self.spec, store, steps, self.pool, self._advance)
        with store.holding(step.key for step in steps.values()):
            needless = spared(list(steps.values()), store)
            for step in steps.values():
                if self._enough.is_set():
                    return
                if store.has(step.key) or step.name in needless:
                    continue
                try:
                    self._compute(step, context)
                except Abandoned:
                    return

    def _wait(self, step: str) -> None:
        self._begun.set()
        self._watcher.say(waiting_for(step))

    def _compute(self, step: Step, context: StepContext) -> None:
        with to_compute(
            context.store, step.key, waits=partial(self._wait, step.name), abandoned=self._enough.is_set
        ) as wanted:
            if not wanted:
                return
            self._watcher.begin(step.name, sum(cost.tokens for cost in step.cost_left(context.store).by_model))
            start = time.monotonic()
            context.store.write(step.key, step.run(context))
            self.seconds[step.key] = round(time.monotonic() - start, 4)
            self._watcher.end(step.name, self.seconds[step.key], computed=True)
