"""The playground's queue: who writes now, who waits, and a new process where one has died."""

import asyncio
import logging
import multiprocessing
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

import anyio
import anyio.to_thread

from contrans.errors import ContransError, SpecError
from registry.browse import worker
from registry.browse.facts import VECTOR_FILES
from registry.browse.reading import Reader
from registry.browse.worker import Event, Job
from registry.records import Version

MOST_CONCEPTS = 3
MOST_TOKENS = 200
MOST_SIGNS = 4000  # of a prompt
MOST_DOSE = 2.0  # residual norms
MOST_WAITING = 4
_MOST_MODELS = 2  # kept in memory
_GLANCE = 0.2  # seconds between two looks at the pipe

log = logging.getLogger(__name__)


class QueueFull(ContransError):
    """More are waiting than may."""


@dataclass(frozen=True)
class Question:
    """A job and the model that it is for."""

    reference: str
    job: Job


def question(registry: Reader, form: Mapping[str, str]) -> Question:
    """Reads the form of the playground.

    Args:
        registry: Where the transplants are.
        form: `target`, `prompt`, `tokens`, and `concept1`, `dose1` to `concept3`, `dose3`.

    Raises:
        SpecError: If a number is none or too large, the prompt is empty or too long, or a transplant is of another
            model.
        RegistryError: If a transplant does not exist, or its files are missing or damaged.
    """
    prompt, target = form.get("prompt", ""), form.get("target", "")
    if not prompt.strip():
        raise SpecError("The prompt is empty; type something that the model can continue.")
    if len(prompt) > MOST_SIGNS:
        raise SpecError(f"The prompt has {len(prompt):,} characters; {MOST_SIGNS:,} are the most.")
    tokens = int(_number("The number of tokens", form.get("tokens") or "40", 1, MOST_TOKENS))
    model = registry.get(target, kind="model")
    vectors, doses = [], []
    for i in range(1, MOST_CONCEPTS + 1):
        reference = form.get(f"concept{i}", "")
        if not reference:
            continue
        transplant = registry.get(reference, kind="transplant")
        dose = _number(f"The dose of {transplant.ref}", form.get(f"dose{i}") or "0", -MOST_DOSE, MOST_DOSE)
        if not any(role == "target" and parent.id == model.id for role, parent in registry.inputs(transplant)):
            raise SpecError(f"{transplant.ref} was not made for {model.ref}; choose a concept of that model.")
        if dose:
            vectors.append({name: registry.read(transplant, name) for name in VECTOR_FILES})
            doses.append(dose)
    return Question(str(model.manifest["reference"]), Job(vectors, doses, prompt, tokens))


def _number(what: str, text: str, low: float, high: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    if not low <= value <= high:
        raise SpecError(f"{what} must be a number from {low:g} to {high:g}, not {text[:40]!r}.")
    return value


@dataclass
class _Writer:
    process: BaseProcess
    pipe: Connection
    ready: bool = False
    limiter: anyio.CapacityLimiter = field(default_factory=lambda: anyio.CapacityLimiter(1))

    async def next(self) -> Event | None:
        """The next event, or None if there is none yet; an event "error" that is fatal where the process is dead."""

        def look() -> Event | None:
            return self.pipe.recv() if self.pipe.poll(_GLANCE) else None

        try:
            return await anyio.to_thread.run_sync(look, limiter=self.limiter)
        except (EOFError, OSError):
            self.process.join(5)
            log.warning("The process of the playground died (exit code %s).", self.process.exitcode)
            return {
                "kind": "error",
                "fatal": True,
                "text": f"The process that writes died (exit code {self.process.exitcode}); it starts again with your "
                "next question. If it dies again, memory may be short: choose fewer tokens or a smaller model.",
            }


class Playground:
    """Answers one question after the other, each in the process of its model.

    Args:
        most_waiting: How many may wait behind the one that is answered.
    """

    def __init__(self, *, most_waiting: int = MOST_WAITING) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._most = most_waiting
        self._writers: dict[str, _Writer] = {}

    def check_room(self) -> None:
        """Tells whether one more may wait.

        Raises:
            QueueFull: If too many wait already.
        """
        if self._waiting > self._most:
            raise QueueFull(f"{self._waiting} questions are being answered or wait; try again in a minute.")

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """A place in the queue, for as long as an answer takes.

        Raises:
            QueueFull: If too many wait already.
        """
        self.check_room()
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    async def answer(self, asked: Question) -> AsyncGenerator[Event, None]:
        """Events of `worker.stream` and, before them, "waiting" and "loading"; the last is "end" or "error".

        Closing the iterator stops the writing.
        """
        if self._turn.locked():
            yield {"kind": "waiting", "before": self._waiting - 1}
        async with self._turn:
            writer = self._writer(asked.reference)
            if not writer.ready:
                yield {"kind": "loading"}
                while (event := await writer.next()) is None:
                    pass
                if event["kind"] != "ready":
                    self._give_up(asked.reference)
                    yield event
                    return
                writer.ready = True
            finished = False
            try:
                writer.pipe.send(asked.job)
                while not finished:
                    event = await writer.next()
                    if event is not None:
                        finished = event["kind"] in ("end", "error")
                        if event.get("fatal"):
                            self._give_up(asked.reference)
                        yield event
            except OSError:
                self._give_up(asked.reference)
                finished = True
                yield {"kind": "error", "text": "The process that writes is gone; ask again, and it starts anew."}
            finally:
                if not finished:
                    with anyio.CancelScope(shield=True):
                        await self._stop(asked.reference, writer)

    def close(self) -> None:
        """Ends the processes."""
        for reference in list(self._writers):
            self._give_up(reference)

    def _writer(self, reference: str) -> _Writer:
        known = self._writers.pop(reference, None)
        if known is None or not known.process.is_alive():
            while len(self._writers) >= _MOST_MODELS:
                self._give_up(next(iter(self._writers)))
            # Spawned, since threads of this process may hold locks that a fork would copy.
            context = multiprocessing.get_context("spawn")
            here, there = context.Pipe()
            process = context.Process(target=worker.main, args=(there, reference), daemon=True)
            process.start()
            there.close()
            known = _Writer(process, here)
        self._writers[reference] = known
        return known

    async def _stop(self, reference: str, writer: _Writer) -> None:
        """Stops a job under way; a process that does not come to an end soon is ended."""
        try:
            writer.pipe.send("stop")
            with anyio.move_on_after(10):
                while (event := await writer.next()) is None or event["kind"] not in ("end", "error"):
                    pass
                if not event.get("fatal"):
                    return
        except OSError:
            pass
        self._give_up(reference)

    def _give_up(self, reference: str) -> None:
        writer = self._writers.pop(reference, None)
        if writer is not None:
            writer.pipe.close()
            writer.process.terminate()
            writer.process.join(5)


def level(kl: float) -> int:
    """How strongly a token is coloured, 0 to 9: by the square root of its KL, 9 from 8 nats on."""
    return max(0, min(9, round(9 * (kl / 8.0) ** 0.5)))


def words(event: Event) -> dict[str, Any]:
    """An event as the page gets it, with the level of its colour and without what is meant for the server."""
    found = {key: value for key, value in event.items() if key != "fatal"}
    return {**found, "level": level(event["kl"])} if "kl" in event and event["kind"] == "token" else found


def playable(registry: Reader, target: str) -> list[Version]:
    """The newest transplants into a model that can be played with, by name."""
    found = registry.list("transplant", model=target, newest=True, limit=200)
    kept = [v for v in found if set(VECTOR_FILES) <= registry.files(v).keys()]
    return sorted(kept, key=lambda v: v.name)
