"""Tasks that run beside repeng and steering-vectors, without contrans: `python in_other_python.py JOBS.json`."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def logits(folder: Path, usage: str, ids: list[list[int]], kind: str) -> None:
    """Logits of the model in `folder/model`, plain and as the usage lines of an export say, to `folder/*.npy`."""
    # As a user would paste them; the model is plain transformers.
    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    names: dict[str, Any] = {"model": model}

    def run() -> Any:
        # one by one: repeng 0.4 fails at batches whose positions transformers gives once for all rows
        return np.concatenate([names["model"](torch.tensor([row])).logits.numpy() for row in ids])

    with torch.inference_mode():
        np.save(folder / "plain.npy", run())
        if kind == "steering-vectors":
            exec(usage.partition("with ")[0], names)
            with names["vector"].apply(model):
                np.save(folder / "steered.npy", run())
        else:
            exec(usage, names)
            np.save(folder / "steered.npy", run())


def repeng_copy(folder: Path, source: str) -> None:
    """Reads a GGUF by repeng and writes it again by repeng."""
    from repeng import ControlVector

    ControlVector.import_gguf(folder / source).export_gguf(folder / "copy.gguf")


def extract(folder: Path, positive: list[str], negative: list[str], layers: list[int]) -> None:
    """The concept by repeng (PCA of the differences) and by steering-vectors (mean), at some blocks of a model."""
    from repeng import ControlModel, ControlVector, DatasetEntry
    from steering_vectors import SteeringVectorTrainingSample, mean_aggregator, train_steering_vector

    model: Any = AutoModelForCausalLM.from_pretrained(folder / "model", dtype=torch.float32).eval()
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(folder / "model")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    pairs = list(zip(positive, negative, strict=True))
    made = train_steering_vector(
        model,
        tokenizer,
        [SteeringVectorTrainingSample(p, n) for p, n in pairs],
        layers=layers,
        aggregator=mean_aggregator(),
        batch_size=8,
        read_token_index=-1,
    )
    # the package has no file format of its own but pickles: these are the names that our export uses too
    named = {f"layer_activations.{n}": v.float().contiguous() for n, v in made.layer_activations.items()}
    save_file(named, folder / "mean.safetensors")
    control = ControlVector.train(
        ControlModel(model, layers),
        tokenizer,
        [DatasetEntry(p, n) for p, n in pairs],
        hidden_layers=layers,
        batch_size=8,
    )
    control.export_gguf(folder / "pca.gguf")


TASKS = {"logits": logits, "repeng_copy": repeng_copy, "extract": extract}

if __name__ == "__main__":
    for task, where, settings in json.loads(Path(sys.argv[1]).read_text()):
        TASKS[task](Path(where), **settings)
