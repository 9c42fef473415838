"""Which of the vectors in a repository fits a model, and what to do where none does."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from contrans.errors import ArtifactError, ModelError
from contrans.models import resolve
from contrans.models.reference import short_name
from registry.hub.manifest import Manifest, ModelEntry, VectorEntry
from registry.names import listed

if TYPE_CHECKING:
    from contrans.concepts import ConceptVector
    from contrans.models import Model, ModelRecord

log = logging.getLogger("registry")


def choose(manifest: Manifest, target: "Model | str | Path | None", *, allow_mismatch: bool, what: str) -> VectorEntry:
    """Finds the vector for a model.

    A loaded model, or one that was loaded before, is known by its fingerprint. Another one is known by its reference;
    whether its weights are the right ones then shows when it is loaded, since a vector is only put into its own model.

    Args:
        manifest: what there is.
        target: the model; None for the vector as it was refined, in the source's space.
        allow_mismatch: whether other weights under the same name, or of the same base model, will do.
        what: the repository, for messages.

    Raises:
        ArtifactError: there is no vector for the model, or only one for other weights.
    """
    if target is None:
        return manifest.source
    record, text = _identity(target)
    same = next((v for v in manifest.vectors if _fingerprint(text, record, v.model) == v.model.fingerprint), None)
    if same is not None:
        return same
    named = next((v for v in manifest.vectors if _is_named(v.model, text, record)), None)
    if named is None:
        raise ArtifactError(_offer(manifest, text, what))
    known = _fingerprint(text, record, named.model)
    if known is None and _reference(named.model.reference) == _reference(text):
        return named
    if known is None and _reference(text) == named.model.name:
        return named
    if not allow_mismatch:
        raise ArtifactError(
            f"{what} has a transplant for {named.model.reference} ({named.model.dtype}, fingerprint "
            f"{named.model.fingerprint[:12]}…), but {text} has other weights"
            f"{f' ({known[:12]}…)' if known else ''}. Load that revision and dtype, fit a map to yours, or accept it "
            "with --allow-mismatch (allow_mismatch=True)."
        )
    log.warning("%s was fitted for other weights than those of %s; what it does there was not measured.", what, text)
    return named


def for_model(vector: "ConceptVector", target: "Model | str | Path | None", *, what: str) -> "ConceptVector":
    """The vector as one of a loaded model whose weights differ from those it was fitted for.

    Raises:
        ArtifactError: the model's hidden states have another width, or it has fewer blocks.
    """
    if target is None or isinstance(target, (str, Path)) or target.fingerprint == vector.model.fingerprint:
        return vector
    record = target.record
    if record.hidden_size != vector.model.hidden_size or vector.blocks[-1] >= record.n_blocks:
        raise ArtifactError(
            f"{what} holds directions of {vector.model.hidden_size} numbers up to block {vector.blocks[-1]}, but "
            f"{record.name} has {record.n_blocks} blocks of width {record.hidden_size}; fit a map to it."
        )
    return replace(vector, model=record)


def _identity(target: "Model | str | Path") -> "tuple[ModelRecord | None, str]":
    if isinstance(target, (str, Path)):
        return None, str(target).strip()
    return target.record, target.reference


def _fingerprint(text: str, record: "ModelRecord | None", entry: ModelEntry) -> str | None:
    """The fingerprint of the model that is asked for, where it is known, in the dtype of an entry."""
    if record is not None:
        return record.fingerprint
    try:
        return resolve(text).known_fingerprint(dtype=entry.dtype)
    except (ModelError, OSError, ValueError):
        return None  # a short name, or a model that only its publisher has


def _is_named(entry: ModelEntry, text: str, record: "ModelRecord | None") -> bool:
    names = {_reference(entry.reference), entry.name.lower(), (entry.base_model or entry.reference).lower()}
    asked = {_reference(text)} | ({record.name} if record is not None else set())
    return bool(names & asked) or ("/" not in text and short_name(text) == entry.name)


def _reference(text: str) -> str:
    return text.partition("@")[0].lower()


def _offer(manifest: Manifest, text: str, what: str) -> str:
    """Says that there is no transplant yet, and how to make one."""
    there = listed(f"{v.model.reference}" for v in manifest.vectors)
    settings = [f"--set source={manifest.source.model.reference}", f"--set target={text}"]
    texts = next((s.registered.name for s in manifest.splits if "texts" in s.roles and s.split == "refine"), None)
    if texts is not None:
        settings.append(f"--set concepts='[{texts.removesuffix('/refine')}]'")
    return (
        f"{what} has no transplant for {text}; it has vectors for {there}. Fit a map from "
        f"{manifest.source.model.reference} to it, which needs no training: contrans run quickstart "
        f"{' '.join(settings)}; or in Python contrans.fit_map(source, target, texts).map_direction(contrans.pull"
        f"('{what}'))."
    )
