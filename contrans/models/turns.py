"""One model at a time: transformers swaps functions of its own classes, for all threads, while it makes one."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

_turn = threading.RLock()


@contextmanager
def one_at_a_time() -> Iterator[None]:
    """Waits until no other thread makes or loads a model through ConTrans.

    `from_pretrained` puts an empty function in the place of `PreTrainedModel.tie_weights` and puts back what it found
    there. Two threads that overlap leave the empty one, and no model of the process has tied weights any more.
    """
    with _turn:
        yield
