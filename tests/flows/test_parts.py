"""The small parts: verdicts, tracking's keys, maps from all tokens, models on several devices, known models, dead
runs, the server."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock

from contrans.errors import ContransError
from contrans.maps import fit_map
from contrans.models import ModelRecord, load_model, resolve
from contrans.states import capture
from flows.pool import Pool, known_record
from flows.results import verdict
from flows.runs import alive, runs_folder
from flows.server import Server, set_environment
from flows.spec import load_spec
from flows.steps import build_steps
from flows.study import study
from flows.tracking import Tracker, metrics, parameters
from flows.work import read_maps
from registry import Registry
from tests.flows.conftest import Done
from tests.flows.stepping import run_steps


def arm(value: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"value": value, "low": low, "high": high}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "The concept crosses over: 91 % of the answers"),
        ({}, "That is 97 % of what the target's own vector gains (93 % to 101 %)."),
        ({"transplanted": arm(0.2, 0.1, 0.3)}, "No effect is proven"),
        ({"random": arm(0.9, 0.8, 0.95)}, "the control random (90 %) does as well"),
        ({"shuffled_p/transplanted": arm(0.2)}, "the control shuffled_map (13 % in the mean, p = 0.20) does as well"),
        ({"random": arm(0.9, 0.8, 0.95), "random_p/transplanted": arm(0.01)}, "The concept crosses over"),
        ({"gain_recovered": arm(None)}, "own vector gains nothing significant"),
        ({"transplanted": arm(None)}, "There is nothing to judge"),
    ],
)
def test_verdict(changes: dict[str, Any], said: str) -> None:
    summary = {
        "unsteered": arm(0.12, 0.08, 0.17),
        "transplanted": arm(0.91, 0.86, 0.95),
        "own": arm(0.91, 0.86, 0.95),
        "random": arm(0.17, 0.12, 0.22),
        "shuffled_map": arm(0.13, 0.08, 0.18),
        "gain_recovered": arm(0.97, 0.93, 1.01),
    }
    assert said in verdict({**summary, **changes})


def test_a_verdict_says_what_its_share_is_of() -> None:
    selective = {
        "unsteered": arm(0.0, -0.01, 0.01),
        "transplanted": arm(0.7, 0.6, 0.8),
        "random": arm(-0.02, -0.1, 0.1),
    }
    said = verdict(selective, "selectivity")
    assert (
        "70 % of the answers name the transplanted concept beyond the rate of mistakes, against 0 % unsteered" in said
    )
    assert "(controls: random -2 %)" in said


def test_tracking_flattens_the_spec_and_names_metrics_validly(done: Done) -> None:
    flat = dict(parameters(done.found["spec"]))
    assert flat["validate.doses"] == "0.2, 0.5"
    assert flat["compute.precision"] == "float32"
    named = dict(metrics(done.found))
    assert len(named) == len(list(metrics(done.found)))
    assert all(re.fullmatch(r"[\w./-]+", key, flags=re.ASCII) for key in named)
    assert named["dose/transplanted"] == done.found["doses"]["transplanted"]
    assert {"transplanted/logit_accuracy/all", "transplanted/kl/all", "map/match_rate"} <= set(named)


def test_mlflow_that_fails_is_warned_of_and_does_no_harm(
    done: Done, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////dev/null/mlflow.db")
    tracker = Tracker()
    with caplog.at_level("WARNING"):
        assert tracker.track(done.found, started=0.0, tags={}, files={}) is None
    assert "The run is not in MLflow" in caplog.text
    assert "\n" not in caplog.messages[0]


ALL_TOKENS = ("corpus.wrapped=20", "corpus.truncated=15", "map.estimator=ridge", "corpus.tokens=all")


@pytest.mark.parametrize(
    ("settings", "captured", "rows"),
    [
        (("validate.arms=[unsteered, transplanted]",), 0, 20),
        (("validate.arms=[unsteered, transplanted, paper]", "corpus.per_document=1"), 15, 20),
        (("corpus.plain=5", "corpus.mixes=[[wrapped, plain]]", "corpus.per_document=1"), 40, 20),
    ],
)
def test_a_map_from_all_tokens_is_that_of_the_library(
    spec_path: Path,
    cache: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    settings: tuple[str, ...],
    captured: int,
    rows: int,
) -> None:
    """And both models read what the step's cost says, texts of the arms that keep to last tokens beside it."""
    monkeypatch.setenv("CONTRANS_CACHE", str(cache))
    spec = load_spec(spec_path, [*ALL_TOKENS, *settings])
    ran = run_steps(spec, tmp_path, until="fit maps")
    fit = ran.steps["fit maps"]
    corpus_steps = [ran.steps[name] for name in ran.steps if name.startswith("capture corpus")]
    assert [step.cost.texts for step in corpus_steps] == [captured] * (2 if captured else 0)
    assert set(fit.inputs) == {"choose", *(step.name for step in corpus_steps)}
    source, target = fit.cost.by_model
    assert (source.model, target.model) == ("source", "target")
    assert source.texts == target.texts == rows
    assert ran.texts["fit maps"] == 2 * rows
    texts, pools = study(spec, ran.pool.record("source"), ran.pool.record("target")), ran.pool
    kept = texts.rows_of(spec.corpus.candidates[0])
    expected = fit_map(
        pools.get("source"),
        pools.get("target"),
        replace(
            texts.texts,
            texts=tuple(texts.texts.texts[i] for i in kept),
            documents=tuple(texts.texts.documents[i] for i in kept),
            kinds=tuple(texts.texts.kinds[i] for i in kept),
        ),
        source_blocks=[2],
        target_blocks=[2],
        tokens="all",
        center=spec.map.center,
        per_document=spec.corpus.per_document,
    )[2, 2]
    found = read_maps(ran.context, "transplanted")[2, 2]
    torch.testing.assert_close(found.weight, expected.weight)
    torch.testing.assert_close(found.bias, expected.bias)
    assert found.info["tokens"] == "all"
    assert found.info["kinds"] == list(spec.corpus.candidates[0])
    assert {"n", "lambda", "heldout_r2", "match_rate"} <= set(found.info)


