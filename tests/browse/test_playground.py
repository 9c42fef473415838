"""The playground: what it writes against plain generation, the queue, stopping, and a process that dies."""

import asyncio
import json
import os
import signal
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from contrans import transplant
from contrans.concepts import ConceptVector
from contrans.errors import ArtifactError, SpecError, TextError
from contrans.models.model import Model
from registry.browse import Reader
from registry.browse.playground import MOST_WAITING, Playground, QueueFull, level, question
from registry.browse.worker import Job, stream
from tests.browse.conftest import Filled
from tests.browse.material import BLOCK, vector_of
from tests.tiny import tiny

PROMPT = "I opened the letter"
FORM = {"target": "tiny", "concept1": "transplant:anger/small/tiny@3", "dose1": "0.8", "prompt": PROMPT, "tokens": "6"}
LINES = {"Accept": "application/x-ndjson"}


@pytest.fixture(scope="module")
def model() -> Model:
    return tiny("gemma3_text")


def _files(vector: ConceptVector) -> dict[str, bytes]:
    return vector.to_files()


@pytest.mark.parametrize("dose", [40.0, -40.0])
def test_both_texts_are_those_of_plain_generation(model: Model, dose: float) -> None:
    vector = vector_of(model, "anger", 3)
    events = list(stream(model, Job([_files(vector)], [dose], PROMPT, 8)))
    plain = model.complete(PROMPT, max_new_tokens=8)[0]
    with transplant(model, vector, dose=dose, block=BLOCK):
        steered = model.complete(PROMPT, max_new_tokens=8)[0]
    assert _text(events, "unsteered") == plain
    assert _text(events, "steered") == steered
    assert plain != steered


def test_kl_and_perplexity_are_those_of_whole_passes(model: Model) -> None:
    vectors, doses = [vector_of(model, "anger", 3), vector_of(model, "joy", 4)], [0.5, -0.3]
    events = list(stream(model, Job([_files(v) for v in vectors], doses, PROMPT, 5)))
    ids = model.tokenizer(PROMPT)["input_ids"]
    with transplant(model, vectors, dose=doses):
        written = model.generate(
            input_ids=torch.tensor([ids]), max_new_tokens=5, do_sample=False, pad_token_id=model.pad_token_id
        )
        moved = _log_probabilities(model, written)
    plain = _log_probabilities(model, written)
    at = range(len(ids) - 1, written.shape[1] - 1)
    kl = [float((plain[i].exp() * (plain[i] - moved[i])).sum()) for i in at]
    nll = [-float(plain[i, written[0, i + 1]]) for i in at]
    assert [e["kl"] for e in events if e.get("side") == "steered"] == pytest.approx(kl, abs=1e-5)
    price = [e for e in events if e["kind"] == "price"][-1]
    assert price["kl"] == pytest.approx(sum(kl) / len(kl), abs=1e-5)
    assert price["perplexity"] == pytest.approx(torch.tensor(nll).mean().exp().item(), rel=1e-4)


def test_without_a_concept_both_sides_agree(model: Model) -> None:
    events = list(stream(model, Job([], [], PROMPT, 4)))
    assert _text(events, "unsteered") == _text(events, "steered")
    assert all(e["kl"] < 1e-6 for e in events if e.get("side") == "steered")


def test_what_cannot_be_written_is_said(model: Model) -> None:
    with pytest.raises(ArtifactError, match="belongs to"):
        list(stream(model, Job([_files(vector_of(tiny("llama"), "anger", 1))], [0.5], PROMPT, 2)))
    with pytest.raises(TextError, match="exceeds the"):
        list(stream(model, Job([], [], "long " * 5000, 2)))
    no_bos = tiny("llama", bos=False)
    with pytest.raises(TextError, match="has no tokens"):
        list(stream(no_bos, Job([], [], "", 2)))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"prompt": "  "}, "prompt is empty"),
        ({"prompt": "x" * 4001}, "4,000 are the most"),
        ({"tokens": "900"}, "from 1 to 200"),
        ({"tokens": "many"}, "from 1 to 200"),
        ({"dose1": "9"}, "from -2 to 2"),
        ({"dose1": "nan"}, "from -2 to 2"),
        ({"concept1": "transplant:ghost"}, "no transplant named"),
        ({"concept1": "map:small/tiny"}, "is a map"),
        ({"target": "ghost"}, "no model named"),
        ({"target": "small"}, "was not made for small"),
    ],
)
def test_wrong_forms_are_refused_in_a_sentence(client: TestClient, change: dict[str, str], words: str) -> None:
    answer = client.post("/play", data=FORM | change, headers=LINES)
    assert answer.status_code == 400
    assert words in json.loads(answer.text)["text"]
    assert "&lt;" not in answer.text
    page = client.post("/play", data=FORM | change)
    assert page.status_code == 400
    assert 'role="alert"' in page.text


