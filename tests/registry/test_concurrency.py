import itertools
import multiprocessing
import os
import random
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest

from registry import Registry, Version
from tests.registry.workers import open_and_register, register_many, register_until_killed

# The whole proof takes minutes; what always runs is a short form of it.
THOROUGH = bool(os.environ.get("CONTRANS_THOROUGH"))
WRITERS, REGISTRATIONS, KILLS = (16, 50, 50) if THOROUGH else (4, 25, 4)

PROCESSES = multiprocessing.get_context("forkserver")  # as separate as "spawn", but imports once
PROCESSES.set_forkserver_preload(["tests.registry.workers"])


def _run(target, argument_lists: list[tuple]) -> None:
    running = [PROCESSES.Process(target=target, args=arguments) for arguments in argument_lists]
    for process in running:
        process.start()
    for process in running:
        process.join(600)
    assert [process.exitcode for process in running] == [0] * len(running)


def _assert_gapless(registry: Registry, expected: dict[str, int]) -> None:
    versions = registry.list("text_set")
    assert Counter(version.name for version in versions) == expected
    for name, count in expected.items():
        numbers = sorted(version.number for version in versions if version.name == name)
        assert numbers == list(range(1, count + 1))
    assert len({version.digest for version in versions}) == len(versions)
    assert registry.check(grace=timedelta(0)) == []


@pytest.mark.parametrize("count", [25])
def test_threads_number_without_gaps_or_doubles(registry: Registry, count: int) -> None:
    def register(worker: int) -> None:
        for i in range(count):
            manifest, files = {"hash": f"{worker}-{i}"}, {"t": f"{worker}-{i}".encode()}
            registry.register("text_set", f"name-{i % 2}", manifest=manifest, files=files)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(register, range(8)))
    _assert_gapless(registry, {"name-0": 8 * 13, "name-1": 8 * 12})


def test_processes_number_without_gaps_or_doubles(url: str, tmp_path: Path) -> None:
    blobs = str(tmp_path / "blobs")
    _run(register_many, [(url, blobs, ["a", "b"], worker, REGISTRATIONS) for worker in range(WRITERS)])
    with Registry.open(url, blobs=blobs) as registry:
        of_b = REGISTRATIONS // 2
        _assert_gapless(registry, {"a": WRITERS * (REGISTRATIONS - of_b), "b": WRITERS * of_b})
        for version in registry.list():
            assert registry.read(version, "shared") == b"the same everywhere"


def test_equal_content_at_once_is_one_version(registry: Registry) -> None:
    def register(worker: int) -> Version:
        inputs = {"base": base}
        return registry.register("text_set", "t", manifest={"hash": "h"}, files={"a": b"a", "b": b"b"}, inputs=inputs)

    base = registry.register("text_set", "base", manifest={"hash": "b"})
    with ThreadPoolExecutor(8) as pool:
        versions = set(pool.map(register, range(24)))
    assert [version.number for version in versions] == [1]
    assert len(registry.list()) == 2
    assert registry.check(grace=timedelta(0)) == []


def test_alias_moved_by_many_points_at_one_version(registry: Registry) -> None:
    versions = [registry.register("text_set", "t", manifest={"hash": str(i)}) for i in range(8)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda version: registry.set_alias(version, "production"), versions * 3))
    (holder,) = registry.list(alias="production")
    moves = registry.alias_history(holder, "production")
    assert moves[-1].version == holder
    assert all(one.version != other.version for one, other in itertools.pairwise(moves))


@pytest.mark.parametrize("workers", ["threads", "processes"])
def test_first_start_at_once(tmp_path: Path, workers: str) -> None:
    place, blobs = str(tmp_path / "new" / "registry.db"), str(tmp_path / "blobs")
    arguments = [(place, blobs, worker) for worker in range(6)]
    if workers == "threads":
        with ThreadPoolExecutor(6) as pool:
            list(pool.map(open_and_register, *zip(*arguments, strict=True)))
    else:
        _run(open_and_register, arguments)
    with Registry.open(place, blobs=blobs) as registry:
        assert sorted(version.number for version in registry.list()) == [1, 2, 3, 4, 5, 6]


def test_first_start_at_once_on_postgresql(fresh_postgres_url: str, tmp_path: Path) -> None:
    _run(open_and_register, [(fresh_postgres_url, str(tmp_path), worker) for worker in range(4)])
    with Registry.open(fresh_postgres_url, blobs=tmp_path) as registry:
        assert sorted(version.number for version in registry.list()) == [1, 2, 3, 4]


def test_killed_writers_leave_a_clean_registry(url: str, tmp_path: Path) -> None:
    blobs, chance = str(tmp_path / "blobs"), random.Random(0)
    with Registry.open(url, blobs=blobs) as registry:
        for round_ in range(KILLS):
            before = len(registry.list())
            arguments = [(url, blobs, 2 * round_ + i) for i in range(2)]
            writers = [PROCESSES.Process(target=register_until_killed, args=each) for each in arguments]
            for writer in writers:
                writer.start()
            while len(registry.list()) <= before:
                assert all(writer.is_alive() for writer in writers)
                time.sleep(0.01)
            time.sleep(0.1 * chance.random())
            for writer in writers:
                writer.kill()
                writer.join()
            assert registry.check() == []
        left = registry.check(grace=timedelta(0))
        assert {problem.kind for problem in left} <= {"orphaned"}
        assert len(registry.gc(grace=timedelta(0)).keys) == len(left)
        assert registry.check(grace=timedelta(0)) == []
        numbers = sorted(version.number for version in registry.list("text_set"))
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= KILLS
        assert registry.register("text_set", "corpus", manifest={"hash": "after"}).number == len(numbers) + 1
