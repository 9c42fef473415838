"""`contrans export` and `contrans import`, as somebody types them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from contrans.concepts import ConceptVector
from contrans.exchange import FORMATS
from contrans.models import load_model
from contrans.transplants import transplant
from registry import Registry
from tests.hub.concepts import TARGET, fill
from tests.tiny import tiny

NAME = f"anger/smollm2-135m-instruct/{TARGET.name}"
Typed = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """A registry with a transplant, its dose among its settings, and one that says it in its validation only."""
    folder = tmp_path_factory.mktemp("home")
    with Registry.open(folder / "registry.db") as registry:
        made = fill(registry)
        plain = made.versions[TARGET.name]
        inputs = dict(registry.lineage(plain, "up", depth=1).parents(plain))
        files = {n: registry.read(plain, n) for n in registry.files(plain)}
        late = registry.register("transplant", "late", manifest={"concept": "anger"}, files=files, inputs=inputs)
        judged = {"protocol": "emotion", "split": "test", "concept": "anger", "doses": {"transplanted": 0.35}}
        registry.register("validation", "late/emotion", manifest=judged, inputs={"transplant": late})
        registry.register("transplant", "unjudged", manifest={"concept": "anger"}, files=files, inputs=inputs)
        registry.register(
            "transplant", "clamped", manifest={"concept": "anger", "dose": 1.0, "operation": "clamp"}, files=files
        )
    return folder


@pytest.fixture
def typed(home, monkeypatch, capsys) -> Typed:
    monkeypatch.setenv("CONTRANS_HOME", str(home))
    monkeypatch.delenv("CONTRANS_REGISTRY", raising=False)
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: Any) -> tuple[int, str, str]:
        from flows.cli import main

        with pytest.raises(SystemExit) as ended:
            main([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return ended.value.code if isinstance(ended.value.code, int) else 0, out, err

    return run


@pytest.mark.parametrize("name", FORMATS)
def test_export(name, typed, tmp_path):
    path = tmp_path / f"anger{FORMATS[name].suffix}"
    code, out, err = typed("export", NAME, "--format", name, "-o", path)
    assert (code, out.splitlines()[0]) == (
        0,
        f"{NAME}@1 for org/large, block 2, dose 0.2, is in {path}. Use it so:",
    ), err
    assert str(path) in "".join(out.splitlines()[1:])
    code, _, err = typed("export", NAME, "--format", name, "-o", path)
    assert (code, "is there already" in err) == (2, True)
    code, out, _ = typed("export", NAME, "--format", name, "-o", path, "--force", "--dose", "-0.4", "--json")
    told = json.loads(out)
    assert (code, told["dose"], told["blocks"], told["made_from"]) == (0, -0.4, [2], f"{NAME}@1")
    assert told["usage"].count(str(path)) == 1


def test_the_dose_is_that_of_the_validation(typed, home, tmp_path):
    path = tmp_path / "v.safetensors"
    assert typed("export", "late", "--format", "safetensors", "-o", path)[0] == 0
    with Registry.open(home / "registry.db") as registry:
        files = {n: registry.read("late", n) for n in registry.files("late")}
    vector = ConceptVector.from_files(files)
    due = vector.direction(2) / vector.direction(2).norm() * vector.residual_norm[2] * 0.35
    torch.testing.assert_close(load_file(path)["block.2"], due)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("unjudged", "--format", "gguf", "-o", "v.gguf"), "was not validated at any dose; say how much"),
        (("clamped", "--format", "gguf", "-o", "v.gguf"), '"clamp" depends on the hidden state'),
        ((NAME, "--format", "onnx", "-o", "v.onnx"), "No format to export is called 'onnx'"),
        ((NAME, "--format", "lm-eval", "-o", "v.bin"), "reads files that end in .pt; write to v.pt"),
        ((NAME, "--format", "gguf", "-o", "v.gguf", "--block", "9"), "no direction at block 9"),
        ((f"map:smollm2-135m-instruct/{TARGET.name}", "--format", "gguf", "-o", "v.gguf"), "no transplant or vector"),
        (("nothing-of-this", "--format", "gguf", "-o", "v.gguf"), "nothing-of-this"),
    ],
)
def test_export_refuses(arguments, sentence, typed, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = typed("export", *arguments)
    assert (code, out) == (2, "")
    assert sentence in " ".join(err.split())
    assert not list(tmp_path.iterdir())


def test_a_model_folder_there_and_a_vector_back(typed, home, tmp_path):
    """Baked and adapted by the commands, and another tool's file imported for the same model."""
    base = tiny("gpt2")
    for part in (base.module, base.tokenizer):
        saving: Any = part
        saving.save_pretrained(tmp_path / "base")
    model = load_model(tmp_path / "base")
    directions = {1: torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(1))}
    vector = ConceptVector("calm", model.record, directions, {1: 1.0}, {1: 4.0})
    with Registry.open(home / "registry.db") as registry:
        settings = {"concept": "calm", "dose": 0.5}
        registry.register("transplant", "calm/base", manifest=settings, files=vector.to_files())
    ids = torch.tensor([[20, 35, 70, 111]])
    with torch.inference_mode(), transplant(model, vector, dose=0.5):
        expected = model.module(ids).logits
    code, out, err = typed("export", "calm/base", "--format", "baked", "-o", tmp_path / "baked")
    assert (code, "from_pretrained" in out) == (0, True), err
    loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "baked")
    torch.testing.assert_close(loaded(ids).logits, expected, rtol=1e-5, atol=1e-5)
    assert typed("export", "calm/base", "--format", "peft", "-o", tmp_path / "adapter")[0] == 0
    assert sorted(p.name for p in (tmp_path / "adapter").iterdir()) == [
        "adapter_config.json",
        "adapter_model.safetensors",
        "contrans.json",
    ]

    assert typed("export", "calm/base", "--format", "repeng", "-o", tmp_path / "calm.gguf")[0] == 0
    arguments = ("--format", "repeng", "--model", tmp_path / "base", "--concept", "calm")
    code, out, err = typed("import", tmp_path / "calm.gguf", *arguments, "--json")
    told = json.loads(out)
    assert (code, told["blocks"], told["registered"]["ref"]) == (0, [1], "calm/base/repeng@1"), err
    code, out, _ = typed("import", tmp_path / "calm.gguf", *arguments, "--name", "mine/calm")
    assert (code, out.startswith("vector:mine/calm@1 holds calm of ")) == (0, True)
    (tmp_path / "bad.gguf").write_bytes((tmp_path / "calm.gguf").read_bytes()[:-40])
    code, out, err = typed("import", tmp_path / "bad.gguf", *arguments)
    assert (code, out, "cut short" in err) == (2, "", True)


def test_the_help_tells_the_two_exports_apart(typed):
    assert "`registry export` archives versions instead" in " ".join(typed("export", "--help")[1].split())
    assert "`registry import` takes archives of versions" in " ".join(typed("import", "--help")[1].split())
