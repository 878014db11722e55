"""What every request meets first: a pure-ASGI layer around the whole application, Gradio included.

A browser lends its user's address and cookies to any page it has open. So a request made by another
site is refused, a Host header that is not ours is refused (a name rebound to 127.0.0.1 would
otherwise be "same origin"), Gradio's permissive CORS headers are removed, and the page itself may
load nothing from elsewhere.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
AsgiApp = Callable[[Scope, Receive, Send], Awaitable[None]]

LOCAL_HOSTS = ("127.0.0.1", "localhost", "[::1]")
SAFE_METHODS = frozenset({"GET", "HEAD"})

# gr.HTML compiles its template with new Function and sets inline styles, hence the two unsafe-*.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self' 'unsafe-inline' 'unsafe-eval'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "media-src 'self' blob:",
        "font-src 'self' data:",
        "connect-src 'self'",
        "worker-src 'self' blob:",
        "object-src 'none'",
        "base-uri 'self'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY_POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
REPLACED = frozenset(name for name, _ in SECURITY_HEADERS)


class Guard:
    """Wrap an ASGI application: ``app.add_middleware(Guard)``, or ``Guard(app, allowed_hosts=[...])``.

    ``allowed_hosts`` are names as a Host header spells them; one without a port stands for any port.
    """

    def __init__(self, app: AsgiApp, allowed_hosts: Iterable[str] = LOCAL_HOSTS) -> None:
        self._app = app
        self._hosts = frozenset(host.lower() for host in allowed_hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refuse(scope, send, *refusal)
            return
        await self._app(scope, receive, _hardened(send))

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        headers = _single(scope["headers"])
        host = headers.get("host", "").lower()
        if host not in self._hosts and _without_port(host) not in self._hosts:
            known = ", ".join(sorted(self._hosts))
            return 400, f"This server does not answer to that host name; use one of: {known}."
        if _is_ours(scope, headers, host):
            return None
        return 403, "This request came from another site and was refused; open the page itself and do it there."


def _single(raw: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Headers by name. A repeated one is joined, so that a second Host or Origin never hides behind the first."""
    headers: dict[str, str] = {}
    for name, value in raw:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        headers[key] = f"{headers[key]}, {text}" if key in headers else text
    return headers


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _is_ours(scope: Scope, headers: dict[str, str], host: str) -> bool:
    origin = headers.get("origin")
    if scope["type"] == "websocket":
        return origin is None or _same_host(origin, host)
    site = headers.get("sec-fetch-site")
    safe = scope["method"] in SAFE_METHODS
    if site in ("same-origin", "none"):
        return True
    if site is not None:
        # A link on another site may open a page here; nothing else there may reach us.
        return safe and headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    # Browsers leave Sec-Fetch-* out on plain-http addresses of a local network. Neither header: no browser.
    return safe or origin is None or _same_host(origin, host)


def _same_host(origin: str, host: str) -> bool:
    try:
        # The scheme is not compared: behind a proxy that ends TLS it differs from ours.
        return bool(host) and urlsplit(origin).netloc.lower() == host
    except ValueError:
        return False


async def refuse(scope: Scope, send: Send, status: int, sentence: str) -> None:
    """Answer a request with ``{"error": sentence}``, a websocket by closing it."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 1008, "reason": sentence})
        return
    body = json.dumps({"error": sentence}).encode()
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *SECURITY_HEADERS,
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


def _hardened(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] in ("http.response.start", "websocket.accept"):
            kept = [
                (name, value)
                for name, value in message.get("headers", [])
                if name.lower() not in REPLACED and not name.lower().startswith(b"access-control-")
            ]
            message = {**message, "headers": [*kept, *SECURITY_HEADERS]}
        await send(message)

    return wrapped
