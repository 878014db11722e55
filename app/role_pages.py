"""One Gradio application a role, with the pages of that role alone.

A Gradio event names its function by number, and whoever may send events may name any. So the
functions of a page that somebody may not see must not be in the application that answers them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import gradio as gr
from fastapi import FastAPI

from app.accounts.access import NOT_SIGNED_IN, SIGNED_IN, user_name_of
from app.guard import Receive, Scope, Send, refuse
from app.pages import build_pages
from app.theme import HEAD, make_theme
from db.models import Role
from db.workspace import Workspace

QUEUE_LOOK_SECONDS = 0.05


class RolePages:
    """An ASGI application for behind the gate: each request goes to the pages of the signed-in user's role.

    ``apps`` and ``demos`` are the FastAPI and Gradio parts by role.
    """

    def __init__(self, workspace: Workspace) -> None:
        self.demos = {role: build_pages(workspace, role) for role in Role}
        self.apps = {role: _mounted(demo) for role, demo in self.demos.items()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        user = scope.get("state", {}).get(SIGNED_IN)
        if user is None:
            await refuse(scope, send, 401, NOT_SIGNED_IN)
        else:
            await self.apps[user.role](scope, receive, send)

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Start and end what Gradio runs in the background."""
        async with AsyncExitStack() as stack:
            for inner in self.apps.values():
                await stack.enter_async_context(inner.router.lifespan_context(inner))
            yield


def _mounted(demo: gr.Blocks) -> FastAPI:
    app = gr.mount_gradio_app(
        FastAPI(docs_url=None, redoc_url=None, openapi_url=None),
        demo,
        path="/",
        auth_dependency=user_name_of,
        theme=make_theme(),
        head=HEAD,
        footer_links=[],
        show_error=False,
        ssr_mode=False,
    )
    # By default it looks for new events a thousand times a second, one loop a role: a twentieth of a core for nothing.
    demo._queue.sleep_when_free = QUEUE_LOOK_SECONDS
    # Mounting leaves it False, and then Gradio lets an event's input name any file on the machine.
    demo.has_launched = True
    return app
