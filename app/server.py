"""The server: own routes for images, decisions and jobs, the Gradio pages behind them, and a worker beside it all."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Sequence
from pathlib import Path

# Gradio reads it when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import gradio as gr
import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from gradio.route_utils import STATIC_PATH_LIB
from sqlalchemy import text

from app.guard import LOCAL_HOSTS, Guard
from app.job_routes import job_router
from app.media_routes import media_router
from app.pages import build_pages
from app.review_routes import review_router
from app.theme import HEAD, make_theme
from app.worker_process import WorkerProcess, worker_command
from db.queries import ensure_user
from db.workspace import Workspace

STATIC = Path(__file__).resolve().parent / "static"
DEFAULT_PORT = 7860
PORTS_TRIED = 100
LISTENING_HOSTS = {"127.0.0.1": socket.AF_INET, "localhost": socket.AF_INET, "::1": socket.AF_INET6}
GRACE_SECONDS = 3


class ServerError(RuntimeError):
    """The server cannot be started as asked; the message says what to do."""


class RevalidatedFiles(StaticFiles):
    """Static files that a browser keeps but asks about each time, so that an update never mixes old and new.

    Our own, and Gradio's where we have none of that name: its page asks for some under the same ``/static``.
    """

    def __init__(self) -> None:
        super().__init__(directory=STATIC)
        self.all_directories.append(STATIC_PATH_LIB)

    def file_response(self, *arguments, **keywords) -> Response:
        response = super().file_response(*arguments, **keywords)
        response.headers["Cache-Control"] = "no-cache"
        return response


def create_app(workspace: Workspace, *, allowed_hosts: Sequence[str] = LOCAL_HOSTS) -> FastAPI:
    """The whole web application for one workspace. Starts nothing and loads no model.

    ``allowed_hosts`` are the names it answers to, as in a Host header. ``app.state.demo`` is the Gradio part.
    """
    with workspace.write() as session:
        user_id = ensure_user(session).id

    # Not a coroutine: Gradio 6.17 takes an async one for a signed-in user.
    def current_user() -> int:
        return user_id

    app = FastAPI(title="ImageNet-Bg builder", docs_url=None, redoc_url=None, openapi_url=None)
    app.add_middleware(Guard, allowed_hosts=allowed_hosts)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        with workspace.read() as session:
            session.execute(text("SELECT 1"))
        return {"status": "ok"}

    app.include_router(job_router(workspace, current_user))
    app.include_router(media_router(workspace, current_user))
    app.include_router(review_router(workspace, current_user))
    app.mount("/static", RevalidatedFiles())

    demo = build_pages(workspace, user_id)
    app = gr.mount_gradio_app(
        app, demo, path="/", theme=make_theme(), head=HEAD, footer_links=[], show_error=False, ssr_mode=False
    )
    # Mounting leaves it False, and then Gradio lets an event's input name any file on the machine.
    demo.has_launched = True
    app.state.demo = demo
    return app


def serve(workspace: Workspace, host: str = "127.0.0.1", port: int = DEFAULT_PORT) -> None:
    """Serve the workspace until SIGINT or SIGTERM, with a worker beside it that ends with it.

    Takes the next free port when ``port`` is in use. Raises :class:`ServerError` for a host that other
    machines could reach.
    """
    listener = open_listener(host, port)
    with listener:
        app = create_app(workspace)
        shown = f"[{host}]" if ":" in host else host
        print(f"ImageNet-Bg builder: http://{shown}:{listener.getsockname()[1]}", flush=True)
        print(f"Workspace: {workspace.root}\nCtrl-C ends the server and its worker.", flush=True)
        # uvicorn raises the signal again once it has shut down: turn it into an exit, so that the worker is ended too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        worker = WorkerProcess(worker_command(workspace.root))
        worker.start()
        config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=GRACE_SECONDS)
        try:
            uvicorn.Server(config).run(sockets=[listener])
        except KeyboardInterrupt:
            print("Ending.", flush=True)
        finally:
            worker.stop()


def open_listener(host: str, port: int) -> socket.socket:
    """A listening socket on ``port`` or the next free one after it; only on this machine's own addresses."""
    family = LISTENING_HOSTS.get(host)
    if family is None:
        raise ServerError(
            f"Not serving on {host}: there are no accounts yet, so anybody who reaches that address could change the "
            "workspace. Use 127.0.0.1 and, from another machine, an SSH tunnel (ssh -L 7860:127.0.0.1:7860)."
        )
    for candidate in range(port, min(port + PORTS_TRIED, 65536)):
        listener = socket.socket(family)
        # Lets a restart reuse the port at once; a port that is being listened on is still refused on Linux.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, candidate))
            listener.listen()
        except OSError:
            listener.close()
        else:
            return listener
    raise ServerError(f"No port from {port} to {port + PORTS_TRIED - 1} is free; name another with --port.")
