"""Prefect for as long as a command runs a flow: a server if the user has none, and a watcher for what it does."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from flows.cli.talk import Talk
from flows.server import set_environment, start_server


@contextmanager
def engine(talk: Talk, *, verbose: bool = False) -> Iterator[None]:
    """Within it flows run, and the terminal shows what they do.

    Args:
        talk: Where that is shown.
        verbose: Whether to show Prefect's own log too.
    """
    set_environment(verbose=verbose)
    # Prefect tells on a logger of its own, past its settings, that it still sends events while Python ends.
    logging.getLogger("EventsWorker").setLevel(logging.ERROR)
    server = start_server()
    with talk.bars() as watcher:
        talk.wait("starting")
        from prefect.settings import temporary_settings

        from flows.serving.stages import Untracked
        from flows.session import watched

        if server is not None:
            server.wait()
        # Heartbeats tell a server of dead runs; our own dies with the run, and their thread costs a second to join.
        own: dict[Any, Any] = {} if server is None else {"PREFECT_FLOWS_HEARTBEAT_FREQUENCY": None}
        with watched(watcher, Untracked()), temporary_settings(own):
            yield
