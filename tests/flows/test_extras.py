"""What is measured beside the protocol: one run with all of it on the tiny pipeline, and what can be told before."""

import io
import json
import shutil
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from contrans.errors import SpecError
from contrans.report.evidence import evidence_of
from contrans.validation.samples_result import Samples
from contrans.validation.stability_result import StabilityResult
from flows.cli.tables import result_tables
from flows.extra_work import PROMPTS
from flows.extras import EXTRAS
from flows.results import ROW
from flows.spec import load_spec
from flows.steps import Step, build_steps
from flows.tracking import metrics
from registry import Registry
from tests.flows.conftest import Done, Runner
from tests.flows.tiny_pipeline import LABELS
from tests.validation.local_tasks import CHOICES, write_task

N_ITEMS = 9
ALL = "validate.also=[perplexity, samples, stability, capability]"
SMALL = (
    "validate.prompts=['near here', 'she says that']",
    "validate.new_tokens=6",
    "validate.long_tokens=24",
    "validate.tasks=[local_choices]",
)
ARMS = ["unsteered", "transplanted", "own"]


@dataclass
class Run:
    """A finished run."""

    home: Path
    found: dict[str, Any]
    out: str
    err: str

    def rows(self, protocol: str) -> list[dict[str, Any]]:
        return [row for row in self.found["validations"] if row["protocol"] == protocol]


@dataclass(frozen=True)
class Facts:
    """A model of which only the size is known."""

    name: str
    fingerprint: str
    n_blocks: int = 4
    family: str = "llama"


@pytest.fixture(scope="module")
def task_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    items = [
        {"question": f"number {i} is", "choices": ["at home", "in town", "far off"], "gold": i % 3}
        for i in range(N_ITEMS)
    ]
    return write_task(tmp_path_factory.mktemp("tasks"), CHOICES, items)