def test_last_tokens_keep_their_keys_and_all_tokens_have_others(
    spec_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRANS_CACHE", str(cache))

    def keys(*settings: str) -> dict[str, str]:
        spec = load_spec(spec_path, [*ALL_TOKENS, *settings])
        pool = Pool(spec)
        return {step.name: step.key for step in build_steps(spec, pool.record("source"), pool.record("target"))}

    last, every, one = keys("corpus.tokens=last"), keys(), keys("corpus.per_document=1")
    assert last["capture concepts · source"] == every["capture concepts · source"]
    assert len({of["fit maps"] for of in (last, every, one)}) == 3
    assert len({of["figure"] for of in (last, every, one)}) == 3


@pytest.mark.parametrize("device_map", ["auto", "balanced", "sequential"])
def test_a_model_in_parts_is_read_as_a_whole_one(
    spec_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, device_map: str
) -> None:
    """Where memory is short, blocks lie elsewhere and are fetched for each pass, here from disk."""
    monkeypatch.setenv("CONTRANS_CACHE", str(cache))
    whole = Pool(load_spec(spec_path)).get("source")
    enough_for_half = int(0.9 * sum(p.numel() * p.element_size() for p in whole.module.parameters()))
    monkeypatch.setattr(
        "transformers.integrations.accelerate.accelerate_max_memory", lambda _=None: {"cpu": enough_for_half}
    )
    spec = load_spec(spec_path, [f"compute.device_map={device_map}"])
    split = Pool(spec).get("source")
    parts: Any = split.module.hf_device_map
    assert [parts[f"model.layers.{i}"] for i in range(4)] == ["cpu", "cpu", "disk", "disk"]
    assert split.fingerprint == whole.fingerprint
    texts = ["the lake lies still", "leaves now"]
    torch.testing.assert_close(capture(split, texts)[3], capture(whole, texts)[3])


def test_a_model_is_known_until_its_files_change(
    spec_path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path))
    spec = load_spec(spec_path)
    assert known_record(spec.source, "cpu") is None
    record = Pool(spec).record("source")
    assert isinstance(record, ModelRecord)
    assert record.fingerprint == load_model(spec.source).fingerprint
    assert known_record(spec.source, "cpu") == record

    def must_not_load(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("contrans.models.loading.load_model", must_not_load)
    assert Pool(spec).record("source") == record
    weights = next(path for path in Path(spec.source).glob("*.safetensors"))
    times = weights.stat()
    os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns + 10**9))
    try:
        assert known_record(spec.source, "cpu") is None
    finally:
        os.utime(weights, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert resolve(spec.source).known_fingerprint() == record.fingerprint


def test_a_dead_run_is_noted_and_a_living_one_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path))
    with Registry.open() as registry:
        for name in ("dead", "kept", "living", "elsewhere"):
            registry.start_run(name, spec={}, spec_hash=name)
        for name in ("dead", "kept", "living"):
            (runs_folder() / name).mkdir(parents=True)
            (runs_folder() / name / ".alive").touch()
        (runs_folder() / "kept" / "figure.png").touch()
        holder = "import sys, filelock\nwith filelock.FileLock(sys.argv[1]):\n    print(flush=True)\n    input()"
        command = [sys.executable, "-c", holder, str(runs_folder() / "living" / ".alive")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as living:
            assert living.stdout is not None
            living.stdout.readline()
            with alive("new", registry) as folder:
                assert folder.is_dir()
            assert sorted(path.name for path in runs_folder().iterdir()) == ["kept", "living"]
            assert [path.name for path in (runs_folder() / "kept").iterdir()] == ["figure.png"]
            living.kill()
        states = {run.id: run.state for run in registry.runs()}
    assert states == {"dead": "crashed", "kept": "crashed", "living": "running", "elsewhere": "running"}


def test_the_server_ends_with_its_parent(done: Done) -> None:
    program = (
        "import os, time\nfrom flows.server import *\nset_environment()\nserver = Server()\nserver.wait()\n"
        "print(server.url, flush=True)\ntime.sleep(60)"
    )
    environment = {**os.environ, "PREFECT_HOME": str(done.home / "prefect")}
    with subprocess.Popen(
        [sys.executable, "-c", program], env=environment, stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        url = parent.stdout.readline().strip()
        assert urllib.request.urlopen(f"{url}/health").status == 200
        parent.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            urllib.request.urlopen(f"{url}/health", timeout=1).close()
            time.sleep(0.1)
        except OSError:
            return
    pytest.fail("the server outlived its parent")


def test_a_server_that_cannot_start_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_HOME", str(tmp_path))
    monkeypatch.setenv("PREFECT_API_DATABASE_CONNECTION_URL", "nonsense://")
    set_environment()
    with pytest.raises(ContransError, match=r"did not start .*PREFECT_API_URL"):
        Server().wait()
    with FileLock(tmp_path / ".start.lock", timeout=0):
        pass  # the next one may start


def test_results_are_json_without_nan(done: Done) -> None:
    json.dumps(done.found, allow_nan=False)
