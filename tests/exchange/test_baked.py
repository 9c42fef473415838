"""Folders that transformers or PEFT load by themselves, and what is said where a kind of model allows neither."""

import json
from functools import cache
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from contrans.errors import ArtifactError, ModelError
from contrans.exchange.baked import NOTE, export_adapter, export_baked, usage_of
from contrans.transplants import transplant
from tests.tiny import VISION_ARCHITECTURES, tiny
from tests.transplants.test_apply import vector_for
from tests.transplants.test_bake import IN_MEMORY, NATIVE, NEVER, logits, right_padded

model_of = cache(tiny)
SETTINGS: dict[str, Any] = {"dose": 0.6, "block": 2, "origin": "anger/small/large@3"}


def hooked(model, inputs) -> torch.Tensor:
    with transplant(model, vector_for(model), dose=0.6, block=2, positions="with_bos"):
        return logits(model.module, inputs)


# every kind of model is baked, saved and loaded in tests/transplants/test_bake.py; here it is the folder
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "falcon"])
def test_a_folder_that_plain_transformers_loads(architecture, tmp_path):
    model = model_of(architecture)
    inputs = right_padded(model)
    path = export_baked(model, vector_for(model), tmp_path / "baked", **SETTINGS)
    loaded = AutoModelForCausalLM.from_pretrained(path)
    torch.testing.assert_close(logits(loaded, inputs), hooked(model, inputs), rtol=1e-5, atol=1e-5)
    assert AutoTokenizer.from_pretrained(path)("the cat")["input_ids"] == model.tokenizer("the cat")["input_ids"]
    note = json.loads((path / NOTE).read_text())
    assert (note["dose"], note["blocks"], note["made_from"]) == (0.6, [2], "anger/small/large@3")
    assert note["base_model"]["fingerprint"] == model.fingerprint
    assert [p.name for p in tmp_path.iterdir()] == ["baked"]
    assert str(path) in usage_of("baked", "org/large", str(path))
    with pytest.raises(ArtifactError, match="is there already"):
        export_baked(model, vector_for(model), path, **SETTINGS)
    export_baked(model, vector_for(model), path, **SETTINGS, force=True)


BY_ADAPTER = sorted({*IN_MEMORY} - {"deepseek_v3"})


@pytest.mark.parametrize("architecture", BY_ADAPTER)
def test_a_class_without_the_bias_names_the_adapter(architecture, tmp_path):
    model = model_of(architecture)
    with pytest.raises(ModelError, match=r"cannot be baked and saved.* PEFT can carry it: use --format peft\."):
        export_baked(model, vector_for(model), tmp_path / "x", **SETTINGS)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", sorted(NEVER))
def test_a_norm_after_the_last_layer_rules_out_both(architecture, tmp_path):
    model = model_of(architecture)
    for write in (export_baked, export_adapter):
        with pytest.raises(ModelError, match="because a norm comes after") as caught:
            write(model, vector_for(model), tmp_path / "x", **SETTINGS)
        assert "peft" not in str(caught.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("architecture", sorted([*BY_ADAPTER, *NATIVE]))
def test_an_adapter_that_peft_loads(architecture, tmp_path):
    peft = pytest.importorskip("peft", reason="needs peft, to load the adapter")
    model = tiny(architecture)
    inputs = right_padded(model)
    expected = hooked(model, inputs)
    path = export_adapter(model, vector_for(model), tmp_path / "adapter", **SETTINGS)
    model.module.save_pretrained(tmp_path / "base")
    auto: Any = AutoModelForImageTextToText if architecture in VISION_ARCHITECTURES else AutoModelForCausalLM
    adapted = peft.PeftModel.from_pretrained(auto.from_pretrained(tmp_path / "base"), path).eval()
    torch.testing.assert_close(logits(adapted, inputs), expected, rtol=1e-5, atol=1e-5)


def test_peft_gives_no_bias_among_experts(tmp_path):
    model = model_of("deepseek_v3")
    with pytest.raises(ModelError, match=r"in_memory=True for a model of this process only\.$"):
        export_baked(model, vector_for(model), tmp_path / "x", **SETTINGS)
    with pytest.raises(ModelError, match="among experts, which PEFT gives no bias"):
        export_adapter(model, vector_for(model), tmp_path / "x", **SETTINGS)


def test_a_vector_of_another_model(tmp_path):
    with pytest.raises(ArtifactError, match="belongs to tiny-gpt2-0, not to tiny-llama-0"):
        export_baked(model_of("llama"), vector_for(model_of("gpt2")), tmp_path / "x", **SETTINGS)
