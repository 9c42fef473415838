"""When a step that failed is tried again: only where that can help.

A network comes back, and memory that was short is enough for smaller batches. Input that cannot be used stays so.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prefect import Task
    from prefect.client.schemas import State, TaskRun

    from flows.spec import PipelineSpec

ATTEMPTS = 3
"""How often a step is tried again."""
_FEWEST = 16
"""Tokens of the smallest batch that a spec allows."""
_NETWORK = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3", "aiohttp", "botocore")
"""Libraries whose errors are about the network, as far as they speak of connections or time."""
_PASSING = ("Connect", "Timeout", "Network", "RemoteProtocol", "ReadError", "WriteError", "IncompleteRead")


def out_of_memory(error: BaseException) -> bool:
    """Whether a GPU had too little memory."""
    torch = sys.modules.get("torch")  # without it nothing can have run on a GPU
    return torch is not None and any(isinstance(e, torch.OutOfMemoryError) for e in _chain(error))


def of_the_network(error: BaseException) -> bool:
    """Whether no answer came over the network, or one that says to come again."""
    return any(_is_of_the_network(e) for e in _chain(error))


def helps(error: BaseException) -> bool:
    """Whether what failed with this error may work when it is tried again."""
    return out_of_memory(error) or of_the_network(error)


def worth_retrying(_task: "Task[..., Any]", _run: "TaskRun", state: "State[Any]") -> bool:
    """The condition that Prefect asks before it tries a task again."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, BaseException) and helps(error)


RETRIES: dict[str, Any] = {
    "retries": ATTEMPTS,
    "retry_delay_seconds": [1, 4, 16],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": worth_retrying,
}
"""Options of a task that is tried again where that helps."""


@dataclass
class Batches:
    """How far the batches of a run have been made smaller, since memory ran out.

    Attributes:
        halved: how many times.
    """

    halved: int = 0

    def fitted(self, spec: "PipelineSpec") -> "PipelineSpec":
        """The spec with batches of that size, or itself; no content key hangs on it."""
        if not self.halved:
            return spec
        tokens = max(_FEWEST, spec.compute.batch_tokens >> self.halved)
        return spec.model_copy(update={"compute": spec.compute.model_copy(update={"batch_tokens": tokens})})

    @contextmanager
    def smaller_next_time(self) -> Iterator[None]:
        """Makes batches half as large from now on if memory runs out."""
        try:
            yield
        except Exception as error:
            if out_of_memory(error):
                self.halved += 1
                _give_back_memory()
            raise


def _give_back_memory() -> None:
    import gc

    import torch

    from flows.models import SHARED

    SHARED.clear()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _is_of_the_network(error: BaseException) -> bool:
    hub = sys.modules.get("registry.hub.client")  # slow to import, and without it the Hub was not asked
    if hub is not None and isinstance(error, hub.HubError):
        return bool(getattr(error, "passing", False))
    if isinstance(error, (ConnectionError, TimeoutError)):
        return True
    library = type(error).__module__.partition(".")[0]
    if library == "socket":  # names that cannot be resolved
        return True
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(status, int):
        return status in (408, 425, 429) or status >= 500
    return library in _NETWORK and any(word in type(error).__name__ for word in _PASSING)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and what it was raised from."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__
