"""What stands before every page and answer: who may ask, how much at once, and what a browser may do with it.

A page of another site can make a browser send requests here; so requests have to name this host (a name that
is made to point at the loopback address does not), to come from this origin, and to carry JSON. Where the
server can be reached from elsewhere, they also need a token.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Sequence
from urllib.parse import parse_qs, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from helix_sae.explorer.limits import Limits, RateLimiter

COOKIE = "helix_sae_token"
OWN_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For the pages of the explorer: nothing inline, nothing from elsewhere."""

RUN_POLICY = (
    "default-src 'self' 'unsafe-inline' data: blob:; connect-src 'none'; object-src 'none'; base-uri 'none';"
    " form-action 'none'; frame-ancestors 'none'"
)
"""For the pages of a run, which also open from the disk and bring a stricter policy of their own along."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Guard:
    """Middleware of the explorer.

    Parameters
    ----------
    app : ASGI application
    limits : Limits
    token : str, optional
        What has to be shown; nothing on the loopback address.
    hosts : sequence of str
        Names that requests may call this host; any when empty.
    """

    def __init__(
        self, app: ASGIApp, *, limits: Limits, token: str | None = None, hosts: Sequence[str] = ()
    ) -> None:
        self._app, self._limits, self._token, self._hosts = app, limits, token, frozenset(hosts)
        self._rate = RateLimiter(limits.per_minute, limits.burst)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or say why not."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        send = _with_headers(scope["path"], send)
        headers = Headers(scope=scope)
        refusal = self._refusal(scope, headers)
        if refusal is not None:
            status, text, more = refusal
            await _say(send, status, text, more)
            return
        await self._app(scope, self._bounded(receive), send)

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        host = headers.get("host", "")
        if self._hosts and _name_of(host) not in self._hosts:
            return 403, f"This server is not called {host[:80]!r}.", {}
        if self._token is not None and (answer := self._without_token(scope, headers)) is not None:
            return answer
        if scope["method"] == "POST":
            origin = headers.get("origin")
            if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
                return 403, "Requests of pages of other sites are not answered.", {}
            if headers.get("content-type", "").partition(";")[0].strip() != "application/json":
                return 415, "Send JSON, with Content-Type: application/json.", {}
        announced = headers.get("content-length", "0")
        if not announced.isdecimal():
            return 400, "Content-Length is no number.", {}
        if len(announced) > 12 or int(announced) > self._limits.body:
            return 413, self._too_long(), {}
        client = scope.get("client")
        wait = self._rate.admit(client[0] if client else "") if scope["path"].startswith("/api/") else 0.0
        if wait > 0:
            told = f"Too many requests of this address; ask again in {wait:.1f} s."
            return 429, told, {"Retry-After": str(int(wait) + 1)}
        return None

    def _without_token(self, scope: Scope, headers: Headers) -> tuple[int, str, dict[str, str]] | None:
        """What is said without the token; None with it. A link that has it is exchanged for a cookie."""
        assert self._token is not None
        query = parse_qs(scope["query_string"].decode("latin-1"))
        if scope["method"] == "GET" and self._is_right(*query.pop("token", [])[:1]):
            rest = urlencode(query, doseq=True)
            # Only the path on this host: "//x" would be another one.
            place = "/" + scope["path"].lstrip("/") + (f"?{rest}" if rest else "")
            cookie = f"{COOKIE}={self._token}; Path=/; HttpOnly; SameSite=Strict"
            return 303, "", {"Location": place, "Set-Cookie": cookie}
        scheme, _, shown = headers.get("authorization", "").partition(" ")
        kept = cookie_parser(headers.get("cookie", "")).get(COOKIE, "")
        if (scheme.lower() == "bearer" and self._is_right(shown)) or self._is_right(kept):
            return None
        return 401, "Open the address with the token that the server printed when it started.", {}

    def _is_right(self, shown: str = "") -> bool:
        assert self._token is not None
        return hmac.compare_digest(shown.encode(), self._token.encode())

    def _bounded(self, receive: Receive) -> Receive:
        """The body, whatever its announced length."""
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > self._limits.body:
                raise HTTPException(413, self._too_long())
            return message

        return bounded

    def _too_long(self) -> str:
        return f"A request has at most {self._limits.body:,} bytes."


def _name_of(host: str) -> str:
    """The host without its port, in small letters."""
    return host.lower().rpartition("]")[0] + "]" if host.startswith("[") else host.lower().partition(":")[0]


def _with_headers(path: str, send: Send) -> Send:
    # "/static" and "/" are ours, "/api" answers with data; all else is of the run.
    own = path == "/" or path.startswith(("/static/", "/api/"))

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            headers["Content-Security-Policy"] = OWN_POLICY if own else RUN_POLICY
            for name, value in _HEADERS.items():
                headers[name] = value
            headers["Cache-Control"] = "no-store" if path.startswith("/api/") else "no-cache"
        await send(message)

    return sending


async def _say(send: Send, status: int, text: str, more: dict[str, str]) -> None:
    body = json.dumps({"error": text}).encode()
    headers = {"Content-Type": "application/json", "Content-Length": str(len(body)), **more}
    raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": status, "headers": raw})
    await send({"type": "http.response.body", "body": body})
