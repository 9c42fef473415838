"""A registry as a finished pipeline leaves it, with directions that are known."""

import json
from dataclasses import dataclass
from typing import Any

import torch

from contrans.concepts import ConceptVector
from contrans.models import ModelRecord
from registry import Registry, Result, Version
from tests.results import emotion_rows

PNG = b"\x89PNG\r\n\x1a\n" + bytes(range(200))
SOURCE = ModelRecord(
    "pypi:smollm2-135m-instruct", "smollm2-135m-instruct", "1.0", "a" * 64, "llama", 6, 5, "Apache-2.0", "float32"
)
TARGET = ModelRecord("org/large", "large", "c" * 40, "b" * 64, "gemma3_text", 8, 4, "Apache-2.0", "float32")
OTHER = ModelRecord("/home/ann/models/other", "other", None, "d" * 64, "gpt2", 4, 3, None, "float32")
KEYS = ("concept", "protocol", "split", "arm", "metric", "dose", "value", "low", "high", "n")
ROWS = [
    Result(**{key: row[key] for key in KEYS})
    for row in emotion_rows()
    if row["concept"] in ("anger", "all") and row["dose"] in (None, 0.1, 0.2, 0.3)
]


@dataclass
class Made:
    source: ConceptVector
    transplants: dict[str, ConceptVector]
    versions: dict[str, Version]


def vector(model: ModelRecord, blocks: range, *, seed: int, **provenance: Any) -> ConceptVector:
    generator = torch.Generator().manual_seed(seed)
    directions = {b: torch.randn(model.hidden_size, generator=generator) for b in blocks}
    scales = {b: 2.0 + b for b in blocks}
    return ConceptVector("anger", model, directions, scales, scales, {"template": "Say: {text}", **provenance})


def fill(registry: Registry, *, note: str = "", seed: int = 1, validated: bool = True) -> Made:
    registry.describe_concept("anger", family="emotion", description="The feeling of being wronged.")
    source = vector(SOURCE, range(5), seed=seed, estimator="mean_difference", note=note)
    model = {r.name: registry.register("model", r.name, manifest=r.to_json()) for r in (SOURCE, TARGET, OTHER)}
    texts = {
        split: registry.register(
            "text_set",
            f"emotion/anger/{split}",
            manifest={"hash": split * 4, "n_texts": 9, "split": split, "licence": "Apache-2.0"},
        )
        for split in ("refine", "test")
    }
    versions = {
        "vector": registry.register(
            "vector",
            f"anger/{SOURCE.name}",
            manifest={"concept": "anger", "estimator": "mean_difference", "block": 3},
            files=source.to_files(),
            inputs={"model": model[SOURCE.name], "texts": texts["refine"]},
        )
    }
    transplants = {}
    for i, record in enumerate((TARGET, OTHER)):
        there = transplants[record.name] = vector(record, range(2, 3), seed=seed + 10 + i, rescale="source-relative")
        link = registry.register(
            "map",
            f"{SOURCE.name}/{record.name}",
            manifest={"estimator": "ridge", "lambda": 0.3, "source_block": 3, "target_block": 2},
            files={"affine_map.safetensors": record.name.encode()},
            inputs={"source": model[SOURCE.name], "target": model[record.name]},
        )
        versions[record.name] = registry.register(
            "transplant",
            f"anger/{SOURCE.name}/{record.name}",
            manifest={"concept": "anger", "block": 2, "dose": 0.2, "note": note},
            files=there.to_files(),
            inputs={"vector": versions["vector"], "map": link, "target": model[record.name]},
        )
        if validated:
            versions[f"validation of {record.name}"] = registry.register(
                "validation",
                f"anger/{SOURCE.name}/{record.name}/emotion",
                manifest={
                    "protocol": "emotion",
                    "split": "test",
                    "concept": "anger",
                    "summary": {"gain_recovered_of_concept": {"value": 0.8, "low": 0.7, "high": 0.9}},
                },
                files={"accuracy.png": PNG + record.name.encode(), "notes.txt": b"not published"},
                inputs={"transplant": versions[record.name], "test_texts/anger": texts["test"]},
                results=ROWS,
            )
    return Made(source, transplants, versions)


def edited(manifest: bytes, **changes: Any) -> bytes:
    """A manifest with some of its keys changed and its hash made to fit again."""
    from registry.hub.manifest import content_hash

    found = {**json.loads(manifest), **changes}
    return json.dumps({**found, "content": content_hash(found)}).encode()
