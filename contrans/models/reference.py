"""From what a user types to one model: Hub id, local folder, GGUF file or a name of the catalogue."""

import difflib
import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from contrans.errors import ModelError
from contrans.models import catalogue
from contrans.models.cache import MANIFEST, model_folder, remember, remembered, stamp
from contrans.models.catalogue import CatalogueEntry
from contrans.models.facts import ModelFacts, facts_of_folder
from contrans.models.known import known_facts

Kind = Literal["hub", "folder", "gguf", "pypi"]
FORMS = 'a Hub id ("org/name" or "org/name@revision"), a model folder, a .gguf file, or "pypi:NAME"'
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


@dataclass(frozen=True)
class ModelReference:
    """A model that was named but not loaded.

    Attributes:
        text: What the user typed, the revision left out.
        kind: "hub", "folder", "gguf" or "pypi".
        revision: Branch, tag or commit on the Hub, or version of the wheels.
        path: The folder or file, for local ones.
        entry: The catalogue's entry, for `pypi:`.
    """

    text: str
    kind: Kind
    revision: str | None = None
    path: Path | None = None
    entry: CatalogueEntry | None = None

    @property
    def name(self) -> str:
        """Short, lower-case name that is safe in a path."""
        return short_name(self.text)

    def folder(self) -> Path | None:
        """Returns the folder with this model's files, if they are on this machine, without fetching."""
        if self.kind == "folder":
            return self.path
        if self.kind == "hub":
            return self._hub_snapshot()
        folder = model_folder(self.cache_key())
        return folder if (folder / MANIFEST).is_file() else None

    def cache_key(self) -> str:
        """Returns the name of the converted copy in the cache, from the name and the GGUF file's hash.

        Raises:
            ModelError: The GGUF file cannot be read.
        """
        digest = self.entry.sha256 if self.entry else self.file_hash()
        return f"{self.name}-{digest[:12]}"

    def known_fingerprint(self, *, dtype: str = "float32") -> str | None:
        """Returns the fingerprint without loading weights, if this model was loaded in `dtype` before."""
        folder = self.folder()
        if folder is None:
            return None
        if (folder / MANIFEST).is_file():
            manifest = read_manifest(folder)
            if dtype in manifest.get("fingerprints", {}):
                return manifest["fingerprints"][dtype]
        return remembered(_weights_key(folder, dtype))

    def remember_fingerprint(self, value: str, *, dtype: str) -> None:
        """Keeps a fingerprint for `known_fingerprint`, until a file of the model changes."""
        folder = self.folder()
        if folder is not None:
            remember(_weights_key(folder, dtype), value)

    def facts(self) -> ModelFacts | None:
        """Returns the model's sizes without loading or fetching anything; none if it is neither here nor well known."""
        if self.entry is not None:
            return self.entry.facts
        folder = self.folder()
        known = known_facts(self.text) if self.kind == "hub" else None
        if folder is None:
            return known
        found = facts_of_folder(folder)
        if known is None or found.parameters is not None:
            return found
        alike = (found.family, found.n_blocks, found.hidden_size, found.vocab_size) == (
            known.family,
            known.n_blocks,
            known.hidden_size,
            known.vocab_size,
        )
        return replace(found, parameters=known.parameters) if alike else found

    def file_hash(self) -> str:
        """Returns the SHA-256 of the GGUF file, read again only when the file changed."""
        if self.path is None:
            raise ModelError(f"{self.text} is no file; pass the path of a .gguf file.")
        key = ["sha256", stamp([self.path])]
        known = remembered(key)
        if known is None:
            with self.path.open("rb") as file:
                known = hashlib.file_digest(file, "sha256").hexdigest()
            remember(key, known)
        return known

    def _hub_snapshot(self) -> Path | None:
        from huggingface_hub import try_to_load_from_cache

        found = try_to_load_from_cache(self.text, "config.json", revision=self.revision)
        return Path(found).parent if isinstance(found, str) else None


