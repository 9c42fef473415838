"""The page of the playground: the form, and the answer as a stream of JSON lines, or as a page without scripts."""

import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any
from urllib.parse import parse_qsl

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from contrans.errors import ContransError, SpecError
from registry.browse.facts import dose_of
from registry.browse.playground import (
    MOST_CONCEPTS,
    MOST_DOSE,
    MOST_SIGNS,
    MOST_TOKENS,
    Playground,
    Question,
    QueueFull,
    playable,
    question,
    words,
)
from registry.browse.reading import Reader
from registry.browse.spaces import models_with_transplants

_MAX_BODY = 64 * 1024  # bytes
_PROMPT = "Scenario: I opened the letter and read what it said.\nThe emotion of the above scenario is"
_REACH = 0.6  # residual norms that a slider goes to, or twice the dose that was chosen on dev
_LINES = "application/x-ndjson"

Render = Callable[..., Response]


class PlayPage:
    """Answers the playground's GET and POST.

    Args:
        registry: Where the transplants are.
        render: Makes a page of the template's name and values.
        playground: The queue.
    """

    def __init__(self, registry: Reader, render: Render, playground: Playground) -> None:
        self._registry, self._render, self._playground = registry, render, playground

    def form(self, request: Request) -> Response:
        """The empty form, for the target and the concepts that the address names."""
        return self._page(dict(request.query_params))

    async def answer(self, request: Request) -> Response:
        """The answer to a form."""
        streamed = _LINES in request.headers.get("accept", "")
        form: dict[str, str] = {}
        try:
            form = await _form(request)
            asked = await run_in_threadpool(question, self._registry, form)
        except ContransError as error:
            return await self._refused(form, str(error), 400, streamed=streamed)
        if streamed:
            return await self._streamed(asked)
        try:
            async with self._playground.place(), aclosing(self._playground.answer(asked)) as events:
                found = [words(event) async for event in events]
        except QueueFull as error:
            return await self._refused(form, str(error), 429, streamed=False)
        return await run_in_threadpool(self._page, form, **_collected(found))

    async def _streamed(self, asked: Question) -> Response:
        try:
            self._playground.check_room()
        except QueueFull as error:
            return await self._refused({}, str(error), 429, streamed=True)

        async def lines() -> AsyncIterator[bytes]:
            # The place is taken where it is given back: a stream whose reader has gone may never begin.
            try:
                async with self._playground.place(), aclosing(self._playground.answer(asked)) as events:
                    async for event in events:
                        yield _line(words(event))
            except QueueFull as error:
                yield _line({"kind": "error", "text": str(error)})

        return StreamingResponse(lines(), media_type=_LINES, headers={"X-Accel-Buffering": "no"})

    async def _refused(self, form: dict[str, str], sentence: str, status: int, *, streamed: bool) -> Response:
        if streamed:
            return Response(_line({"kind": "error", "text": sentence}), status, media_type=_LINES)
        return await run_in_threadpool(self._page, form, problem=sentence, status=status)

    def _page(self, given: dict[str, str], **more: Any) -> Response:
        targets = models_with_transplants(self._registry)
        target = given.get("target", "")
        if target not in targets:
            target = targets[0] if targets else ""
        concepts = playable(self._registry, target) if target else []
        slots = [_slot(given, i) for i in range(1, MOST_CONCEPTS + 1)]
        for slot in slots:
            if slot["reference"] and slot["reference"] not in map(str, concepts):
                try:
                    concepts.append(self._registry.get(slot["reference"], kind="transplant"))
                except ContransError:
                    slot["reference"] = ""
        if not any(slot["reference"] for slot in slots) and concepts and "prompt" not in given:
            slots[0]["reference"] = str(concepts[0])
        for slot in slots:
            chosen = next((v for v in concepts if str(v) == slot["reference"]), None)
            dose = dose_of(chosen) if chosen is not None else 0.0
            slot["dose"] = slot["dose"] or f"{dose:.2f}"
            slot["reach"] = f"{min(max(_REACH, 2 * dose), MOST_DOSE):.2g}"
        values: dict[str, Any] = {
            "state": "Ready.",
            "unsteered": "",
            "steered": [],
            "price": {"kl": "–", "perplexity": "–"},
            "problem": "",
            **more,
        }
        return self._render(
            "play.html",
            here="/play",
            title="Playground",
            targets=targets,
            target=target,
            concepts=concepts,
            slots=slots,
            prompt=given.get("prompt", _PROMPT)[:MOST_SIGNS],
            tokens=given.get("tokens", "40"),
            most_tokens=MOST_TOKENS,
            most_signs=MOST_SIGNS,
            **values,
        )


def _slot(given: dict[str, str], i: int) -> dict[str, str]:
    return {"reference": given.get(f"concept{i}", ""), "dose": given.get(f"dose{i}", "")[:10]}


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/x-www-form-urlencoded":
        raise SpecError("The playground takes a form; use the one on its page.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MAX_BODY:
            raise SpecError(f"The form is longer than {_MAX_BODY:,} bytes; shorten the prompt.")
    try:
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=30))
    except ValueError as error:
        raise SpecError("The form cannot be read; use the one on the page of the playground.") from error


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False).encode() + b"\n"


def _collected(events: list[dict[str, Any]]) -> dict[str, Any]:
    tokens = [event for event in events if event["kind"] == "token"]
    price = next((event for event in reversed(events) if event["kind"] == "price"), None)
    problem = next((event["text"] for event in events if event["kind"] == "error"), "")
    found: dict[str, Any] = {
        "unsteered": "".join(event["text"] for event in tokens if event["side"] == "unsteered"),
        "steered": [event for event in tokens if event["side"] == "steered"],
        "problem": problem,
        "state": "" if problem else "Done.",
    }
    if price is not None:
        found["price"] = {
            "kl": f"{price['kl']:.3g} nats per token",
            "perplexity": f"{price['perplexity']:.3g}, of the unsteered text {price['unsteered_perplexity']:.3g}",
        }
    return found
