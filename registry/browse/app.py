"""The routes: which address shows what. All of them read; the playground alone takes a POST, and changes nothing."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import anyio.to_thread
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from contrans.errors import ContransError
from registry.browse.elsewhere import NOWHERE, Elsewhere
from registry.browse.play_page import PlayPage
from registry.browse.playground import Playground
from registry.browse.reading import Reader
from registry.browse.security import Guard
from registry.browse.views import FOLDER, Pages

_THREADS = 12  # answers at once; the pool of connections holds 15


def create_app(
    registry: Reader, *, token: str | None = None, local: bool = True, elsewhere: Elsewhere = NOWHERE
) -> Starlette:
    """The application.

    Args:
        registry: What it shows.
        token: What callers must know; None for everybody who reaches it.
        local: Whether it is served on loopback, under names of this machine only.
        elsewhere: Where MLflow and Prefect show its runs.
    """
    shown_pages, playground = Pages(registry, elsewhere), Playground()
    play = PlayPage(registry, shown_pages.html, playground)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        anyio.to_thread.current_default_thread_limiter().total_tokens = _THREADS
        yield
        playground.close()

    def refused(request: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 500
        title = "Not found" if status == 404 else "That did not work"
        detail = error.detail if isinstance(error, HTTPException) else str(error)
        answer = shown_pages.message(title, "There is no such page." if detail == "Not Found" else detail, status)
        if isinstance(error, HTTPException):
            answer.headers.update(error.headers or {})
        return answer

    def crashed(request: Request, error: Exception) -> Response:
        return shown_pages.message("That did not work", "The page could not be made; the server's log says why.", 500)

    gets: dict[str, Callable[[Request], Response]] = {
        "/": shown_pages.concepts,
        "/versions": shown_pages.versions,
        "/version/{kind}/{ref:path}": shown_pages.version,
        "/report/{kind}/{ref:path}": shown_pages.one_file,
        "/lineage/{kind}/{ref:path}": shown_pages.lineage,
        "/compare": shown_pages.compare,
        "/pairs": shown_pages.pairs,
        "/space": shown_pages.space,
        "/play": play.form,
    }
    return Starlette(
        routes=[
            *(Route(path, answer, methods=["GET"]) for path, answer in gets.items()),
            Route("/play", play.answer, methods=["POST"]),
            Mount("/static", StaticFiles(directory=FOLDER / "static"), name="static"),
        ],
        middleware=[Middleware(Guard, token=token, local=local, ask=shown_pages.ask_for_token)],
        exception_handlers={HTTPException: refused, ContransError: refused, Exception: crashed},
        lifespan=lifespan,
    )
