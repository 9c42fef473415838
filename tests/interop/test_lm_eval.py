"""`lm_eval --model steered` with our file gives the scores of our own run under the transplant."""

import logging
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.models.hf_steered import SteeredModel
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from contrans.exchange import FORMATS, Shift, write_content
from contrans.models import Model
from contrans.transplants import Transplant
from tests.tiny import tiny
from tests.validation.local_tasks import CHOICES, ROLLING, write_task

pytestmark = pytest.mark.interop
BLOCK = 2
DOCUMENTS = [
    {"question": f"{a} and {b} make", "choices": [" one stone", " the weather", " London", " lemons"], "gold": i % 4}
    for i, (a, b) in enumerate((a, b) for a in ("cat", "stone", "rome") for b in ("one", "lemons"))
]
PAGES = [{"page": "the cat and the other cat sat there with their mother; she thinks this is the weather. " * 3}]


@pytest.fixture(scope="module", autouse=True)
def data_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


def saved(model: Model, folder: Path) -> Path:
    model.module.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def results(lm: HFLM, tasks: Path, *names: str) -> dict[str, dict[str, float]]:
    manager = TaskManager(include_path=str(tasks), include_defaults=False)
    found = lm_eval.simple_evaluate(lm, tasks=list(names), task_manager=manager, bootstrap_iters=0)
    return {name: {k: v for k, v in found["results"][name].items() if isinstance(v, float)} for name in names}


def vector_file(model: Model, folder: Path) -> tuple[Shift, Path]:
    shift = 4 * torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(2))
    made = Shift("test", model.record, {BLOCK: shift}, 1.0)
    return made, write_content(folder / "vector.pt", FORMATS["lm-eval"].write(made))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gemma3_text"])
def test_the_same_scores(architecture, tmp_path):
    model = tiny(architecture)
    folder = saved(model, tmp_path / "model")
    tasks = write_task(write_task(tmp_path, CHOICES, DOCUMENTS), ROLLING, PAGES)
    made, path = vector_file(model, tmp_path)
    names = ("local_choices", "local_pages")
    theirs = results(SteeredModel(str(folder), str(path), device="cpu", batch_size=4), tasks, *names)
    plain = HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=4)
    with Transplant(model, made.blocks, positions="with_bos"):
        ours = results(plain, tasks, *names)
    for name in names:
        assert theirs[name] == pytest.approx(ours[name], rel=1e-5)
    key = "bits_per_byte,none"
    assert results(plain, tasks, "local_pages")["local_pages"][key] != pytest.approx(ours["local_pages"][key], rel=1e-2)


@pytest.fixture
def own_logging():
    """The harness's command line sends logs to the stderr of the moment, which is closed after the test."""
    loggers = [logging.getLogger(name) for name in (None, "lm_eval")]
    before = [(logger, list(logger.handlers), logger.level, logger.propagate) for logger in loggers]
    yield
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_the_command_line_takes_the_file(tmp_path, monkeypatch, capsys, own_logging):
    from lm_eval.__main__ import cli_evaluate

    model = tiny("llama")
    folder = saved(model, tmp_path / "model")
    tasks = write_task(tmp_path, ROLLING, PAGES)
    made, path = vector_file(model, tmp_path)
    line = FORMATS["lm-eval"].usage(made, str(path)).replace(made.model.reference, str(folder))
    typed = line.replace("--tasks TASK", f"--tasks local_pages --include_path {tasks} --device cpu").split()
    monkeypatch.setattr("sys.argv", typed)
    cli_evaluate()
    with Transplant(model, made.blocks, positions="with_bos"):
        ours = results(HFLM(pretrained=model.module, tokenizer=model.tokenizer), tasks, "local_pages")
    assert f"{ours['local_pages']['bits_per_byte,none']:.4f}" in capsys.readouterr().out
