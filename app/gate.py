"""Who is asking, and may they: a pure-ASGI layer in front of every route, Gradio's own and later ones included.

It leaves the signed-in user in the request's state for :func:`app.accounts.user_of`, and lets nobody
through to an address that asks for more than they have (app/accounts/access.py).
"""

from __future__ import annotations

import threading

from sqlalchemy import Connection
from sqlalchemy.orm import Session
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection

from app.accounts.access import NOT_SIGNED_IN, SIGNED_IN, CurrentUser, not_allowed, required_role
from app.accounts.directory import MAKE_AN_ADMIN, accounts_exist
from app.accounts.sessions import FoundSession, cookie_name, look_up, renew
from app.guard import AsgiApp, Receive, Scope, Send, refuse
from db.models import Role
from db.queries import ensure_user
from db.workspace import Workspace

# What a proxy adds. A person's browser on this machine sends none of them.
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-real-ip")
BEHIND_A_PROXY = (
    "This server has no accounts and answers this machine only, but the request came through a proxy. Make an admin "
    f"first: {MAKE_AN_ADMIN}."
)


class Gate:
    """Wrap an ASGI application for one workspace."""

    def __init__(self, app: AsgiApp, workspace: Workspace) -> None:
        self._app = app
        self._workspace = workspace
        self._cookie = cookie_name(workspace)
        # Accounts are never deleted, so once there are some, nobody has to look again.
        self._accounts_exist = False
        self._local: CurrentUser | None = None
        self._connection: Connection | None = None
        self._turn = threading.Lock()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        token = HTTPConnection(scope).cookies.get(self._cookie, "")
        user = await self._user(token)
        scope.setdefault("state", {})[SIGNED_IN] = user
        role = required_role(scope["path"])
        if user is not None and user.is_local and any(name in headers for name in FORWARDED):
            await refuse(scope, send, 403, BEHIND_A_PROXY)
        elif role is None or (user is not None and user.may(role)):
            await self._app(scope, receive, send)
        elif user is not None:
            await refuse(scope, send, 403, not_allowed(user, role))
        elif scope["type"] == "http" and _is_page_load(scope, headers):
            await _to_sign_in(send)
        else:
            await refuse(scope, send, 401, NOT_SIGNED_IN)

    async def _user(self, token: str) -> CurrentUser | None:
        # Read here and not in a thread: it takes a third of a millisecond, and the way to a thread and back costs a
        # verdict more than that when the machine is busy. What writes goes to one, for it may have to wait.
        found = self._look_up(token)
        if not self._accounts_exist:
            return self._local or await run_in_threadpool(self._local_user)
        if found is None:
            return None
        if found.renew_until is not None:
            await run_in_threadpool(renew, self._workspace, found.user.session, found.renew_until)
        return found.user

    def _look_up(self, token: str) -> FoundSession | None:
        # Over a connection of its own: waiting for one of those that the routes share would hold up everybody.
        with self._turn:
            if self._connection is None:
                self._connection = self._workspace.engine.connect()
            with Session(self._connection) as session:
                if not self._accounts_exist:
                    self._accounts_exist = accounts_exist(session)
                return look_up(session, token) if self._accounts_exist and token else None

    def _local_user(self) -> CurrentUser:
        with self._workspace.write() as session:
            user = ensure_user(session)
        self._local = CurrentUser(user.id, user.name, Role.ADMIN, is_local=True)
        return self._local


def _is_page_load(scope: Scope, headers: Headers) -> bool:
    if scope["method"] not in ("GET", "HEAD"):
        return False
    return scope["path"] == "/" or "text/html" in headers.get("accept", "")


async def _to_sign_in(send: Send) -> None:
    headers = [(b"location", b"/sign-in"), (b"content-length", b"0"), (b"cache-control", b"no-store")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})