def resolve(reference: str | Path, *, revision: str | None = None) -> ModelReference:
    """Reads a model reference; fetches and loads nothing.

    Args:
        reference: Hub id (with `@revision` if wanted), local folder, GGUF file, or `pypi:NAME`.
        revision: Branch, tag or commit on the Hub; instead of `@revision`.

    Raises:
        ModelError: The reference has none of the four forms, or names nothing that exists.
    """
    text = str(reference).strip()
    if text.startswith("pypi:"):
        return _from_catalogue(text, revision)
    path = Path(text).expanduser()
    if text and path.is_dir():
        if not (path / "config.json").is_file():
            raise ModelError(
                f"The folder {text} holds no config.json, so it is no model. Save one there with "
                "save_pretrained, or name a .gguf file inside it."
            )
        return ModelReference(text, "folder", revision, path.resolve())
    if path.is_file():
        if path.suffix.lower() != ".gguf":
            raise ModelError(f"{text} is a file but not a .gguf one; name the folder that holds the model.")
        return ModelReference(text, "gguf", revision, path.resolve())
    return _from_hub(text, revision)


def short_name(reference: str) -> str:
    """Returns a short, lower-case name of a reference that is safe in a path."""
    tail = Path(reference.removeprefix("pypi:").rstrip("/\\")).name
    tail = re.sub(r"\.gguf$", "", tail, flags=re.IGNORECASE)
    # A revision is no part of the name.
    tail = tail.partition("@")[0].lower() or "model"
    return re.sub(r"[^a-z0-9._-]+", "-", tail).strip("-.") or "model"


def read_manifest(folder: Path) -> dict:
    """Reads the manifest of a converted model and checks that its files are whole.

    Raises:
        ModelError: The manifest or a file is damaged.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest.get("files", {})}
    except (OSError, ValueError) as error:
        raise ModelError(f"The converted model {folder} is damaged ({error}). Delete that folder.") from error
    wrong = [name for name, size in manifest.get("files", {}).items() if sizes[name] != size]
    if wrong:
        raise ModelError(f"The converted model {folder} is damaged ({wrong[0]}). Delete that folder.")
    return manifest


def _from_catalogue(text: str, revision: str | None) -> ModelReference:
    name = text.removeprefix("pypi:")
    entry = catalogue.MODELS.get(name.lower())
    if entry is None:
        close = difflib.get_close_matches(name.lower(), catalogue.MODELS, n=3, cutoff=0.4) or catalogue.MODELS
        names = " or ".join(f'"pypi:{match}"' for match in close)
        raise ModelError(f'"{text}" is not in the catalogue. Did you mean {names}? A model is {FORMS}.')
    if revision not in (None, entry.revision):
        raise ModelError(f'"{text}" is pinned to version {entry.revision}; leave the revision {revision} out.')
    return ModelReference(f"pypi:{entry.name}", "pypi", entry.revision, entry=entry)


def _from_hub(text: str, revision: str | None) -> ModelReference:
    identifier, _, at = text.partition("@")
    if at and revision not in (None, at):
        raise ModelError(f'"{text}" names revision {at}, but revision={revision} was given too; keep one.')
    if _HUB_ID.fullmatch(identifier) and not identifier.lower().endswith(".gguf"):
        return ModelReference(identifier, "hub", at or revision)
    pinned = {f"pypi:{name}": name for name in catalogue.MODELS}
    pinned |= {entry.base_model: entry.base_model.lower() for entry in catalogue.MODELS.values()}
    wanted = text.lower().rpartition("/")[2] if text.lower().endswith(".gguf") else text.lower()
    ratios = {form: difflib.SequenceMatcher(None, wanted, name).ratio() for form, name in pinned.items()}
    close = [form for form, ratio in sorted(ratios.items(), key=lambda item: -item[1]) if ratio > 0.4][:3]
    hint = f" Did you mean {' or '.join(close)}?" if close else ""
    raise ModelError(f'"{text}" is no model that exists here.{hint} A model is {FORMS}.')


def _weights_key(folder: Path, dtype: str) -> list[object]:
    files = [*folder.glob("*.safetensors"), *folder.glob("*.bin"), folder / "config.json"]
    return ["fingerprint", dtype, stamp(files)]
