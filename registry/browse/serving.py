"""Serving the pages: one process on one port, until it is interrupted."""

import errno
import logging
import socket
from collections.abc import Callable

import uvicorn

from contrans.errors import SpecError
from registry.browse.app import create_app
from registry.browse.elsewhere import NOWHERE, Elsewhere
from registry.browse.reading import Reader
from registry.browse.security import check_exposure, is_loopback

PORT = 8760
_BACKLOG = 256

log = logging.getLogger(__name__)


def serve(
    registry: Reader,
    *,
    host: str = "127.0.0.1",
    port: int | None = None,
    token: str | None = None,
    elsewhere: Elsewhere = NOWHERE,
    ready: Callable[[str], None] = lambda address: None,
) -> None:
    """Serves the registry's pages until the process is interrupted.

    Args:
        registry: What is shown.
        host: Where to listen; other than loopback only with a token.
        port: The port, 0 for any that is free; by default `PORT`, or a free one where that is taken.
        token: What callers must know.
        elsewhere: Where MLflow and Prefect show the registry's runs.
        ready: Told the address, with the token if there is one, once it is open.

    Raises:
        SpecError: If others would reach it without a token, or the port cannot be had.
    """
    check_exposure(host, token)
    with _listen(host, port) as opened:
        shown = f"[{host}]" if ":" in host else host
        address = f"http://{shown}:{opened.getsockname()[1]}/"
        app = create_app(registry, token=token, local=is_loopback(host), elsewhere=elsewhere)
        settings = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=3
        )
        ready(address + (f"?token={token}" if token else ""))
        uvicorn.Server(settings).run(sockets=[opened])


def _listen(host: str, port: int | None) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    wanted = PORT if port is None else port
    try:
        return socket.create_server((host, wanted), family=family, backlog=_BACKLOG)
    except (OSError, OverflowError) as error:
        if port is None and getattr(error, "errno", None) == errno.EADDRINUSE:
            return _listen(host, 0)
        reason = getattr(error, "strerror", None) or str(error)
        raise SpecError(f"Port {wanted} of {host} cannot be had ({reason}); choose another with --port.") from error
