"""`contrans play`: answers against plain generation, what can be typed, how it is stopped."""

import io
import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

import contrans
from contrans.concepts import ConceptVector
from flows.cli import play
from registry import Registry
from registry.browse.worker import Event, Job
from tests.flows.cli.conftest import Typed

PROMPT = "I opened the letter"


def says(monkeypatch: pytest.MonkeyPatch, *lines: str) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))


def test_an_answer_is_that_of_plain_generation(typed: Typed, playable: Path) -> None:
    options = ["--dose", "1.5", "--with", "joy=-0.5", "--tokens", "8", "--json"]
    code, out, _ = typed("play", "anger@2", "--prompt", PROMPT, *options, home=playable)
    found = json.loads(out)
    assert (code, found["prompt"]) == (0, PROMPT)
    assert found["concepts"] == [{"ref": "anger/small/tiny@2", "dose": 1.5}, {"ref": "joy/small/tiny@3", "dose": -0.5}]
    model = contrans.load_model(str(playable / "tiny"))
    with Registry.open(playable / "registry.db") as registry:
        vectors = [
            ConceptVector.from_files({name: registry.read(ref, name) for name in registry.files(ref)})
            for ref in ("anger/small/tiny@2", "joy/small/tiny@3")
        ]
    assert found["unsteered"]["text"] == model.complete(PROMPT, max_new_tokens=8)[0]
    with contrans.transplant(model, vectors, dose=[1.5, -0.5]):
        assert found["steered"]["text"] == model.complete(PROMPT, max_new_tokens=8)[0]
    kls = [token["kl"] for token in found["steered"]["tokens"]]
    assert found["steered"]["kl"] == pytest.approx(sum(kls) / len(kls))
    assert "".join(token["text"] for token in found["steered"]["tokens"]) == found["steered"]["text"]


def test_answers_beside_each_other(typed: Typed, playable: Path) -> None:
    code, out, _ = typed("play", "anger", "--prompt", PROMPT, "--tokens", "5", home=playable)
    assert code == 0
    assert "─ unsteered ─" in out
    assert "─ steered ─" in out
    assert "Price: mean KL" in out


def test_what_can_be_typed(typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Job] = []
    real = play.stream

    def noted(model: object, job: Job) -> Iterator[Event]:
        asked.append(job)
        return real(model, job)  # type: ignore[arg-type]  the model goes through as it is

    monkeypatch.setattr(play, "stream", noted)
    lines = [
        "one",
        "/dose -0.5",
        "/with joy=0.1",
        "/tokens 3",
        r"two\nlines",
        "/with joy=0.4",
        "/without anger",
        "three",
    ]
    says(monkeypatch, *lines, "", "/without joy", "four", "/help", "/quit", "five")
    code, out, err = typed("play", "anger", "--tokens", "2", home=playable)
    assert code == 0
    assert [(job.prompt, list(job.doses), job.tokens) for job in asked] == [
        ("one", [0.2], 2),
        ("two\nlines", [-0.5, 0.1], 3),
        ("three", [0.4], 3),
        ("four", [], 3),
    ]
    assert out.count("Price:") == 4
    assert "/without fear" in err


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("/fly", "There is no /fly; /help"),
        ("/dose much", "A dose is a number such as 0.3, not 'much'"),
        ("/with nosuch", "There is no transplant named 'nosuch'"),
        ("/with vector:anger/small", "a transplant is wanted"),
        ("/without joy", "'joy' is not played with; there is anger/small/tiny@3 at 0.2"),
        ("/tokens none", "The number of tokens is a number"),
        ("/tokens inf", "The number of tokens is a number"),
    ],
)
def test_a_mistake_in_a_script_ends_it(
    typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch, line: str, sentence: str
) -> None:
    says(monkeypatch, line)
    code, _, err = typed("play", "anger", "--quiet", home=playable)
    assert code == 2
    assert err.startswith("Error: ")
    assert sentence in err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["anger", "--json"], "give the prompt with --prompt"),
        (["nosuch", "--prompt", "x"], "There is no transplant named 'nosuch'"),
        (["anger", "--prompt", " "], "The prompt is empty"),
        (["anger", "--prompt", "x", "--dose", "99"], "must be a number from -2 to 2"),
        (["anger", "--prompt", "x", "--tokens", "9999"], "The number of tokens must be a number from 1 to"),
        (["anger", "--prompt", "x", "--with", "joy=high"], "A dose is a number"),
        (["anger", "--prompt", "x", "--model", "/no/such/model"], "/no/such/model"),
    ],
)
def test_a_mistake_is_one_sentence(typed: Typed, playable: Path, arguments: list[str], sentence: str) -> None:
    code, out, err = typed("play", *arguments, home=playable)
    assert (code, out) == (2, "")
    assert err.startswith("Error: ")
    assert sentence in err


def test_ctrl_c_stops_an_answer_and_not_the_program(
    typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = play.stream

    def interrupted(model: object, job: Job) -> Iterator[Event]:
        for i, event in enumerate(real(model, job)):  # type: ignore[arg-type]  the model goes through as it is
            yield event
            if job.prompt == "first" and i == 5:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(play, "stream", interrupted)
    says(monkeypatch, "first", "second")
    code, out, _ = typed("play", "anger", "--tokens", "6", home=playable)
    assert code == 0
    assert out.count("Price:") == 2
    assert out.count("Stopped.") == 1


def test_a_second_ctrl_c_ends_the_program(typed: Typed, playable: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Keyboard(io.StringIO):
        def __next__(self) -> str:
            signal.raise_signal(signal.SIGINT)
            return "never\n"

    monkeypatch.setattr("sys.stdin", Keyboard())
    assert typed("play", "anger", "--quiet", home=playable)[0] == 130
