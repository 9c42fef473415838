"""What a page says about a version in words: one sentence, its settings, the lines of Python that use it."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from contrans.errors import RegistryError
from contrans.validation.wording import shown, spoken
from registry.browse.reading import Reader
from registry.names import KINDS
from registry.records import Version

_LONGEST = 300  # characters of a setting
VECTOR_FILES = ("concept_vector.json", "concept_vector.safetensors")


def sentence(version: Version, inputs: Sequence[tuple[str, Version]]) -> str:
    """What a version is, in one sentence."""
    known = dict(inputs)
    said = version.manifest

    def name(role: str) -> str:
        return known[role].name if role in known else "a model that is not noted"

    where = "" if said.get("block") is None else f"block {said['block']} of "
    concept = str(said.get("concept", version.name.partition("/")[0]))
    if version.kind == "transplant":
        made = _mapped(known)
        dose = "" if said.get("dose") is None else f", at a dose of {plain(said['dose'])} residual norms"
        return f"The concept “{concept}”{made} into {where}{name('target')}{dose}."
    if version.kind == "vector":
        how = f" by {spoken(str(said['estimator']))}" if said.get("estimator") else ""
        return f"The concept “{concept}”, refined from {where}{name('model')}{how}."
    if version.kind == "map":
        blocks = [said.get("source_block"), said.get("target_block")]
        between = "" if None in blocks else f", from block {blocks[0]} to block {blocks[1]}"
        fitted = "" if said.get("n") is None else f", fitted on {plain(said['n'])} paired states"
        kind = spoken(str(said.get("estimator", "affine")))
        return f"A {kind} map from {name('source')} to {name('target')}{between}{fitted}."
    if version.kind == "validation":
        of = known["transplant"].ref if "transplant" in known else f"the concept “{concept}”"
        return f"What the protocol {spoken(str(said.get('protocol', '?')))} measured of {of}, beside its controls."
    if version.kind == "text_set":
        texts = "A set of texts" if said.get("n_texts") is None else f"{plain(said['n_texts'])} texts"
        split = f", the split {said['split']}" if said.get("split") else ""
        return f"{texts}{split}, known by their hash."
    family = f" of the family {said['family']}" if said.get("family") else ""
    return f"The language model {said.get('reference', version.name)}{family}."


def _mapped(known: Mapping[str, Version]) -> str:
    source = f", refined from {known['vector'].ref}" if "vector" in known else ""
    if "map" not in known:
        return f"{source}, carried"
    estimator = known["map"].manifest.get("estimator")
    return f"{source} and carried by a{f' {spoken(str(estimator))}' if estimator else ''} map"


def settings(value: Mapping[str, Any], prefix: str = "") -> dict[str, str]:
    """A manifest as flat lines, a dot between the keys of what lies inside each other."""
    lines: dict[str, str] = {}
    for key, inner in value.items():
        name = f"{prefix}{key}"
        if isinstance(inner, Mapping) and set(inner) == {"value", "low", "high"}:
            lines[name] = shown(inner["value"], inner["low"], inner["high"])
        elif isinstance(inner, Mapping):
            lines |= settings(inner, f"{name}.")
        elif isinstance(inner, float):
            lines[name] = f"{inner:.4g}"
        elif isinstance(inner, str | int) or inner is None:
            lines[name] = "–" if inner is None else str(inner)
        else:
            lines[name] = json.dumps(inner, ensure_ascii=False)
        if name in lines and len(lines[name]) > _LONGEST:
            lines[name] = lines[name][: _LONGEST - 1] + "…"
    return lines


def python_lines(version: Version, inputs: Sequence[tuple[str, Version]], files: Sequence[str]) -> str | None:
    """The lines of Python that use a vector or a transplant; None for what is not put into a model."""
    if not set(VECTOR_FILES) <= set(files):
        return None
    role = "target" if version.kind == "transplant" else "model"
    model = next((parent for found, parent in inputs if found == role), None)
    reference = json.dumps(str(model.manifest.get("reference", model.name)) if model else "the model")
    block = version.manifest.get("block")
    at = f", block={block}" if isinstance(block, int) else ""
    return (
        f"import contrans, registry\n"
        f'files = registry.Registry.open().read_all("{version}")\n'
        f"vector = contrans.ConceptVector.from_files(files)\n"
        f"target = contrans.load_model({reference})\n"
        f"with contrans.transplant(target, vector, dose={plain(dose_of(version))}{at}):\n"
        f'    print(target.complete("I opened the letter and"))'
    )


def dose_of(version: Version) -> float:
    """The dose that a version was chosen for, in residual norms; 0.2 where none is noted."""
    dose = version.manifest.get("dose")
    return float(dose) if isinstance(dose, int | float) and dose else 0.2


def plain(value: Any) -> str:
    """A number with commas and without needless decimals; anything else as it is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return str(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def parse(kind: str, ref: str) -> str:
    """A reference from the two parts of an address.

    Raises:
        RegistryError: If there is no such kind.
    """
    if kind not in KINDS:
        raise RegistryError(f"There is no kind {kind[:40]!r}; the kinds are {', '.join(KINDS)}.")
    return f"{kind}:{ref}"


def vector_header(registry: Reader, version: Version) -> dict[str, Any]:
    """The JSON beside a vector's tensors; empty where there is none that can be read."""
    if VECTOR_FILES[0] not in registry.files(version):
        return {}
    try:
        found = json.loads(registry.read(version, VECTOR_FILES[0]))
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
