import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from contrans.errors import ModelError
from contrans.models.fingerprint import architecture_settings, fingerprint
from tests.tiny import ARCHITECTURES, tiny_model


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_same_from_any_folder_and_sharding(architecture: str, tmp_path: Path) -> None:
    model = tiny_model(architecture)
    for name, size in (("one", "5GB"), ("many", "20KB")):
        model.save_pretrained(tmp_path / name, max_shard_size=size)
    prints = {fingerprint(type(model).from_pretrained(tmp_path / name)) for name in ("one", "many")}
    assert prints == {fingerprint(model)}
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1


def test_same_in_another_process(tmp_path: Path) -> None:
    model = tiny_model("gemma2", seed=3)
    code = (
        "from tests.tiny import tiny_model; from contrans.models.fingerprint import fingerprint; "
        "print(fingerprint(tiny_model('gemma2', seed=3)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == fingerprint(model)


def test_changes_with_weight_dtype_and_config() -> None:
    model = tiny_model("llama")
    prints = [fingerprint(model)]
    prints.append(fingerprint(tiny_model("llama", seed=1)))
    prints.append(fingerprint(tiny_model("llama", rms_norm_eps=1e-3)))
    prints.append(fingerprint(tiny_model("llama").to(torch.bfloat16)))
    changed = tiny_model("llama")
    changed.model.layers[2].mlp.up_proj.weight[0, 0] += 1e-6
    prints.append(fingerprint(changed))
    assert len(set(prints)) == len(prints)


def test_blind_to_what_is_not_architecture() -> None:
    model = tiny_model("llama")
    before = fingerprint(model)
    model.config._name_or_path = "/elsewhere"
    model.config.transformers_version = "9.9"
    model.config.architectures = ["Other"]
    model.config.use_cache = False
    model.config.pad_token_id = 7
    assert fingerprint(model) == before


def test_tied_weights_count_once_but_tying_counts() -> None:
    tied, untied = (
        tiny_model("llama", tie_word_embeddings=True),
        tiny_model("llama", tie_word_embeddings=False),
    )
    untied.load_state_dict(tied.state_dict())
    assert fingerprint(tied) != fingerprint(untied)


def test_defaults_are_left_out() -> None:
    settings = architecture_settings(tiny_model("llama").config)
    assert settings["hidden_size"] == 32
    assert settings["model_type"] == "llama"
    assert "initializer_range" not in settings


def test_bf16_content_counts_by_its_bits() -> None:
    model = tiny_model("gpt2").to(torch.bfloat16)
    assert fingerprint(model) == fingerprint(tiny_model("gpt2").to(torch.bfloat16))


def test_offloaded_weights_are_refused() -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(tiny_model("llama").config)
    with pytest.raises(ModelError, match="offloaded"):
        fingerprint(model)
