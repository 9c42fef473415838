"""Tasks of the harness on a model in memory, as it is and steered, against plain forward passes."""

import random
import sys

import numpy as np
import pytest
import torch
import yaml
from scipy.stats import binomtest
from tqdm import tqdm

from contrans.concepts import ConceptVector
from contrans.errors import BlockError, ModelError, SpecError, TextError
from contrans.models import Model
from contrans.transplants import Transplant, transplant
from contrans.validation.capability import CapabilityRow, capability, capability_changes
from contrans.validation.harness import _shipped_tasks
from tests.tiny import tiny, tiny_model
from tests.validation.local_tasks import CHOICES, ROLLING, write_task

BLOCK = 2
N = 24
WORDS = ["the cat", "one stone", "weather", "lemons", "Rome", "their mother"]


@pytest.fixture(scope="module", autouse=True)
def data_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("llama")


@pytest.fixture(scope="module")
def items() -> list[dict]:
    rng = random.Random(0)
    return [
        {"question": f"{i} {rng.choice(WORDS)} and", "choices": rng.sample(WORDS, 3), "gold": rng.randrange(3)}
        for i in range(N)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, items):
    folder = write_task(tmp_path_factory.mktemp("tasks"), CHOICES, items)
    generation = {
        "task": "local_writing",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n\n\n"], "max_gen_toks": 4},
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "filter_list": [
            {"name": "whole", "filter": [{"function": "take_first"}]},
            {
                "name": "digit",
                "filter": [{"function": "regex", "regex_pattern": "([0-9])"}, {"function": "take_first"}],
            },
        ],
    }
    return write_task(folder, generation, [{"question": i["question"], "answer": "x"} for i in items[:4]])


@pytest.fixture(scope="module")
def shift(model) -> torch.Tensor:
    return 4 * torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(1))


def vector_of(model: Model) -> ConceptVector:
    direction = torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(3))
    return ConceptVector(
        concept="test",
        model=model.record,
        directions={BLOCK: direction},
        spread={BLOCK: 1.0},
        residual_norm={BLOCK: 5.0},
    )


def right_answers(model: Model, items: list[dict]) -> np.ndarray:
    """Whether the likeliest choice is the right one, from a plain forward pass per choice."""
    hits = []
    for item in items:
        context = model.tokenizer(item["question"])["input_ids"]
        scores = []
        for choice in item["choices"]:
            ids = torch.tensor(model.tokenizer(f"{item['question']} {choice}")["input_ids"])
            with torch.inference_mode():
                logp = model.module(input_ids=ids[None]).logits[0].double().log_softmax(-1)
            scores.append(float(logp[len(context) - 1 : -1].gather(1, ids[len(context) :, None]).sum()))
        hits.append(int(np.argmax(scores)) == item["gold"])
    return np.array(hits)


def only(rows: list[CapabilityRow]) -> CapabilityRow:
    (row,) = rows
    return row


def test_unsteered_and_steered_equal_plain_passes(model, folder, items, shift):
    before = only(capability(model, "local_choices", task_dir=folder, batch_size=4))
    after = only(capability(model, ["local_choices"], task_dir=folder, shifts={BLOCK: shift}))
    expected = right_answers(model, items)
    with Transplant(model, {BLOCK: shift}):
        expected_after = right_answers(model, items)
        inside = only(capability(model, "local_choices", task_dir=folder))
    assert (before.task, before.metric, before.n) == ("local_choices", "acc", N)
    assert list(before.items.values()) == expected.tolist()
    assert list(after.items.values()) == expected_after.tolist()
    assert inside == after
    assert before.value == expected.mean() != after.value
    assert before.stderr == pytest.approx(expected.std(ddof=1) / N**0.5)

    change = capability_changes([before], [after])[0]
    won, lost = int((expected_after & ~expected).sum()), int((expected & ~expected_after).sum())
    assert won + lost > 0
    assert change.p_value == pytest.approx(binomtest(won, won + lost).pvalue)
    assert (change.unsteered, change.steered) == (expected.mean(), expected_after.mean())
    assert change.low <= change.steered - change.unsteered <= change.high


def test_a_vector_is_put_in_at_its_dose(model, folder):
    vector = vector_of(model)
    got = capability(model, "local_choices", task_dir=folder, vector=vector, dose=0.8)
    with transplant(model, vector, dose=0.8):
        assert capability(model, "local_choices", task_dir=folder) == got


def test_generation_is_steered_and_filters_are_told_apart(model, folder, shift):
    written = []
    handle = model.module.register_forward_hook(lambda _m, _a, out: written.append(out.logits[:, -1].argmax(-1)))
    rows = [capability(model, "local_writing", task_dir=folder, shifts=s) for s in (None, {BLOCK: shift})]
    handle.remove()
    assert [r.metric for r in rows[0]] == ["exact_match/whole", "exact_match/digit"]
    half = len(written) // 2
    assert [t.tolist() for t in written[:half]] != [t.tolist() for t in written[half:]]


@pytest.mark.parametrize(("limit", "n"), [(5, 5), (0.5, 12)])
def test_limit(model, folder, limit, n):
    row = only(capability(model, "local_choices", task_dir=folder, limit=limit))
    assert row.n == len(row.items) == n


def test_examples_before_the_items(model, folder):
    none, two = (only(capability(model, "local_choices", task_dir=folder, num_fewshot=k)) for k in (0, 2))
    assert none.items.keys().isdisjoint(two.items)
    with pytest.raises(SpecError, match="not run on the same items both times"):
        capability_changes([none], [two])


