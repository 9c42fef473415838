"""The pages of a registry of 100,000 versions: server time of the first page and of a search, against what is asked.

Server time is that of the application alone, without a socket. `memory` loads 2,000 pages and tells how much the
process has grown since the first 200; `crowd` lets 50 clients ask a running server at once. `first token` asks the
playground with the quickstart's Gemma, loaded, for an answer, and tells when its first token comes.
"""

import asyncio
import re
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from http.client import HTTPConnection
from pathlib import Path

import torch
from starlette.testclient import TestClient

from contrans.concepts import ConceptVector
from contrans.models import load_model
from registry import Registry
from registry.browse import Reader, create_app
from registry.browse.playground import MOST_CONCEPTS, Playground, Question, question

from .ratio import Benchmark, Ratio, seconds
from .registry import SIZE, _filled

FIRST_SECONDS, SEARCH_SECONDS, GROWTH = 0.3, 0.15, 32 * 2**20
CLIENTS, LOADS = 50, 2000
TOKEN_SECONDS = 2.0
PROMPT = "When I heard what they had done with my letter, I felt"
FIRST = {"concepts": "/", "everything": "/versions", "pairs": "/pairs"}
SEARCHES = {
    "text": "/?text=anger",
    "rare text": "/?text=note77&every=1",
    "concept": "/?concept=joy&every=1",
    "family": "/?family=emotion&every=1",
    "models": "/?source=model-3&target=model-4&every=1",
    "rule": "/?where=gain_recovered+%3E+.9&every=1",
    "rare rule": "/?where=gain_recovered.low+%3E+.8989+and+kl+%3C+.5&every=1",
    "by gain": "/?sort=gain&every=1",
    "newest by gain": "/?sort=gain",
    "all": "/?text=joy&concept=joy&source=model-1&family=emotion&where=gain_recovered+%3E+.5",
}
HTMX = {"HX-Request": "true"}


@cache
def _reader() -> Reader:
    filled = _filled()
    path = filled._database.path
    assert path is not None
    return Reader.open(path)


@cache
def _client() -> TestClient:
    return TestClient(create_app(_reader()), base_url="http://127.0.0.1")


def first_page(rounds: int) -> Ratio:
    """The first page of the list, of everything, and the heat map; the slowest counts."""
    return _worst({name: lambda p=path: _get(p) for name, path in FIRST.items()}, rounds, FIRST_SECONDS)


def searching(rounds: int) -> Ratio:
    """Searches as they are asked while somebody types; the slowest counts."""
    return _worst({name: lambda p=path: _get(p, HTMX) for name, path in SEARCHES.items()}, rounds, SEARCH_SECONDS)


def memory(rounds: int) -> Ratio:
    """Growth of the process from the 200th to the 2,000th page, of all kinds of page."""
    pages = [*FIRST, *SEARCHES]
    addresses = [FIRST.get(name) or SEARCHES[name] for name in pages]
    links = re.findall(r'href="(/version/[^"]+)"', _client().get("/versions").text)[:5]
    addresses += [*links, *(link.replace("/version/", "/lineage/", 1) for link in links)]
    grown = []
    for _ in range(rounds):
        for i in range(200):
            _get(addresses[i % len(addresses)])
        before = _resident()
        for i in range(LOADS - 200):
            _get(addresses[i % len(addresses)])
        grown.append(max(float(_resident() - before), 1.0))
    notes = {"MiB": round(max(grown) / 2**20, 2)}
    return Ratio(tuple(GROWTH / g for g in grown), tuple(grown), (float(GROWTH),) * rounds, notes)


def crowd(rounds: int) -> Ratio:
    """50 clients, four pages each, at a running server: all are answered."""
    import uvicorn

    settings = uvicorn.Config(create_app(_reader()), port=0, log_level="error", access_log=False)
    server = uvicorn.Server(settings)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    paths = ["/", "/?text=anger", "/versions", "/?sort=name"]

    def visit(_: int) -> list[int]:
        statuses = []
        for path in paths:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", path)
            answer = connection.getresponse()
            answer.read()
            statuses.append(answer.status)
            connection.close()
        return statuses

    shares, took = [], []
    try:
        for _ in range(rounds):
            start = time.perf_counter()
            with ThreadPoolExecutor(CLIENTS) as pool:
                statuses = [status for found in pool.map(visit, range(CLIENTS)) for status in found]
            took.append(time.perf_counter() - start)
            shares.append(sum(status == 200 for status in statuses) / (CLIENTS * len(paths)))
    finally:
        server.should_exit = True
        thread.join(10)
    return Ratio(tuple(shares), tuple(took), tuple(took), {"answered": min(shares)})


