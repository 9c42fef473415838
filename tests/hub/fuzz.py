"""Coverage-guided fuzzing of what is read from the Hub: `python -m tests.hub.fuzz manifest -runs=100000`.

Needs atheris (`pip install atheris`), which goes on with what reaches new lines of the readers: bytes of a tensor file,
values of a manifest. An input that ends in anything but a value or our own error is a crash, as is one that takes more
than 2 GB. Options after the reader's name are libFuzzer's.
"""

import copy
import hashlib
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(include=["registry.hub.parsing", "registry.hub.manifest", "registry.hub.tensors"]):
    from registry.hub.manifest import FileEntry
    from registry.hub.parsing import read_manifest
    from registry.hub.tensors import read_tensors

from contrans.errors import ContransError
from registry import Registry
from registry.hub.bundle import Bundle, bundle
from tests.hub.concepts import SOURCE, TARGET, fill

TENSORS = "model.safetensors"
READERS = ("manifest", "tensors")
ODD: list[Any] = [None, True, -1, 0, 2**70, 1e308, "", "..", "/etc", "a" * 5000, [], [[]], {}, {"": None}]


def good(folder: Path) -> Bundle:
    """A published concept."""
    with Registry.open(folder / "registry.db") as registry:
        fill(registry)
        return bundle(registry, f"anger/{SOURCE.name}/{TARGET.name}")


def changed(found: Any, choose: Any) -> Any:
    """A copy of JSON in which some values are others, or gone; `choose` is atheris's provider of choices."""
    found = copy.deepcopy(found)
    for _ in range(choose.ConsumeIntInRange(1, 3)):
        part = found
        while isinstance(part, (dict, list)) and part:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            key = keys[choose.ConsumeIntInRange(0, len(keys) - 1)]
            inner = part[key]
            if not isinstance(inner, (dict, list)) or not inner or choose.ConsumeIntInRange(0, 3) == 0:
                kind = choose.ConsumeIntInRange(0, len(ODD) + 1)
                if kind == len(ODD) + 1:
                    del part[key]
                else:
                    odd = choose.ConsumeUnicodeNoSurrogates(20) if kind == len(ODD) else ODD[kind]
                    part[key] = copy.deepcopy(odd)
                break
            part = inner
    return found


def main(arguments: list[str]) -> None:
    """Fuzzes one of `READERS` from a good file on."""
    if not arguments or arguments[0] not in READERS:
        sys.exit(f"Name what is read: {' or '.join(READERS)}.")
    with tempfile.TemporaryDirectory() as folder:
        made = good(Path(folder))
        corpus = Path(folder) / "corpus"
        corpus.mkdir()
        (corpus / "good").write_bytes(made.files[TENSORS])
        plain = json.loads(made.files["contrans.json"])

        def manifest(data: bytes) -> None:
            found = changed(plain, atheris.FuzzedDataProvider(data))
            with suppress(ContransError):
                read_manifest(json.dumps(found).encode(), what="it")

        def tensors(data: bytes) -> None:
            # the manifest vouches for the file, so that its hash does not save the reader
            entry = FileEntry(size=len(data), sha256=hashlib.sha256(data).hexdigest())
            vouched = made.manifest.model_copy(update={"files": {**made.manifest.files, TENSORS: entry}})
            with suppress(ContransError):
                read_tensors(data, vouched, what="it")

        options = ["-rss_limit_mb=2048", *arguments[1:]]
        atheris.Setup([sys.argv[0], str(corpus), *options], manifest if arguments[0] == "manifest" else tensors)
        atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv[1:])