def test_a_group_has_a_row_of_its_own(model, folder, tmp_path):
    group = {
        "group": "local_group",
        "task": ["local_choices"],
        "aggregate_metric_list": [{"metric": "acc", "weight_by_size": True}],
    }
    for path in folder.iterdir():
        (tmp_path / path.name).write_text(path.read_text())
    (tmp_path / "group.yaml").write_text(yaml.safe_dump(group))
    rows = {r.task: r for r in capability(model, "local_group", task_dir=tmp_path, limit=6)}
    assert rows["local_group"].value == rows["local_choices"].value
    assert rows["local_group"].n == 6
    change = {c.task: c for c in capability_changes(list(rows.values()), list(rows.values()))}["local_group"]
    assert (change.low, change.p_value, change.unsteered) == (None, None, change.steered)


def row(items: list[float], value: float | None = None) -> CapabilityRow:
    value = float(np.mean(items)) if value is None else value
    return CapabilityRow("t", "m", value, None, len(items), {str(i): v for i, v in enumerate(items)})


def test_changes_say_only_what_the_items_allow():
    shares = capability_changes([row([0.2, 0.4, 0.9])], [row([0.3, 0.5, 1.0])])[0]
    assert shares.p_value is None
    assert (shares.low, shares.high) == pytest.approx((0.1, 0.1))
    # a value that is no mean of its items, such as F1
    f1 = capability_changes([row([0, 1, 1], 0.7)], [row([1, 1, 1], 0.9)])[0]
    assert (f1.low, f1.high, f1.p_value) == (None, None, 1.0)
    with pytest.raises(SpecError, match="same items"):
        capability_changes([row([0, 1])], [row([0, 1, 1])])
    with pytest.raises(SpecError, match="same items"):
        capability_changes([row([0, 1])], [])


def test_leaves_everything_as_it_was(folder):
    model = tiny("llama")
    model.tokenizer.pad_token = None
    random.seed(5), np.random.seed(5), torch.manual_seed(5)
    before = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    capability(model, "local_choices", task_dir=folder, limit=1)
    assert before == (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist())
    assert model.tokenizer.pad_token is None
    assert not model.blocks[BLOCK]._forward_hooks


def test_progress_counts_tokens_and_hides_the_harness_bars(model, folder, items, capsys):
    told: list[int] = []
    before = vars(tqdm)["__init__"]
    rows = capability(model, "local_choices", task_dir=folder, batch_size=1, progress=told.append)
    assert capsys.readouterr().err == ""
    assert vars(tqdm)["__init__"] is before
    assert not model.module._forward_pre_hooks
    texts = [f"{item['question']} {choice}" for item in items for choice in item["choices"]]
    # the last token of an answer is only foretold
    assert sum(told) == sum(len(model.tokenizer(text)["input_ids"]) - 1 for text in texts)
    assert rows == capability(model, "local_choices", task_dir=folder, batch_size=1)
    assert "Running loglikelihood requests" in capsys.readouterr().err


def test_it_is_told_which_metrics_are_better_lower(model, tmp_path):
    lower = [m | {"higher_is_better": False} for m in ROLLING["metric_list"]]
    write_task(tmp_path, ROLLING | {"metric_list": lower}, [{"page": "the cat sat there"}])
    rows = capability(model, "local_pages", task_dir=tmp_path)
    assert [r.higher_is_better for r in rows] == [False] * 3
    write_task(tmp_path, CHOICES, [{"question": "one", "choices": ["a", "b"], "gold": 0}])
    assert only(capability(model, "local_choices", task_dir=tmp_path)).higher_is_better


def test_bfloat16(model, folder):
    exact, fast = (
        only(capability(model, "local_choices", task_dir=folder, precision=p)) for p in ("float32", "bfloat16")
    )
    assert exact.items.keys() == fast.items.keys()
    assert abs(exact.value - fast.value) < 0.2


def test_without_the_harness(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "lm_eval", None)
    with pytest.raises(SpecError, match=r"not installed; run `pip install contrans\[harness\]`"):
        capability(model, "arc_easy")


def test_unknown_tasks(model, tmp_path):
    with pytest.raises(SpecError, match="knows no task 'arc_eazy'; did you mean arc_easy"):
        capability(model, "arc_eazy")
    assert _shipped_tasks() is _shipped_tasks()
    with pytest.raises(SpecError, match="give task_dir if it is a task of your own"):
        capability(model, "qqqqzzzzqqqq")
    with pytest.raises(SpecError, match="No tasks are named"):
        capability(model, [])
    with pytest.raises(SpecError, match="'nowhere' does not exist"):
        capability(model, "local_choices", task_dir="nowhere")


def test_tasks_that_cannot_run(model, folder, tmp_path, items):
    write_task(tmp_path, CHOICES | {"task": "coding", "unsafe_code": True}, items[:2])
    with pytest.raises(SpecError, match="'coding' runs code that the model writes; pass run_code=True"):
        capability(model, "coding", task_dir=tmp_path)
    assert only(capability(model, "coding", task_dir=tmp_path, run_code=True)).n == 2
    write_task(tmp_path, CHOICES | {"task": "gone"}, items)
    (tmp_path / "gone.jsonl").unlink()
    with pytest.raises(TextError, match="data of task 'gone' cannot be read"):
        capability(model, "gone", task_dir=tmp_path)


def test_bad_settings(model, folder, shift):
    def run(**settings):
        return capability(model, "local_choices", task_dir=folder, **settings)

    with pytest.raises(SpecError, match="not both"):
        run(vector=vector_of(model), shifts={BLOCK: shift})
    with pytest.raises(SpecError, match="leaves no items"):
        run(limit=0)
    with pytest.raises(BlockError, match="has no block 9"):
        run(shifts={9: shift})
    headless = Model.wrap(tiny_model("llama").model, model.tokenizer, reference="headless")
    with pytest.raises(ModelError, match="no language-model head"):
        capability(headless, "local_choices", task_dir=folder)
