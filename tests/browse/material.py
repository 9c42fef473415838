"""A registry to browse: a tiny model on disk, two concepts in several versions, evidence, hostile texts."""

import json
from pathlib import Path
from typing import Any

import torch

from contrans.concepts import ConceptVector
from contrans.models import load_model
from contrans.models.model import Model
from registry import Registry, Result, Version
from tests.tiny import tiny_model, tiny_tokenizer

HOSTILE = "<script>alert(1)</script><img src=x onerror=alert(2)>\"'{{ 7*7 }}"
BLOCK = 2


def save_model(folder: Path, *, seed: int = 0) -> Path:
    """A tiny random model that `load_model` can load."""
    tiny_model("llama", seed=seed).save_pretrained(folder)
    tiny_tokenizer("bytes").save_pretrained(folder)
    return folder


def vector_of(model: Model, concept: str, seed: int) -> ConceptVector:
    """A random direction in the model's space, as a transplant would be."""
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(seed))
    provenance = {
        "mapped_from": {"blocks": [1], "model": {"name": "small", "hidden_size": 8}},
        "map": {f"1>{BLOCK}": {"estimator": "ridge", "n": 20}},
        "refined": {"diagnostics": {"1": {"d_prime": 0.4, "split_half_cosine": 0.5}}, "template": HOSTILE},
        "survival": {str(BLOCK): 0.9},
    }
    return ConceptVector(concept, model.record, {BLOCK: direction}, {BLOCK: 1.0}, {BLOCK: 4.0}, provenance)


def results_of(concept: str, gain: float) -> list[Result]:
    """Numbers of a dose curve and of the test items, as the protocol emotion registers them."""
    rows = [
        Result(concept, "emotion", "test", "unsteered", "logit_accuracy", None, 0.12, 0.08, 0.17, 180),
        Result(concept, "emotion", "test", "transplanted", "logit_accuracy", 0.2, 0.9 * gain, 0.8 * gain, gain, 180),
        Result(concept, "emotion", "test", "own", "logit_accuracy", 0.2, 0.91, 0.86, 0.95, 180),
        Result(concept, "emotion", "test", "transplanted", "gain_recovered", 0.2, gain, gain - 0.05, gain + 0.05, 180),
        Result(concept, "emotion", "test", "transplanted", "mcnemar_p", 0.2, 0.0001, n=180),
    ]
    for arm in ("transplanted", "own"):
        for dose in (0.1, 0.2, 0.3):
            rows.append(Result(concept, "emotion", "dev", arm, "logit_accuracy", dose, gain * dose * 3, None, None, 40))
            rows.append(Result(concept, "emotion", "dev", arm, "kl", dose, dose * dose))
        rows.append(Result(concept, "emotion", "generic", arm, "kl", 0.2, 0.04, 0.03, 0.05))
    return rows


def fill(registry: Registry, target: Model, *, versions: int = 3) -> dict[str, Version]:
    """Registers two concepts in some versions; gives the last of each thing."""
    made: dict[str, Version] = {}

    def add(key: str, kind: str, name: str, manifest: dict[str, Any], **more: Any) -> Version:
        made[key] = registry.register(kind, name, manifest=manifest, **more)
        return made[key]

    registry.start_run("run-1", spec={"name": "test"}, spec_hash="ab", flow_run_id="flow-1", commit="c0ffee")
    add("source", "model", "small", {"reference": "org/small", "family": "llama"})
    record = target.record.to_json()
    add("target", "model", "tiny", record)
    add("texts", "text_set", "emotion/anger/refine", {"hash": "aa", "n_texts": 90, "split": "refine", "note": HOSTILE})
    for i in range(versions):
        info = {"estimator": "ridge", "source_block": 1, "target_block": BLOCK, "n": 20 + i}
        inputs = {"source": made["source"], "target": made["target"], "texts": made["texts"]}
        add("map", "map", "small/tiny", info, inputs=inputs)
        for seed, concept in enumerate(("anger", "joy")):
            own = {"concept": concept, "estimator": "mean_difference", "block": 1}
            texts = {"model": made["source"], "texts": made["texts"]}
            add(f"{concept} vector", "vector", f"{concept}/small", own, inputs=texts)
            vector = vector_of(target, concept, 10 * seed + i)
            add(
                concept,
                "transplant",
                f"{concept}/small/tiny",
                {"concept": concept, "block": BLOCK, "dose": 0.2, "note": HOSTILE, "serial": i},
                files=vector.to_files(),
                inputs={"vector": made[f"{concept} vector"], "map": made["map"], "target": made["target"]},
                run_id="run-1",
            )
            gain = 0.5 + 0.1 * i + 0.2 * seed
            samples = [
                {"prompt": HOSTILE, "arm": arm, "text": f"{arm} {HOSTILE}", "flaw": "", "concept": concept}
                for arm in ("unsteered", "transplanted")
            ]
            add(
                f"{concept} validation",
                "validation",
                f"{concept}/small/tiny/emotion",
                {"protocol": "emotion", "split": "test", "concept": concept, "serial": i},
                files={"samples.json": json.dumps({"rows": samples}).encode()},
                inputs={"transplant": made[concept]},
                results=results_of(concept, gain),
            )
    odd = Result(HOSTILE[:100], HOSTILE[:50], "test", HOSTILE[:60], HOSTILE[:70], 0.1, 0.5)
    add("odd", "validation", "odd", {"protocol": HOSTILE}, results=[odd], inputs={"transplant": made["anger"]})
    registry.finish_run("run-1", "completed", mlflow_run_id="mlflow-1")
    registry.set_alias(made["anger"], "production")
    registry.tag(made["anger"], "paper")
    registry.describe_concept("anger", family="emotion", description=HOSTILE)
    return made


def registry_in(folder: Path) -> dict[str, Version]:
    """A filled registry `registry.db` and its model in a folder."""
    target = load_model(str(save_model(folder / "tiny")))
    with Registry.open(folder / "registry.db") as registry:
        return fill(registry, target)
