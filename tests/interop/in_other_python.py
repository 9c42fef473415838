"""Tasks that run beside other tools, without contrans: `python in_other_python.py JOBS.json`."""

import json
import os
import sys
import types
from functools import cache
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


@cache
def loaded(model: Path) -> tuple[Any, Any]:
    """A model and its tokenizer, once for all concepts that are extracted from it."""
    tokenizer: Any = PreTrainedTokenizerFast.from_pretrained(model)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "right"
    return AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval(), tokenizer


def extract(folder: Path, positive: list[str], negative: list[str], layers: list[int]) -> None:
    """The concept by repeng (both PCAs) and by steering-vectors (mean), at some blocks of a model."""
    from repeng import ControlModel, ControlVector, DatasetEntry
    from steering_vectors import SteeringVectorTrainingSample, mean_aggregator, train_steering_vector

    model, tokenizer = loaded((folder / "model").resolve())
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
    wrapped, entries = ControlModel(model, layers), [DatasetEntry(p, n) for p, n in pairs]
    for method, name in (("pca_diff", "pca.gguf"), ("pca_center", "pca_center.gguf")):  # the first is its default
        settings: Any = {"method": method, "hidden_layers": layers, "batch_size": 8}
        ControlVector.train(wrapped, tokenizer, entries, **settings).export_gguf(folder / name)
    wrapped.unwrap()


def easysteer_copy(folder: Path, sources: str) -> None:
    """Reads a GGUF by EasySteer and writes it again by EasySteer."""
    sys.path.insert(0, sources)
    from easysteer.steer.utils import StatisticalControlVector  # pyright: ignore[reportMissingImports]

    found = StatisticalControlVector.import_gguf(folder / "ours.gguf")
    (folder / "method.txt").write_text(found.method)
    found.export_gguf(folder / "copy.gguf")


def easyedit2_logits(folder: Path, sources: str, ids: list[list[int]]) -> None:
    """Logits of the model in `folder/model` after EasyEdit2's CAA applier was given `folder/vector`, and without."""
    sys.path.insert(0, sources)
    # Its table of methods imports every method by names that its packages no longer export; CAA needs only the dtypes.
    table: Any = types.ModuleType("steer.utils.alg_dict")
    table.DTYPES_DICT, table.HYPERPARAMS_CLASS_DICT = {"fp32": torch.float32}, {}
    sys.modules["steer.utils.alg_dict"] = table
    from steer.vector_appliers.caa.apply_caa import apply_caa  # pyright: ignore[reportMissingImports]
    from steer.vector_appliers.caa.apply_caa_hparam import ApplyCAAHyperParams  # pyright: ignore[reportMissingImports]

    # a tokenizer that transformers 5 saved, under the name by which 4 knows it
    path = folder / "model" / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokenizer_class": "PreTrainedTokenizerFast"}))
    settings = ApplyCAAHyperParams.from_hparams(str(folder / "vector" / "apply_caa.yaml"))
    settings.model_name_or_path, settings.steer_vector_load_dir = str(folder / "model"), str(folder / "vector")
    settings.device = "cpu"
    model = apply_caa(settings)
    with torch.inference_mode():
        np.save(folder / "steered.npy", model.model(torch.tensor(ids)).logits.numpy())
        model.reset_all()
        np.save(folder / "plain.npy", model.model(torch.tensor(ids)).logits.numpy())


def vllm_logprobs(folder: Path, ids: list[list[int]], vocabulary: int) -> None:
    """Log-probabilities [texts, tokens − 1, vocabulary] that vLLM gives after each token of `folder/model`."""
    # one process, and memory for a few tokens
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
    from vllm import LLM, SamplingParams  # pyright: ignore[reportMissingImports]

    llm = LLM(
        str(folder / "model"),
        dtype="float32",
        skip_tokenizer_init=True,
        enforce_eager=True,
        max_model_len=64,
        max_logprobs=vocabulary,
    )
    asked = SamplingParams(max_tokens=1, prompt_logprobs=vocabulary, detokenize=False)
    answers = llm.generate([{"prompt_token_ids": row} for row in ids], asked)
    found = np.array(
        [
            [[after[token].logprob for token in range(vocabulary)] for after in answer.prompt_logprobs[1:]]
            for answer in answers
        ]
    )
    np.save(folder / "logprobs.npy", found)


TASKS = {
    task.__name__: task for task in (logits, repeng_copy, extract, easysteer_copy, easyedit2_logits, vllm_logprobs)
}

if __name__ == "__main__":
    for task, where, settings in json.loads(Path(sys.argv[1]).read_text()):
        TASKS[task](Path(where), **settings)