def test_odd_bodies_are_refused(client: TestClient) -> None:
    as_json = client.post("/play", json=FORM, headers=LINES)
    assert (as_json.status_code, "takes a form" in as_json.text) == (400, True)
    kind = {"Content-Type": "application/x-www-form-urlencoded"} | LINES
    assert "65,536 bytes" in client.post("/play", content=b"prompt=" + b"x" * 70_000, headers=kind).text
    assert "cannot be read" in client.post("/play", content=b"&".join([b"a=1"] * 40), headers=kind).text


def test_page_streams_both_answers(client: TestClient) -> None:
    answer = client.post("/play", data=FORM, headers=LINES)
    events = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert events[0] == {"kind": "loading"}
    assert events[-1] == {"kind": "end", "stopped": False}
    assert sum(e.get("side") == "steered" for e in events) == 6
    assert all(0 <= e["level"] <= 9 for e in events if e.get("side") == "steered")
    page = client.post("/play", data=FORM)  # without scripts the whole answer is one page
    assert page.status_code == 200
    assert page.text.count('<span class="kl kl-') >= 6
    assert "nats per token" in page.text


def test_writing_is_stopped_and_a_process_that_dies_is_told_and_replaced(reader: Reader) -> None:
    async def run() -> None:
        playground = Playground()
        long = question(reader, FORM | {"tokens": "200"})
        stopped = playground.answer(long)
        async for event in stopped:
            if event["kind"] == "token":
                break
        await stopped.aclose()  # what the server does when the page goes away
        (writer,) = playground._writers.values()
        assert writer.process.is_alive()
        whole = [event async for event in playground.answer(question(reader, FORM))]
        assert (whole[0]["kind"], whole[-1]["kind"]) == ("token", "end")
        assert sum(e.get("side") == "steered" for e in whole) == 6
        seen: list[dict[str, Any]] = []
        async for event in playground.answer(long):
            seen.append(event)
            if len(seen) == 1:
                os.kill(writer.process.pid or 0, signal.SIGKILL)
        assert seen[-1]["kind"] == "error"
        assert "starts again with your next question" in seen[-1]["text"]
        again = playground.answer(long)
        assert (await anext(again))["kind"] == "loading"
        (replaced,) = playground._writers.values()
        assert replaced.process.pid != writer.process.pid
        await again.aclose()
        playground.close()
        assert not replaced.process.is_alive()

    asyncio.run(run())


def test_model_that_cannot_be_loaded_is_told(filled: Filled, reader: Reader) -> None:
    async def run() -> None:
        playground = Playground()
        asked = question(reader, FORM)
        missing = type(asked)(str(filled.folder / "nowhere"), asked.job)
        events = [event async for event in playground.answer(missing)]
        assert [e["kind"] for e in events] == ["loading", "error"]
        assert "nowhere" in events[-1]["text"]
        playground.close()

    asyncio.run(run())


def test_queue_has_a_limit() -> None:
    async def run() -> None:
        playground = Playground()
        places = [playground.place() for _ in range(MOST_WAITING + 1)]
        for place in places:
            await place.__aenter__()
        with pytest.raises(QueueFull, match="try again"):
            await playground.place().__aenter__()
        await places[0].__aexit__(None, None, None)
        async with playground.place():
            pass

    asyncio.run(run())


def test_forms_name_what_is_put_in(reader: Reader) -> None:
    asked = question(reader, FORM | {"concept2": "transplant:joy/small/tiny@1", "dose2": "-0.1", "dose3": "5"})
    assert asked.job.doses == [0.8, -0.1]
    assert ConceptVector.from_files(dict(asked.job.vectors[1])).concept == "joy"
    assert question(reader, FORM | {"dose1": "0"}).job.vectors == []
    with pytest.raises(SpecError, match="prompt is empty"):
        question(reader, {})


def test_levels_of_colour_rise_with_kl() -> None:
    assert [level(kl) for kl in (0.0, 0.1, 0.5, 2.0, 8.0, 100.0)] == [0, 1, 2, 4, 9, 9]


def _text(events: list[dict[str, Any]], side: str) -> str:
    return "".join(event["text"] for event in events if event.get("side") == side)


def _log_probabilities(model: Model, ids: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return model.module(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
