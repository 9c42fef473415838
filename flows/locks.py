"""One computes, others wait: a lock for each content key, so that equal work at the same time is done once.

A lock is a file that the system frees when its process ends, however that ends. It is taken away when the work is
done; of a process that was killed it stays behind without anyone holding it, and the next one takes it over.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from filelock import FileLock, Timeout

from contrans.errors import ContransError
from flows.store import Store

_EVERY = 0.1
"""Seconds after which whoever waits looks again."""


class Abandoned(Exception):
    """Nobody wants the work any more for which a lock was waited for."""


@contextmanager
def to_compute(
    store: Store,
    key: str,
    *,
    waits: Callable[[], None] = lambda: None,
    abandoned: Callable[[], bool] = lambda: False,
) -> Iterator[bool]:
    """Holds the lock of a key while its output is made.

    Args:
        store: where the output goes.
        key: the content key.
        waits: told once if another thread, process or machine with the same folder holds the lock.
        abandoned: asked while waiting whether to go on.

    Yields:
        Whether the output is still to be made; not if it was made by whoever held the lock before.

    Raises:
        Abandoned: `abandoned` said so.
        ContransError: the folder of the locks cannot be written.
    """
    if store.has(key):
        yield False
        return
    place = store.locks / f"{key}.computing"
    # not thread-local: a step may be waited for in one thread and given up by the end of another
    lock = FileLock(place, thread_local=False, poll_interval=_EVERY)
    try:
        store.locks.mkdir(parents=True, exist_ok=True)
        _acquire(lock, waits, abandoned)
    except OSError as error:
        raise ContransError(
            f"The locks of steps cannot be written to {store.locks} ({error.strerror}); check your rights on it, or "
            f"set CONTRANS_HOME to another folder."
        ) from error
    try:
        store.tidy(key)  # a process that was killed in the middle of writing leaves a part
        yield not store.has(key)
    finally:
        # while it is held: who waits for a file that is gone begins anew with another
        with suppress(OSError):
            place.unlink()
        lock.release()


def _acquire(lock: FileLock, waits: Callable[[], None], abandoned: Callable[[], bool]) -> None:
    try:
        lock.acquire(blocking=False)
        return
    except Timeout:
        waits()
    try:
        lock.acquire(cancel_check=abandoned)
    except Timeout as error:
        raise Abandoned from error
