import json
from pathlib import Path

import pytest
from transformers import PreTrainedModel

from contrans.errors import ModelError
from contrans.models import catalogue, resolve
from contrans.models.facts import ModelFacts
from tests.tiny import tiny_model


def test_hub_ids_with_and_without_revision() -> None:
    plain, at = resolve("org/name"), resolve("org/name@v1.0")
    assert (plain.kind, plain.text, plain.revision) == ("hub", "org/name", None)
    assert (at.kind, at.text, at.revision, at.name) == ("hub", "org/name", "v1.0", "name")
    assert resolve("org/name", revision="v1.0") == at
    assert resolve("org/name@v1.0", revision="v1.0") == at
    with pytest.raises(ModelError, match="keep one"):
        resolve("org/name@v1.0", revision="main")


def test_local_folder_tells_its_facts(tmp_path: Path) -> None:
    model = tiny_model("gemma3_text", layers=6)
    model.save_pretrained(tmp_path / "m")
    reference = resolve(tmp_path / "m")
    assert reference.kind == "folder"
    size = sum(weight.numel() for weight in model.parameters())
    assert reference.facts() == ModelFacts("gemma3_text", 6, 32, 128, size, 256)


def test_folder_without_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no config\.json"):
        resolve(tmp_path)


def test_damaged_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        resolve(tmp_path).facts()


def test_gguf_key_follows_the_content(tiny_gguf: tuple[Path, PreTrainedModel], tmp_path: Path) -> None:
    path, _ = tiny_gguf
    reference = resolve(path)
    assert (reference.kind, reference.name) == ("gguf", "tiny-llama.q4")
    copy = tmp_path / "sub" / path.name
    copy.parent.mkdir()
    copy.write_bytes(path.read_bytes())
    assert resolve(copy).cache_key() == reference.cache_key()
    copy.write_bytes(path.read_bytes() + b"1")
    assert resolve(copy).cache_key() != reference.cache_key()
    assert reference.folder() is None
    assert reference.known_fingerprint() is None


def test_another_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_text("")
    with pytest.raises(ModelError, match=r"not a \.gguf one"):
        resolve(tmp_path / "model.bin")


def test_catalogue_is_pinned_and_plans_without_files() -> None:
    for name, entry in catalogue.MODELS.items():
        reference = resolve(f"pypi:{name}")
        assert (reference.kind, reference.name, reference.revision) == ("pypi", name, entry.revision)
        assert reference.facts() == entry.facts
        assert reference.known_fingerprint() is None
        hashes = [entry.sha256, *(wheel.sha256 for wheel in entry.wheels)]
        assert all(len(value) == 64 and int(value, 16) for value in hashes)
        known = {wheel.distribution for wheel in entry.wheels}
        assert {member.distribution for member in (*entry.parts, *entry.licence_files)} <= known


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("pypi:smollm-135m", r'Did you mean "pypi:smollm2-135m-instruct"'),
        ("pypi:zzz", r'"pypi:gemma-3-270m"'),
        ("gemma-3-270", "Did you mean pypi:gemma-3-270m or google/gemma-3-270m"),
        ("./nowhere/at/all", "no model that exists here"),
        ("models/none.gguf", "no model that exists here"),
        ("", "no model"),
    ],
)
def test_unknown_references_name_the_four_forms(text: str, hint: str) -> None:
    with pytest.raises(ModelError, match=hint) as error:
        resolve(text)
    assert '"org/name@revision"), a model folder, a .gguf file, or "pypi:NAME"' in str(error.value)


def test_pinned_models_take_no_revision() -> None:
    with pytest.raises(ModelError, match=r"pinned to version 0\.1\.2"):
        resolve("pypi:smollm2-135m-instruct", revision="main")


def test_fingerprints_are_remembered_until_a_file_changes(tmp_path: Path) -> None:
    tiny_model("llama").save_pretrained(tmp_path / "m")
    reference = resolve(tmp_path / "m")
    assert reference.known_fingerprint() is None
    reference.remember_fingerprint("abc", dtype="float32")
    assert resolve(tmp_path / "m").known_fingerprint() == "abc"
    assert reference.known_fingerprint(dtype="bfloat16") is None
    config = tmp_path / "m" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"rms_norm_eps": 1e-3}))
    assert reference.known_fingerprint() is None
