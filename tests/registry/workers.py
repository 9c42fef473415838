"""What the tests run in other processes; importable there, so not inside a test module."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry import Registry

ORDINARY_USER = 65534  # "nobody" on every Unix


def register_many(url: str, blobs: str, names: list[str], worker: int, count: int) -> None:
    """Registers `count` versions of different content in turn under each name."""
    with Registry.open(url, blobs=blobs) as registry:
        for i in range(count):
            manifest = {"hash": f"{worker}-{i}"}
            files = {"texts": f"{worker}-{i}".encode(), "shared": b"the same everywhere"}
            registry.register("text_set", names[i % len(names)], manifest=manifest, files=files)


def register_until_killed(url: str, blobs: str, seed: int) -> None:
    """Registers a chain of versions with files and inputs for ever."""
    with Registry.open(url, blobs=blobs) as registry:
        texts, i = registry.register("text_set", "corpus", manifest={"hash": "first"}), 0
        while True:
            i += 1
            manifest = {"hash": f"{seed}-{i}"}
            files = {"texts": os.urandom(50_000), "note": f"{seed}-{i}".encode()}
            texts = registry.register("text_set", "corpus", manifest=manifest, files=files, inputs={"a": texts})


def open_and_register(url: str, blobs: str, worker: int) -> None:
    """Opens a registry that may not exist yet and registers one version."""
    with Registry.open(url, blobs=blobs) as registry:
        registry.register("model", "tiny", manifest={"reference": str(worker)})


def as_ordinary_user(function: Callable[..., Any], *arguments: Any) -> str:
    """Calls a function without root's rights in a child process; returns its error's text, or ""."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        text = "the child ended early"
        try:
            if os.getuid() == 0:
                os.setgroups([])
                os.setgid(ORDINARY_USER)
                os.setuid(ORDINARY_USER)
            function(*arguments)
            text = ""
        except Exception as error:  # noqa: BLE001  the parent gets to see it
            text = f"{type(error).__name__}: {error}"
        finally:
            os.write(write, text.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        text = pipe.read().decode()
    os.waitpid(child, 0)
    return text


def snapshot(folder: Path) -> dict[str, bytes]:
    """All files of a folder with their content, to see that nothing changed."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
