from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertForMaskedLM, PreTrainedModel

from contrans.errors import ModelError
from contrans.models import load_model
from tests.tiny import tiny, tiny_config, tiny_model, tiny_tokenizer


def saved(folder: Path, module: PreTrainedModel) -> Path:
    module.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ["gemma2", "opt", "llava"])
def test_a_folder_loads_as_it_was(architecture: str, tmp_path: Path) -> None:
    original = tiny_model(architecture)
    model = load_model(saved(tmp_path / "Tiny Model", original))
    ids = torch.tensor([[1, 9, 40, 77]])
    assert torch.equal(model.module(ids).logits, original(ids).logits)
    assert (model.name, model.device.type, model.module.training) == ("tiny-model", "cpu", False)
    assert not any(weight.requires_grad for weight in model.module.parameters())
    assert model.tokenizer("the cat")["input_ids"] == tiny_tokenizer()("the cat")["input_ids"]


def test_a_loaded_model_is_passed_through() -> None:
    model = tiny()
    assert load_model(model) is model


def test_models_load_side_by_side(tmp_path: Path) -> None:
    """While transformers loads a model, no class of its ties weights; what swaps that back must be who swapped it."""
    ties = PreTrainedModel.tie_weights
    original = tiny_model("gpt2")
    folders = [saved(tmp_path / str(i), original) for i in range(2)]
    with ThreadPoolExecutor(max_workers=8) as pool:
        loaded = list(pool.map(load_model, folders * 20))
    assert PreTrainedModel.tie_weights is ties
    ids = torch.tensor([[1, 9, 40, 77]])
    assert all(torch.equal(model.module(ids).logits, original(ids).logits) for model in loaded)


def test_dtype_is_fp32_on_a_cpu_unless_asked(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_model("llama").to(torch.bfloat16))
    assert load_model(folder, device="cpu").record.dtype == "float32"
    assert load_model(folder, device="cpu", dtype="bfloat16").record.dtype == "bfloat16"
    assert load_model(folder, device="cpu", dtype=torch.float16).record.dtype == "float16"
    with pytest.raises(ModelError, match='"float7" is not known'):
        load_model(folder, dtype="float7")


def test_an_unknown_device_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match='device "abacus"'):
        load_model(saved(tmp_path, tiny_model("llama")), device="abacus")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_gpu_takes_the_checkpoints_dtype(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path, tiny_model("llama").to(torch.float16)))
    assert (model.device.type, model.record.dtype) == ("cuda", "bfloat16")
    assert model.complete("the cat", max_new_tokens=3) != []


def test_device_map_is_passed_on(tmp_path: Path) -> None:
    model = load_model(saved(tmp_path, tiny_model("llama")), device_map="cpu")
    assert model.complete("the cat", max_new_tokens=3) != []


def test_encoders_load_as_a_source(tmp_path: Path) -> None:
    whole = load_model(saved(tmp_path / "whole", AutoModel.from_config(tiny_config("bert"))))
    assert (whole.layout.path, whole.n_blocks) == ("encoder.layer", 4)
    masked = load_model(saved(tmp_path / "masked", BertForMaskedLM(tiny_config("bert"))))
    assert type(masked.module).__name__ == "BertModel"


def test_fingerprint_is_known_next_time(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_model("llama"))
    first = load_model(folder)
    assert first.known_fingerprint is None
    computed = first.fingerprint
    assert load_model(folder).known_fingerprint == computed
    assert load_model(folder, dtype="bfloat16").known_fingerprint is None


def test_licence_comes_from_the_card(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_model("llama"))
    assert load_model(folder).licence is None
    (folder / "README.md").write_text("---\nlicense: mit\n---\n# Tiny\n")
    assert load_model(folder).licence == "mit"


def test_weights_with_nan_or_infinity_are_refused(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_model("llama"))
    weights = load_file(folder / "model.safetensors")
    for value in (float("nan"), float("-inf")):
        weights["model.layers.2.mlp.up_proj.weight"][0, 0] = value
        save_file(weights, folder / "model.safetensors", {"format": "pt"})
        with pytest.raises(ModelError, match=r"model\.layers\.2\.mlp\.up_proj\.weight.*NaN or infinite"):
            load_model(folder)


def test_missing_weights_are_not_made_up(tmp_path: Path) -> None:
    folder = saved(tmp_path, tiny_model("llama"))
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.2.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lack 1 weights, model\.layers\.2"):
        load_model(folder)


def test_truncated_and_absent_files_are_sentences(tmp_path: Path) -> None:
    folder = saved(tmp_path / "m", tiny_model("llama"))
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)
    (folder / "model.safetensors").unlink()
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_model(folder)


def test_an_unknown_architecture_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "not_a_model"}')
    with pytest.raises(ModelError, match="not_a_model"):
        load_model(tmp_path)


def test_no_network_is_a_sentence_with_a_way_out() -> None:
    with pytest.raises(ModelError, match=r"cannot be reached.*local folder or GGUF file") as error:
        load_model("google/gemma-3-270m")
    assert 'comes as "pypi:gemma-3-270m"' in str(error.value)