def first_token(rounds: int) -> Ratio:
    """From the question to the first steered token of the quickstart's Gemma with three concepts, once it is loaded."""
    target = load_model("pypi:gemma-3-270m")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "registry.db"
        with Registry.open(path) as registry:
            record = registry.register("model", "gemma", manifest=target.record.to_json())
            for i in range(MOST_CONCEPTS):
                direction = torch.randn(target.hidden_size, generator=torch.Generator().manual_seed(i))
                vector = ConceptVector(f"c{i}", target.record, {13: direction}, {13: 1.0}, {13: 1000.0}, {})
                manifest = {"concept": f"c{i}", "block": 13, "dose": 0.1}
                inputs = {"target": record}
                registry.register(
                    "transplant", f"c{i}/gemma", manifest=manifest, files=vector.to_files(), inputs=inputs
                )
        del target
        with Reader.open(path) as reader:
            chosen = {f"concept{i + 1}": f"c{i}/gemma" for i in range(MOST_CONCEPTS)}
            doses = {f"dose{i + 1}": "0.1" for i in range(MOST_CONCEPTS)}
            asked = question(reader, {"target": "gemma", "prompt": PROMPT, "tokens": "8"} | chosen | doses)
            taken = asyncio.run(_first_tokens(asked, rounds))
    return Ratio(tuple(TOKEN_SECONDS / each for each in taken), tuple(taken), (TOKEN_SECONDS,) * rounds)


async def _first_tokens(asked: Question, rounds: int) -> list[float]:
    playground, taken = Playground(), []
    try:
        for _ in range(rounds + 1):
            start, first = time.perf_counter(), None
            async for event in playground.answer(asked):
                if event["kind"] == "error":
                    raise RuntimeError(event["text"])
                if event.get("side") == "steered" and first is None:
                    first = time.perf_counter() - start
            if first is None:
                raise RuntimeError("there was no answer")
            taken.append(first)
    finally:
        playground.close()
    return taken[1:]  # the first loads the model


def _get(path: str, headers: dict[str, str] | None = None) -> None:
    answer = _client().get(path, headers=headers)
    if answer.status_code != 200:
        raise RuntimeError(f"{path} gave {answer.status_code}: {answer.text[-400:]}")


def _resident() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096


def _worst(things: dict[str, Callable[[], None]], rounds: int, asked: float) -> Ratio:
    notes = {}
    for name, thing in things.items():
        thing()
        start = time.process_time()
        thing()
        # on a machine that others use too, this is what the page itself takes
        notes[f"{name}, CPU ms"] = round(1000 * (time.process_time() - start), 1)
    times = {name: [seconds(thing) for _ in range(rounds)] for name, thing in things.items()}
    slowest = [max(times[name][i] for name in times) for i in range(rounds)]
    notes |= {f"{name}, ms": round(1000 * min(taken), 1) for name, taken in times.items()}
    return Ratio(tuple(asked / each for each in slowest), tuple(slowest), (asked,) * rounds, notes)


BENCHMARKS = [
    Benchmark("browse first page", f"300 ms asked, of {SIZE:,} versions", 1.0, first_page, needs_models=False),
    Benchmark("browse search", f"150 ms asked, of {SIZE:,} versions", 1.0, searching, needs_models=False),
    Benchmark("browse memory", f"32 MiB over {LOADS:,} pages", 1.0, memory, needs_models=False),
    Benchmark("browse crowd", f"all of {CLIENTS} clients answered", 1.0, crowd, needs_models=False),
    Benchmark("browse first token", "2 s asked, of the quickstart's Gemma once it is loaded", 1.0, first_token),
]
