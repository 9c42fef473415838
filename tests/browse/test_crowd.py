"""Fifty clients at once, at a real server: every one gets every page, whole."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection

import pytest
import uvicorn

from registry.browse import Reader, create_app
from tests.browse.conftest import Filled

CLIENTS = 50
PAGES = ("/", "/?text=joy", "/version/transplant/anger/small/tiny@3")


@pytest.fixture
def port(filled: Filled) -> Iterator[int]:
    with Reader.open(filled.path) as reader:
        server = uvicorn.Server(uvicorn.Config(create_app(reader), port=0, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        yield server.servers[0].sockets[0].getsockname()[1]
        server.should_exit = True
        thread.join(20)


def test_fifty_clients_lose_nothing(port: int) -> None:
    together = threading.Barrier(CLIENTS)

    def visit(_: int) -> list[tuple[int, bool]]:
        together.wait(30)
        found = []
        for path in PAGES:
            connection = HTTPConnection("127.0.0.1", port, timeout=120)
            connection.request("GET", path)
            answer = connection.getresponse()
            found.append((answer.status, answer.read().rstrip().endswith(b"</html>")))
            connection.close()
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        answers = [answer for found in pool.map(visit, range(CLIENTS)) for answer in found]
    assert answers == [(200, True)] * (CLIENTS * len(PAGES))
