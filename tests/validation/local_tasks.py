"""Tasks of lm-evaluation-harness with local data, written for tests."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

CHOICES = {
    "task": "local_choices",
    "output_type": "multiple_choice",
    "doc_to_text": "{{question}}",
    "doc_to_choice": "{{choices}}",
    "doc_to_target": "{{gold}}",
    "metric_list": [{"metric": "acc", "aggregation": "mean", "higher_is_better": True}],
}
ROLLING = {
    "task": "local_pages",
    "output_type": "loglikelihood_rolling",
    "doc_to_text": "",
    "doc_to_target": "{{page}}",
    "metric_list": [{"metric": m} for m in ("word_perplexity", "byte_perplexity", "bits_per_byte")],
}


def write_task(folder: Path, task: dict[str, Any], documents: Sequence[dict[str, Any]]) -> Path:
    """Writes a task file and its documents as its test split, and returns the folder."""
    data = folder / f"{task['task']}.jsonl"
    data.write_text("".join(json.dumps(d) + "\n" for d in documents))
    local = {
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {"test": str(data)}},
        "validation_split": None,
        "test_split": "test",
        "metadata": {"version": 1.0},
    }
    (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**task, **local}))
    return folder
