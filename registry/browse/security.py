"""Who may look, and what a browser may do with what it gets."""

import hashlib
import ipaddress
import secrets
from collections.abc import Callable, Sequence
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from contrans.errors import SpecError

COOKIE = "contrans"
MIN_TOKEN = 16  # characters
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_MONTH = 30 * 24 * 3600

Ask = Callable[[Sequence[tuple[str, str]], bool], Response]
"""The page that asks for the token: the query that came without it, and whether a wrong token was given."""


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a host."""
    bare = host.strip("[]")
    if bare == "localhost":
        return True
    try:
        return ipaddress.ip_address(bare).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, token: str | None) -> None:
    """Refuses to serve others without a token, or with one that is short enough to be guessed.

    Raises:
        SpecError: If so.
    """
    if token is not None and (len(token) < MIN_TOKEN or not token.isascii() or not token.isprintable()):
        raise SpecError(f"A token needs at least {MIN_TOKEN} ASCII characters, such as {secrets.token_urlsafe(24)}.")
    if token is None and not is_loopback(host):
        raise SpecError(
            f"Other machines reach {host}, so a token must keep the registry to those who know it; add "
            f"--token {secrets.token_urlsafe(24)} or leave --host out."
        )


class Guard:
    """Lets in who knows the token, refuses what other sites send, and sets the headers of every answer.

    Args:
        app: What is guarded.
        token: The token; None where everybody who reaches the host may look.
        local: Whether the host is loopback: then only names of this machine are answered, so that no other site's name
            can be pointed here.
        ask: Makes the page that asks for the token.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, local: bool, ask: Ask) -> None:
        self._app, self._token, self._local, self._ask = app, token, local, ask

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request, or hands it on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("Cache-Control", "no-store" if self._token else "no-cache")
            await send(message)

        request = Request(scope)
        refused = self._refusal(request)
        if refused is not None:
            await refused(scope, receive, with_headers)
            return
        await self._app(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        host = request.headers.get("host", "")
        if self._local and not is_loopback(_without_port(host)):
            return PlainTextResponse("This address is not served here; use http://127.0.0.1 and the port.", 421)
        if request.method not in ("GET", "HEAD") and _is_foreign(request.headers, host):
            return PlainTextResponse("Another site sent this; use the form of the playground.", 403)
        if self._token is None or request.url.path.startswith("/static/"):
            return None
        scheme, _, bearer = request.headers.get("authorization", "").partition(" ")
        known = _digest(self._token)
        if _same(request.cookies.get(COOKIE, ""), known) or (
            scheme.lower() == "bearer" and _same(_digest(bearer), known)
        ):
            return None
        given = request.query_params.get("token")
        rest = [(key, value) for key, value in parse_qsl(request.url.query, keep_blank_values=True) if key != "token"]
        if given is None or not _same(_digest(given), known) or request.method not in ("GET", "HEAD"):
            answer = self._ask(rest if request.method in ("GET", "HEAD") else [], given is not None)
            answer.headers["WWW-Authenticate"] = "Bearer"
            return answer
        # The token goes from the address into a cookie, so that no link and no history carries it on.
        path = "/" + request.url.path.lstrip("/\\")
        found = RedirectResponse(path + (f"?{urlencode(rest)}" if rest else ""), 303)
        found.set_cookie(COOKIE, known, max_age=_MONTH, httponly=True, samesite="strict")
        return found


def _is_foreign(headers: Headers, host: str) -> bool:
    if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != host


def _without_port(host: str) -> str:
    return host.rpartition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


def _digest(token: str) -> str:
    return hashlib.sha256(b"contrans browse " + token.encode()).hexdigest()


def _same(first: str, second: str) -> bool:
    return secrets.compare_digest(first.encode(), second.encode())
