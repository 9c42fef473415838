"""Transplants scored again: the same numbers on the same weights, other ones on others, and nothing overwritten."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from contrans.validation.outcomes import FILE, Outcomes
from registry import Registry
from tests.flows.conftest import Done, Runner


@pytest.fixture
def copied(done: Done, tmp_path: Path) -> Path:
    return Path(
        shutil.copytree(
            done.home, tmp_path / "copied", ignore=shutil.ignore_patterns("prefect", "steps", "mlflow-artifacts")
        )
    )


def transplants(done: Done) -> list[str]:
    return [v["ref"] for v in done.found["versions"] if v["kind"] == "transplant"]


def again(contrans: Runner, home: Path, *arguments: str) -> dict[str, Any]:
    process = contrans(home, "revalidate", *arguments, "--json")
    assert process.returncode == 0, process.stderr
    return json.loads(process.stdout)


def test_on_the_same_weights_every_number_comes_back(contrans: Runner, done: Done, copied: Path) -> None:
    wanted = transplants(done)
    found = again(contrans, copied, *wanted, "--night", "2026-01-31")
    assert found["night"] == "2026-01-31"
    assert [entry["transplant"] for entry in found["scored"]] == wanted
    with Registry.open(copied / "registry.db") as registry:
        for entry in found["scored"]:
            before, now = (registry.get(entry[key], "validation") for key in ("baseline", "validation"))
            assert (before.number, now.number) == (1, 2)
            assert now.name == before.name
            assert not entry["changed"]
            assert entry["drift"]["verdict"] == "unchanged"
            assert entry["drift"]["change"] == 0
            known = {
                (r.concept, r.arm, r.metric): (r.dose, r.value, r.low, r.high, r.n)
                for r in registry.results(before)
                if r.split == "test"
            }
            scored = [r for r in registry.results(now) if r.split == "test"]
            assert {r.arm for r in scored} == {"unsteered", "transplanted", "own"}
            for r in scored:
                assert (r.dose, r.value, r.low, r.high, r.n) == pytest.approx(known[r.concept, r.arm, r.metric])
            outcomes = [Outcomes.from_json(json.loads(registry.read(v, FILE))) for v in (before, now)]
            assert outcomes[0].items == outcomes[1].items
            inputs = {role: parent.ref for role, parent in registry.lineage(now, "up", depth=1).parents(now)}
            assert inputs["transplant"] == entry["transplant"]
            assert inputs["baseline"] == entry["baseline"]
            (run,) = registry.runs(version=now)
            assert (run.state, run.spec["night"]) == ("completed", "2026-01-31")
            assert run.flow_run_id
            assert run.mlflow_run_id
        assert registry.check() == []
        digest = registry.content_digest()
    # the same night again is the same versions; another night is another version
    assert [e["validation"] for e in again(contrans, copied, *wanted, "--night", "2026-01-31")["scored"]] == [
        e["validation"] for e in found["scored"]
    ]
    with Registry.open(copied / "registry.db") as registry:
        assert registry.content_digest() == digest


def test_on_other_weights_the_difference_is_noted(
    contrans: Runner, done: Done, copied: Path, spec_path: Path, tmp_path: Path
) -> None:
    target = spec_path.parent / "target"
    kept = shutil.copytree(target, tmp_path / "kept")
    model = AutoModelForCausalLM.from_pretrained(target)
    with torch.no_grad():
        for parameter in model.parameters():
            generator = torch.Generator().manual_seed(parameter.numel())
            parameter += 0.3 * parameter.std() * torch.randn(parameter.shape, generator=generator)
    try:
        model.save_pretrained(target)
        found = again(contrans, copied, transplants(done)[0])
    finally:
        shutil.rmtree(target)
        shutil.copytree(kept, target)
    (entry,) = found["scored"]
    assert entry["changed"]
    assert entry["drift"]["n"] > 0
    with Registry.open(copied / "registry.db") as registry:
        before, now = (registry.get(entry[key], "validation") for key in ("baseline", "validation"))
        models = [registry.get(f"target@{i}", "model").manifest["fingerprint"] for i in (1, 2)]
        assert now.manifest["revalidation"]["fingerprint"] == models[1] != models[0]
        assert registry.read(before, FILE) != registry.read(now, FILE)
        assert registry.get(entry["baseline"], "validation").digest == before.digest


def test_without_publications_there_is_nothing_to_score(contrans: Runner, copied: Path) -> None:
    process = contrans(copied, "revalidate")
    assert process.returncode == 0, process.stderr
    assert process.stdout.startswith("No transplant was published from this registry")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(("nothing",), "nothing"), (("--night", "yesterday"), "2026-01-31")],
)
def test_mistakes_are_sentences(contrans: Runner, copied: Path, arguments: tuple[str, ...], said: str) -> None:
    process = contrans(copied, "revalidate", *arguments)
    assert process.returncode == 2
    assert said in process.stderr
    assert len(process.stderr.strip().splitlines()) == 1