@pytest.fixture(scope="module")
def run(contrans: Runner, done: Done, spec_path: Path, task_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    home = tmp_path_factory.mktemp("extras")
    shutil.copytree(done.home / "steps", home / "steps")
    settings = [part for s in (ALL, *SMALL, f"validate.task_dir={task_dir}") for part in ("--set", s)]
    process = contrans(
        home,
        "run",
        spec_path,
        *settings,
        "--json",
        home / "r.json",
        # MLflow fills an empty database in seconds that nobody needs here
        MLFLOW_TRACKING_URI=f"sqlite:///{done.home / 'mlflow.db'}",
        HF_DATASETS_CACHE=str(home / "datasets"),
        COLUMNS="160",
    )
    assert process.returncode == 0, process.stderr
    return Run(home, json.loads((home / "r.json").read_text()), process.stdout, process.stderr)


def test_the_extras_alone_are_computed_and_the_protocol_is_as_before(run: Run, done: Done) -> None:
    assert run.found["steps"]["computed"] == list(EXTRAS)
    assert run.found["steps"]["cached"] == done.found["steps"]["computed"]
    for key in ("summary", "doses", "choice", "map", "chance"):
        assert run.found[key] == done.found[key]
    assert run.rows("emotion") == done.found["validations"]
    of_emotion = evidence_of(run.found)[0]
    assert (of_emotion.results.protocol, dict(of_emotion.summary)) == ("emotion", done.found["summary"])
    assert (done.found["samples"], done.found["stability"]) == (None, None)


def test_rows_of_perplexity_and_capability_stand_in_the_document(run: Run) -> None:
    doses = run.found["doses"]
    assert run.found["effects"] == {
        "emotion": "logit_accuracy",
        "perplexity": "negative_nll_per_byte",
        "capability": "score",
    }
    perplexity = run.rows("perplexity")
    assert all(set(row) == set(ROW) for row in perplexity)
    assert list(dict.fromkeys(row["arm"] for row in perplexity)) == ARMS
    assert {row["concept"] for row in perplexity} == {"all", *LABELS}
    assert {(row["arm"], row["dose"]) for row in perplexity} == {
        ("unsteered", None),
        *((arm, doses[arm]) for arm in ARMS[1:]),
    }
    wanted = ("all", "transplanted", "word_perplexity_ratio")
    (ratio,) = [row for row in perplexity if (row["concept"], row["arm"], row["metric"]) == wanted]
    assert ratio["low"] < ratio["value"] < ratio["high"]
    capability = run.rows("capability")
    assert {row["concept"] for row in capability} == {"local_choices"}
    assert {row["n"] for row in capability} == {N_ITEMS}
    value = {(row["arm"], row["metric"]): row["value"] for row in capability}
    each = [value["transplanted", f"score/{label}"] for label in LABELS]
    assert value["transplanted", "score"] == pytest.approx(sum(each) / len(each))
    assert value["transplanted", "gain"] == pytest.approx(value["transplanted", "score"] - value["unsteered", "acc"])


def test_samples_and_stability_stand_in_the_document(run: Run) -> None:
    samples = Samples.from_rows(run.found["samples"])
    assert [s.concept for s in samples.samples[::6]] == list(LABELS)
    assert [s.arm for s in samples.samples[:3]] == samples.arms == ARMS
    assert [s.prompt for s in samples.samples[:6:3]] == ["near here", "she says that"]
    assert all(s.n_tokens <= 6 for s in samples.samples)
    stability = StabilityResult.from_json(run.found["stability"])
    steered = {(r.concept, r.arm) for r in stability.window_rows}
    assert steered == {("all", "unsteered"), *((label, "transplanted") for label in LABELS)}
    assert {r.end for r in stability.window_rows} == {6, 12, 18, 24}
    assert set(stability.verdicts) == {f"{label}, transplanted" for label in LABELS}
    assert stability.settings["along"] == "own"


def test_all_of_it_is_shown_at_the_end_and_the_harness_says_nothing(run: Run) -> None:
    for words in (
        "perplexity, mean over concepts",
        "capability, local_choices, test items",
        "Stability by token",
        "calm, transplanted: the",
        "Free generation",
        "near here",
    ):
        assert words in run.out
    console = Console(file=io.StringIO(), width=160)
    for part in result_tables(run.found):
        console.print(part)
    assert console.file.getvalue() == run.out  # type: ignore[attr-defined]
    for step in EXTRAS:
        assert f"✓ {step}" in run.err
    for noise in ("it/s", "examples/s", "lm_eval", "Traceback"):
        assert noise not in run.err.replace(str(run.home), "")


def test_the_registered_validations_carry_rows_and_files(run: Run) -> None:
    with Registry.open(run.home / "registry.db") as registry:
        assert registry.check() == []
        refs = [v["ref"] for v in run.found["versions"] if v["kind"] == "validation"]
        assert len(refs) == len(LABELS)
        for ref, label in zip(refs, LABELS, strict=True):
            version = registry.get(ref, "validation")
            names = set(registry.files(version))
            drawn = ("perplexity", "capability", "stability")
            assert {f"{name}.{kind}" for name in drawn for kind in ("json", "png")} < names
            assert {"samples.json", "samples.md", "stability.md", "stability_texts.json"} < names
            results = registry.results(version)
            assert {r.protocol for r in results} == {"emotion", "perplexity", "capability"}
            assert {r.concept for r in results if r.protocol == "perplexity"} == {"all", label}


def test_every_number_has_a_name_of_its_own_in_tracking(run: Run) -> None:
    named = list(metrics(run.found))
    assert len(dict(named)) == len(named)
    assert dict(named)["capability/unsteered/score/local_choices"] == pytest.approx(
        next(row["value"] for row in run.rows("capability"))
    )


def steps(spec_path: Path, *settings: str) -> dict[str, Step]:
    spec = load_spec(spec_path, settings)
    return {step.name: step for step in build_steps(spec, Facts("source", "s"), Facts("target", "t"))}


def test_each_extra_hangs_on_its_own_settings_alone(spec_path: Path, task_dir: Path) -> None:
    settings = (ALL, *SMALL, f"validate.task_dir={task_dir}")
    before = steps(spec_path, *settings)
    assert [name for name in before if name in EXTRAS] == list(EXTRAS)
    for change, moved in (
        ("validate.new_tokens=7", {"samples"}),
        ("validate.long_tokens=25", {"stability"}),
        ("validate.prompts=[in town]", {"samples", "stability"}),
        ("validate.task_limit=3", {"capability"}),
        ("validate.tasks=[other]", {"capability"}),
        ("validate.doses=[0.3]", {"calibrate dose", "validate", "figure", *EXTRAS}),
        ("validate.test_per_label=2", {"validate", "figure"}),
    ):
        after = steps(spec_path, *settings, change)
        assert {name for name in before if before[name].key != after[name].key} == moved, change
    data = next(task_dir.glob("*.jsonl"))
    kept = data.read_text()
    data.write_text(kept.replace("far off", "far away"))
    try:
        after = steps(spec_path, *settings)
    finally:
        data.write_text(kept)
    assert {name for name in before if before[name].key != after[name].key} == {"capability"}


def test_costs_grow_with_what_is_asked(spec_path: Path) -> None:
    more = (
        "validate.task_limit=20",
        "validate.new_tokens=400",
        "validate.long_tokens=5120",
        "validate.generic_texts=8",
    )
    few, many = (
        steps(spec_path, ALL, "validate.tasks=[a]", *settings) for settings in (("validate.task_limit=10",), more)
    )
    for name in EXTRAS:
        assert few[name].cost.model == "target"
        assert 0 < few[name].cost.tokens < many[name].cost.tokens
    # 4 prompts, each continued once unsteered and once for 3 concepts under 2 arms
    assert few["samples"].cost.texts == 4 * 7
    assert few["samples"].cost.head_rows == 4 * 7 * 40
    alone = steps(spec_path, "validate.also=[samples]", "validate.arms=[unsteered, transplanted]")
    assert alone["samples"].cost.texts == 4 * 4
    assert len(PROMPTS) == 4


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        (("validate.also=[capability]",), "validate needs tasks for capability; name at least one"),
        (("validate.also=[fluency]",), "validate.also[0] cannot be 'fluency'; use perplexity, samples, stability"),
        (("validate.also=[samples, samples]",), "validate.also names samples twice; keep it once."),
        (("validate.prompts=['']",), "validate.prompts[0] must not be empty"),
        (("validate.long_tokens=0",), "validate.long_tokens must be at least 1, not 0."),
        (
            ("validate.also=[capability]", "validate.tasks=[a]", "validate.task_dir=nowhere"),
            "The folder of tasks 'nowhere' does not exist; name one with task files (YAML) in task_dir.",
        ),
    ],
)
def test_what_cannot_be_measured_is_said_before_anything_runs(
    spec_path: Path, settings: tuple[str, ...], sentence: str
) -> None:
    with pytest.raises(SpecError) as raised:
        steps(spec_path, *settings)
    assert sentence in str(raised.value)


def test_without_the_harness_it_is_said_before_anything_runs(spec_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("flows.extras.version", missing)
    with pytest.raises(SpecError, match=r"not installed; run `pip install contrans\[harness\]`"):
        steps(spec_path, "validate.also=[capability]", "validate.tasks=[a]")
    assert "samples" in steps(spec_path, "validate.also=[samples]")


def test_a_folder_of_tasks_lies_beside_the_spec(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("source: org/a\ntarget: org/b\nvalidate: {task_dir: ./tasks}\n", encoding="utf-8")
    assert load_spec(path).validate_.task_dir == str((tmp_path / "tasks").resolve())
