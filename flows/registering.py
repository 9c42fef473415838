"""Putting a finished pipeline into the registry, and into the document of `--json`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Literal

from contrans.concepts.contrast import ContrastSet
from contrans.hashing import digest
from contrans.validation.findings import findings_of
from contrans.validation.outcomes import FILE as ITEMS
from contrans.validation.outcomes import Outcomes
from flows.choosing import Choice, read_choice
from flows.extras import EXTRAS, results_beside
from flows.fitting import map_arms
from flows.judging import chance
from flows.steps import Step
from flows.store import Store
from flows.study import SIDES, Study
from registry import NewVersion, Registry, Result, Version

if TYPE_CHECKING:
    from contrans.models import ModelRecord

_SEVERITIES = ("failure", "warning", "note")

Until = Literal["vector", "map", "validation"]
"""The last kind that is registered: the vectors of the source, the maps, or everything."""


def register_all(
    study: Study,
    models: Mapping[str, ModelRecord],
    steps: Mapping[str, Step],
    store: Store,
    registry: Registry,
    run_id: str | None = None,
    *,
    until: Until = "validation",
) -> list[Version]:
    """Registers all that a pipeline made: models, texts, vectors, maps, transplants, validations.

    All of them or none. Registering the same again returns the versions that are there, so it may be done twice.

    Args:
        study: What the pipeline is about.
        models: Both models.
        steps: Its steps, all done that are needed.
        store: Where their outputs are.
        registry: Where the versions go.
        run_id: The run to link them to.
        until: The last kind to register.

    Returns:
        The versions, inputs before what was made from them.
    """
    found = _versions(study, models, steps, store, until)
    return list(dict.fromkeys(registry.register_many(found, run_id=run_id)))


def _versions(
    study: Study, models: Mapping[str, ModelRecord], steps: Mapping[str, Step], store: Store, until: Until
) -> list[NewVersion]:
    """What there is to register, inputs before what was made from them."""
    versions: list[NewVersion] = []

    def add(kind: str, name: str, manifest: Mapping[str, Any], **more: Any) -> NewVersion:
        versions.append(NewVersion(kind=kind, name=name, manifest=manifest, **more))
        return versions[-1]

    names = {side: models[side].name for side in SIDES}
    sides = SIDES[:1] if until == "vector" else SIDES
    model = {side: add("model", names[side], models[side].to_json()) for side in sides}
    sets = {}
    if until != "map":
        sets = {c.name: {split: _text_set(add, c, split) for split in ("refine", "dev", "test")} for c in study.family}
    if until == "vector":
        _vectors(add, study, steps, store, model, sets, {"source": _clearest_block(study, steps, store)})
        return versions
    choice = _choice(steps, store)
    texts = add(
        "text_set",
        study.texts.name,
        {
            "hash": study.texts.hash,
            "n_texts": len(study.texts),
            "licence": study.texts.licence,
            "rows": study.spec.corpus.texts,
        },
        files={"texts.jsonl": _lines(study.texts.texts)},
    )
    vectors = {}
    if until != "map":
        vectors = _vectors(add, study, steps, store, model, sets, dict(zip(SIDES, choice.pair, strict=True)))
    arms = map_arms(study)
    maps = {}
    for arm in arms:
        files = _files(store, steps["fit maps"], arm)
        entry = json.loads(files["affine_map.json"])["maps"][0]
        maps[arm] = add(
            "map",
            f"{names['source']}/{names['target']}" + ("" if arm == "transplanted" else f"/{arm}"),
            {
                "estimator": entry["estimator"],
                "source_block": choice.source_block,
                "target_block": choice.target_block,
                **entry["info"],
            },
            files=files,
            inputs={**model, "texts": texts},
        )
    if until == "map":
        return versions
    calibration = json.loads(store.read(steps["calibrate dose"].key)["calibration.json"])
    validation = json.loads(store.read(steps["validate"].key)["validation.json"])
    beside = results_beside(steps, lambda step, name: json.loads(store.read(steps[step].key, name)[name]))
    outcomes = Outcomes.from_json(json.loads(store.read(steps["validate"].key, ITEMS)[ITEMS]))
    rows = [*calibration["rows"], *validation["rows"], *beside["rows"]]
    transplants = {}
    for c in study.contrasts:
        transplants[c.concept] = add(
            "transplant",
            f"{c.concept}/{names['source']}/{names['target']}",
            {"concept": c.concept, "block": choice.target_block, "dose": calibration["doses"]["transplanted"]},
            files=_files(store, steps["map vectors"], f"{c.concept}.transplanted"),
            inputs={
                "vector": vectors["source"][c.concept],
                "map": maps["transplanted"],
                "target": model["target"],
            },
        )
    figures = store.read(steps["figure"].key)
    for name in ("cross effects", *EXTRAS):
        if name in steps:
            figures |= store.read(steps[name].key)
    for concept in [c.concept for c in study.contrasts]:
        add(
            "validation",
            f"{concept}/{names['source']}/{names['target']}/{study.spec.validate_.protocol}",
            {
                "protocol": study.spec.validate_.protocol,
                "effect": validation["effect"],
                "split": "test",
                "concept": concept,
                "doses": calibration["doses"],
                "choice": asdict(choice),
                "summary": _summary(validation["summary"], concept),
                "seed": study.spec.seed,
            },
            files=figures | {ITEMS: json.dumps(outcomes.only(concept).to_json()).encode()},
            inputs={
                "transplant": transplants[concept],
                "own": vectors["target"][concept],
                **{f"{arm}_map": maps[arm] for arm in arms if arm != "transplanted"},
                **{f"{split}_texts/{_role(c)}": sets[c.name][split] for c in study.family for split in ("dev", "test")},
            },
            # of capability a row is about a task and all concepts
            results=[Result(**r) for r in rows if r["concept"] in (concept, "all") or r["protocol"] == "capability"],
        )
    return versions


def _vectors(
    add: Callable[..., NewVersion],
    study: Study,
    steps: Mapping[str, Step],
    store: Store,
    model: Mapping[str, NewVersion],
    sets: Mapping[str, Mapping[str, NewVersion]],
    blocks: Mapping[str, int],
) -> dict[str, dict[str, NewVersion]]:
    """The vectors of the sides that a block is given for, by side and concept."""
    return {
        side: {
            c.concept: add(
                "vector",
                f"{c.concept}/{model[side].name}",
                {"concept": c.concept, "estimator": study.spec.refine.estimator, "block": block},
                files=_files(store, steps[f"refine · {side}"], c.concept),
                inputs={"model": model[side], "texts": sets[c.name]["refine"], **_others(sets, c, study)},
            )
            for c in study.contrasts
        }
        for side, block in blocks.items()
    }


def _clearest_block(study: Study, steps: Mapping[str, Step], store: Store) -> int:
    """The source block where the concepts are told apart best, by the mean d′ of their vectors."""
    files = store.read(steps["refine · source"].key)
    found = [json.loads(files[f"{c.concept}.concept_vector.json"])["provenance"] for c in study.contrasts]
    blocks = study.blocks("source")
    return max(blocks, key=lambda block: sum(p["diagnostics"][str(block)]["d_prime"] for p in found))


def _choice(steps: Mapping[str, Step], store: Store) -> Choice:
    return read_choice(store.read(steps["choose"].key, "choice.json")["choice.json"])


def _text_set(add: Any, contrast: ContrastSet, split: str) -> NewVersion:
    part = contrast.split(split).positives
    return add(
        "text_set",
        f"{contrast.name}/{split}",
        {
            "hash": digest([e.prompt for e in part]),
            "n_texts": len(part),
            "split": split,
            "licence": contrast.licence,
            "template": contrast.template,
        },
        files={"texts.jsonl": _lines([e.text for e in part])},
    )


def _others(sets: Mapping[str, Mapping[str, NewVersion]], contrast: ContrastSet, study: Study) -> dict[str, NewVersion]:
    # the negatives of a concept are its siblings' texts
    return {f"negatives/{_role(c)}": sets[c.name]["refine"] for c in study.family if c.name != contrast.name}


def _role(contrast: ContrastSet) -> str:
    # the other side of two labels is called "opposite of …", and a role has no spaces
    return contrast.concept.replace(" ", "_")


def _lines(texts: Any) -> bytes:
    return "".join(json.dumps({"text": t}, ensure_ascii=False) + "\n" for t in texts).encode()


def _files(store: Store, step: Step, prefix: str) -> dict[str, bytes]:
    found = {k.removeprefix(f"{prefix}."): v for k, v in store.read(step.key).items() if k.startswith(f"{prefix}.")}
    return {k: v for k, v in found.items() if k.startswith(("concept_vector.", "affine_map."))}


def _summary(summary: Mapping[str, Any], concept: str) -> dict[str, Any]:
    kept = {k: v for k, v in summary.items() if "/" not in k}
    return {**kept, "gain_recovered_of_concept": summary.get(f"gain_recovered/{concept}")}


def result_rows(study: Study, steps: Mapping[str, Step], store: Store) -> dict[str, Any]:
    """The numbers of a finished pipeline, with the keys `RESULTS` of `flows.results`."""

    def read(step: str, name: str) -> Any:
        return json.loads(store.read(steps[step].key, name)[name])

    calibration, validation = read("calibrate dose", "calibration.json"), read("validate", "validation.json")
    choice, beside = read("choose", "choice.json"), results_beside(steps, read)
    source, target = (choice["chosen"][f"{side}_block"] for side in SIDES)
    entry = read("fit maps", "transplanted.affine_map.json")["maps"][0]
    survival, diagnostics = {}, {}
    for c in study.contrasts:
        mapped = read("map vectors", f"{c.concept}.transplanted.concept_vector.json")["provenance"]
        survival[c.concept] = mapped["survival"][str(target)]
        diagnostics[c.concept] = mapped["refined"]["diagnostics"][str(source)]
    found = {
        "validations": [*calibration["rows"], *validation["rows"], *beside["rows"]],
        "summary": validation["summary"],
        "doses": calibration["doses"],
        "match_rate": read("fit maps", "facts.json")["match_rate"],
        "map": {
            "estimator": entry["estimator"],
            "lambda": entry["info"]["lambda"],
            "heldout_r2": entry["info"]["heldout_r2"],
            "survival": sum(survival.values()) / len(survival),
        },
        "choice": choice,
        "diagnostics": diagnostics,
        "rows_fitted": entry["info"]["n"],
        "effects": {study.spec.validate_.protocol: validation["effect"], **beside["effects"]},
        "chance": chance(study),
        "cross_effects": read("cross effects", "cross_effects.json") if "cross effects" in steps else None,
        "samples": beside["samples"],
        "stability": beside["stability"],
    }
    width = read("fit maps", "transplanted.affine_map.json")["source"]["hidden_size"]
    judged = {**found, "source_width": width, "map": {**found["map"], "survival": survival}}
    # the summary is about the protocol, and not about what was measured beside it
    judged["validations"] = [*calibration["rows"], *validation["rows"]]
    findings = [*findings_of(judged), *findings_of({"validations": beside["rows"], "effects": beside["effects"]})]
    findings.sort(key=lambda f: _SEVERITIES.index(f.severity))
    return {**found, "findings": [asdict(f) for f in findings]}
