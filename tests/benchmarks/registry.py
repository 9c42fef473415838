"""A registry of 100,000 versions on SQLite: how fast it lists, searches and takes in, against what is asked of it."""

import atexit
import os
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path

from registry import NewVersion, Registry, Result, Version

from .ratio import Benchmark, Ratio, seconds

SIZE = int(os.environ.get("CONTRANS_BENCHMARK_VERSIONS", "100000"))
ASKED_SECONDS, ASKED_RATE, CHUNK = 0.05, 200.0, 500
CONCEPTS = ("anger", "joy", "fear", "sadness", "disgust", "surprise", "honesty", "refusal")
QUERIES: dict[str, Callable[[Registry], list[Version]]] = {
    "text": lambda r: r.search("anger ridge"),
    "rare text": lambda r: r.search("note77"),
    "concept": lambda r: r.search(concept="joy"),
    "family": lambda r: r.search(family="emotion"),
    "model": lambda r: r.search(model="org/model-3"),
    "estimator": lambda r: r.search(estimator="mean_difference"),
    "metric": lambda r: r.search(where="gain_recovered > .9", kind="transplant"),
    "rare metric": lambda r: r.search(where="gain_recovered.low > .9989 and kl < .5"),
    "tag": lambda r: r.search(tags=["paper"]),
    "all at once": lambda r: r.search(
        "model", concept="fear", family="emotion", where="gain_recovered > .5", newest=True
    ),
    "six at once": lambda r: r.search(
        "fear", kind="transplant", concept="fear", family="emotion", model="org/model-3", where="gain_recovered > .5"
    ),
    "six and a tag": lambda r: r.search(
        "fear", concept="fear", family="emotion", model="org/model-3", where="gain_recovered > .5", tags=["paper"]
    ),
}


def _chunks(registry: Registry, size: int) -> tuple[int, float]:
    """Registers versions of all kinds in chunks; gives how many and the seconds they took."""
    models = [
        registry.register("model", f"model-{i}", manifest={"reference": f"org/model-{i}", "family": f"family-{i % 4}"})
        for i in range(20)
    ]
    texts = [registry.register("text_set", f"corpus-{i}", manifest={"hash": f"{i:064x}"}) for i in range(20)]
    for concept in CONCEPTS:
        registry.register("vector", f"{concept}/first", manifest={"concept": concept})
        registry.describe_concept(concept, family="emotion" if concept not in ("honesty", "refusal") else "stance")
    made, took, serial = 0, 0.0, 0
    while made < size:
        chunk: list[NewVersion] = []
        while len(chunk) < CHUNK:
            concept, i, serial = CONCEPTS[serial % len(CONCEPTS)], serial % 20, serial + 1
            gain = (serial * 7919 % 100_003) / 100_003
            manifest = {"concept": concept, "estimator": "mean_difference", "note": f"note{serial % 997}", "i": serial}
            vector = NewVersion(
                kind="vector",
                name=f"{concept}/model-{i}",
                manifest=manifest,
                inputs={"model": models[i], "texts": texts[i]},
            )
            transplant = NewVersion(
                kind="transplant",
                name=f"{concept}/model-{i}/model-{(i + 1) % 20}",
                manifest={"concept": concept, "map": "ridge", "dose": 0.2, "i": serial},
                inputs={"vector": vector, "target": models[(i + 1) % 20]},
            )
            numbers = [
                Result(
                    concept, "emotion", "test", "transplanted", "gain_recovered", 0.2, gain, gain - 0.1, gain + 0.1, 180
                ),
                Result(concept, "emotion", "generic", "transplanted", "kl", 0.2, 1 - gain),
                Result(concept, "emotion", "test", "transplanted", "logit_accuracy", 0.2, gain),
                Result(concept, "emotion", "test", "unsteered", "logit_accuracy", None, 0.2),
            ]
            validation = NewVersion(
                kind="validation",
                name=f"{transplant.name}/emotion",
                manifest={"protocol": "emotion", "split": "test", "i": serial},
                inputs={"transplant": transplant},
                results=numbers,
            )
            chunk += [vector, transplant, validation]
        start = time.perf_counter()
        registered = registry.register_many(chunk)
        took += time.perf_counter() - start
        made += len(registered)
        registry.tag(registered[-1], "paper")
    return made, took


@cache
def _filled() -> Registry:
    folder = tempfile.TemporaryDirectory(prefix="contrans-benchmark-")
    registry = Registry.open(Path(folder.name) / "registry.db")
    atexit.register(folder.cleanup)
    atexit.register(registry.close)
    _chunks(registry, SIZE)
    return registry


def listing(rounds: int) -> Ratio:
    """The newest fifty, of all and of a kind, and a page from the middle."""
    registry = _filled()
    middle = registry.list(limit=1)[0]
    middle = registry.get(f"{middle.name}@{middle.number // 2}", kind=middle.kind)
    pages: dict[str, Callable[[], object]] = {
        "newest": lambda: registry.list(limit=50),
        "kind": lambda: registry.list("transplant", limit=50),
        "newest of names": lambda: registry.list("vector", newest=True, limit=50),
        "middle": lambda: registry.list(limit=50, before=middle),
    }
    return _worst(pages, rounds)


def searching(rounds: int) -> Ratio:
    """The slowest of the searches counts."""
    registry = _filled()
    return _worst({name: lambda query=query: query(registry) for name, query in QUERIES.items()}, rounds)


def taking_in(rounds: int) -> Ratio:
    """Versions a second in bulk, without files, so that no disk's fsync counts."""
    found = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as folder, Registry.open(Path(folder) / "registry.db") as registry:
            made, took = _chunks(registry, 3000)
            found.append(took / made)
    asked = 1 / ASKED_RATE
    return Ratio(tuple(asked / each for each in found), tuple(found), (asked,) * rounds)


def _worst(things: dict[str, Callable[[], object]], rounds: int) -> Ratio:
    for thing in things.values():
        thing()
    times = {name: [seconds(thing) for _ in range(rounds)] for name, thing in things.items()}
    slowest = [max(times[name][i] for name in times) for i in range(rounds)]
    notes = {f"{name}, ms": round(1000 * min(taken), 2) for name, taken in times.items()}
    return Ratio(tuple(ASKED_SECONDS / each for each in slowest), tuple(slowest), (ASKED_SECONDS,) * rounds, notes)


BENCHMARKS = [
    Benchmark("registry list", f"50 ms asked, of {SIZE:,} versions", 1.0, listing, needs_models=False),
    Benchmark("registry search", f"50 ms asked, of {SIZE:,} versions", 1.0, searching, needs_models=False),
    Benchmark("registry insert", "200 versions/s asked, in bulk", 1.0, taking_in, needs_models=False),
]
