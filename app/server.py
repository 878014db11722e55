"""The server: own routes for images, decisions and jobs, the Gradio pages behind them, and a worker beside it all."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

# Gradio reads it when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"

import uvicorn
from fastapi import FastAPI
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from gradio.route_utils import STATIC_PATH_LIB
from sqlalchemy import text

from app.account_routes import account_router
from app.accounts import signed_in_user_id
from app.accounts.directory import account_count, admin_exists
from app.audit_routes import audit_router
from app.build_routes import build_router
from app.duplicate_routes import duplicate_router
from app.evaluation_routes import evaluation_router
from app.export_routes import export_router
from app.figure_routes import figure_router
from app.gate import Gate
from app.guard import LOCAL_HOSTS, Guard
from app.job_routes import job_router
from app.judging_routes import judging_router
from app.listening import Listening
from app.media_routes import media_router
from app.review_routes import review_router
from app.role_pages import RolePages
from app.sign_in_routes import sign_in_router
from app.training_routes import training_router
from app.triage_routes import triage_router
from app.worker_process import WorkerProcess, worker_command
from db.models import Role
from db.workspace import Workspace

STATIC = Path(__file__).resolve().parent / "static"
GRACE_SECONDS = 3
SWITCH_SECONDS = 0.001  # of Python's 0.005


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

    ``allowed_hosts`` are the names it answers to, as in a Host header. ``app.state.pages`` is the Gradio part,
    ``app.state.demo`` its pages for an admin, who sees all of them.
    """
    pages = RolePages(workspace)
    app = FastAPI(title="ImageNet-Bg builder", docs_url=None, redoc_url=None, openapi_url=None, lifespan=pages.lifespan)
    # The one added last is the first that a request meets.
    app.add_middleware(Gate, workspace=workspace)
    app.add_middleware(Guard, allowed_hosts=allowed_hosts)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        with workspace.read() as session:
            session.execute(text("SELECT 1"))
        return {"status": "ok"}

    app.include_router(sign_in_router(workspace))
    app.include_router(account_router(workspace))
    app.include_router(job_router(workspace, signed_in_user_id))
    app.include_router(media_router(workspace, signed_in_user_id))
    app.include_router(review_router(workspace, signed_in_user_id))
    for make in (
        triage_router,
        audit_router,
        judging_router,
        duplicate_router,
        build_router,
        export_router,
        training_router,
        evaluation_router,
        figure_router,
    ):
        app.include_router(make(workspace, signed_in_user_id))
    app.mount("/static", RevalidatedFiles())
    app.mount("/", pages)
    app.state.pages = pages
    app.state.demo = pages.demos[Role.ADMIN]
    return app


def serve(workspace: Workspace, listening: Listening) -> None:
    """Serve the workspace until SIGINT or SIGTERM, with a worker beside it that ends with it.

    Takes the next free port when the one asked for is in use. Raises :class:`app.listening.ServerError` for an
    address that other machines could reach while there are no accounts.
    """
    with workspace.read() as session:
        listening.check(admin_exists(session))
        accounts = account_count(session)
    with listening.open() as listener:
        app = create_app(workspace, allowed_hosts=listening.host_names)
        _announce(workspace, listening, listener.getsockname()[1], accounts)
        # uvicorn raises the signal again once it has shut down: turn it into an exit, so that the worker is ended too.
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        # A thread that computes holds the interpreter this long while a verdict waits, at each of its steps.
        sys.setswitchinterval(SWITCH_SECONDS)
        worker = WorkerProcess(worker_command(workspace.root))
        worker.start()
        try:
            uvicorn.Server(server_config(app, listening)).run(sockets=[listener])
        except KeyboardInterrupt:
            print("Ending.", flush=True)
        finally:
            worker.stop()


def server_config(app: FastAPI, listening: Listening) -> uvicorn.Config:
    """How uvicorn serves the application: X-Forwarded-* is believed of the trusted proxies alone."""
    return uvicorn.Config(
        app,
        log_level="warning",
        timeout_graceful_shutdown=GRACE_SECONDS,
        # By default uvicorn believes what any process on this machine says about where a request comes from.
        proxy_headers=bool(listening.trusted_proxies),
        forwarded_allow_ips=list(listening.trusted_proxies),
    )


def _announce(workspace: Workspace, listening: Listening, port: int, accounts: int) -> None:
    print(f"ImageNet-Bg builder: http://{listening.shown}:{port}", flush=True)
    names = [name for name in listening.host_names if name not in LOCAL_HOSTS]
    if names:
        print(f"It answers to: {', '.join(names)}.")
    who = "this machine's user may do everything" if accounts == 0 else f"{accounts}; sign-in is needed"
    print(f"Workspace: {workspace.root}\nAccounts: {who}.")
    if not listening.is_local and not listening.trusted_proxies:
        print("Passwords travel unencrypted over http: put a proxy with https in front (docs/accounts.md).")
    print("Ctrl-C ends the server and its worker.", flush=True)
