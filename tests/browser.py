"""Helpers for tests that drive the pages in a real Chromium.

The fixtures ``chromium`` and ``chromium_page`` are registered once, in conftest.py: a module that imported
them would get a second browser, which Playwright does not allow.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import uvicorn
from PIL import Image

from db.models import Candidate, ImageClass, Kind, Recipe, SourceImage, Split
from db.queries import ACTIVE_RECIPE, set_meta
from db.workspace import Workspace

ARTIFACTS = Path(__file__).resolve().parents[1] / "test-artifacts"
STATIC = Path(__file__).resolve().parents[1] / "app" / "static"
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
START_SECONDS = 30


class Server:
    """uvicorn in a thread. The port is kept over :meth:`stop` and :meth:`start`, as after a crash."""

    def __init__(self, make_app: Callable[[], object]) -> None:
        self._make_app = make_app
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Serve a newly made application; returns once it accepts connections."""
        config = uvicorn.Config(
            self._make_app(), host="127.0.0.1", port=self.port, log_level="error", timeout_graceful_shutdown=1
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_SECONDS
        while not self._server.started:
            if not self._thread.is_alive() or time.monotonic() > deadline:
                raise RuntimeError(f"The test server did not start on {self.url}.")
            time.sleep(0.01)

    def stop(self) -> None:
        """Stop at once, open connections included."""
        self._server.should_exit = self._server.force_exit = True
        self._thread.join(START_SECONDS)


@contextmanager
def running(make_app: Callable[[], object]) -> Iterator[Server]:
    """A server of the application that ``make_app`` makes, for tests that stop and start it."""
    server = Server(make_app)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def serve(asgi_app: object) -> Iterator[str]:
    """Serve an application; gives its address."""
    with running(lambda: asgi_app) as server:
        yield server.url


def gradio_app(build: Callable[[], None], routers: list, wrap: Callable | None = None) -> object:
    """A FastAPI application with ``routers``, app/static, and the Gradio page that ``build`` fills, as we ship them."""
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    import gradio as gr
    from fastapi import FastAPI
    from fastapi.staticfiles import StaticFiles

    app = FastAPI()
    for router in routers:
        app.include_router(router)
    # Gradio serves its fonts under /static too: look there for what is not ours.
    app.mount("/static", StaticFiles(directory=STATIC, packages=[("gradio", "templates/frontend/static")]))
    with gr.Blocks(analytics_enabled=False) as demo:
        build()
    app = gr.mount_gradio_app(app, demo, path="/", footer_links=[])
    demo.has_launched = True  # otherwise Gradio's check of file paths stays off
    return app if wrap is None else wrap(app)


def chromium_path() -> str | None:
    """Where a Chromium is, if there is one."""
    return next(filter(None, map(shutil.which, CHROMIUM_NAMES)), None)


@pytest.fixture(scope="session")
def chromium() -> Iterator[object]:
    """One browser for the whole run; skips where there is none, and fails instead under CI."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing = "playwright is not installed"
    else:
        missing = "" if chromium_path() else "there is no Chromium on this machine"
    if missing:
        (pytest.fail if os.environ.get("CI", "").lower() in ("1", "true") else pytest.skip)(missing)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path(), args=CHROMIUM_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def chromium_page(chromium, request: pytest.FixtureRequest) -> Iterator[object]:
    """A fresh page at 1280x800. The test fails on a page error, a console error, or a request that leaves 127.0.0.1.

    A test that stops its server sets ``page.expect_network_errors = True``: then, and when the test is over
    (conftest.py), and only then, the browser's own messages about failed requests are expected. A failing test
    leaves a screenshot in test-artifacts/.
    """
    failed_before = request.session.testsfailed
    context = browser_context(chromium)
    page = context.new_page()
    page.expect_network_errors = False
    faults: list[str] = []

    def console(message) -> None:
        expected = page.expect_network_errors and ("Failed to load resource" in message.text or _is_lost(message.text))
        if message.type == "error" and not expected and not _is_gradio_closing(message):
            faults.append(f"console: {message.text} {message.location.get('url', '')}")

    def requested(outgoing) -> None:
        address = urlsplit(outgoing.url)
        if address.scheme not in ("data", "blob", "about") and address.hostname != "127.0.0.1":
            faults.append(f"request to another host: {outgoing.url}")

    page.on("console", console)
    page.on("pageerror", lambda error: _is_expected(page, error) or faults.append(f"page error: {error}"))
    context.on("request", requested)
    yield page
    if faults or request.session.testsfailed > failed_before:
        ARTIFACTS.mkdir(exist_ok=True)
        name = re.sub(r"\W+", "-", request.node.name)
        page.screenshot(path=ARTIFACTS / f"{name}.png", full_page=True)
    context.close()
    assert not faults, "\n".join(faults)


def synthetic_candidates(workspace: Workspace, count: int, *, size: int = 96) -> list[int]:
    """Candidates straight through the models, with real images that differ; gives their ids.

    Drops rise with the number, residuals fall, and three classes take turns.
    """
    names = ("tench", "goldfish", "great white shark")
    with workspace.write() as session:
        for index, name in enumerate(names):
            session.merge(ImageClass(class_index=index, wnid=f"n{index:08d}", name=name))
        recipe = Recipe(hash="f" * 64, config={})
        session.add(recipe)
        session.flush()
        set_meta(session, ACTIVE_RECIPE, str(recipe.id))
        ids = []
        for number in range(count):
            sha = hashlib.sha256(f"candidate {number}".encode()).hexdigest()
            folder = f"candidates/{sha[:2]}/{sha}"
            _write_images(workspace.path(folder), number, size)
            source = SourceImage(
                name=f"photo_{number:04d}",
                split=Split.VAL,
                root=str(workspace.root),
                path=f"{folder}/raw.png",
                sha256=sha,
                bytes=1,
                width=size,
                height=size,
                class_index=number % len(names),
            )
            session.add(source)
            session.flush()
            candidate = Candidate(
                source_id=source.id,
                recipe_id=recipe.id,
                kind=Kind.BACKGROUND,
                class_index=source.class_index,
                folder=folder,
                result_sha256=sha,
                width=size,
                height=size,
                logit_source=20.0,
                logit_candidate=20.0 - number / 2,
                drop=number / 2,
                residual=(count - number) / 10,
                rank=1 + 3 * number,
                probability=0.01,
                area=0.18,
                dilated_area=0.22,
                phash=f"{number:016x}",
                boxes=[],
                timings={},
                notes={},
            )
            session.add(candidate)
            session.flush()
            ids.append(candidate.id)
    return ids


def _write_images(folder: Path, number: int, size: int) -> None:
    """A smooth landscape; the photo has a disc in it, which the mask covers and the result lacks."""
    folder.mkdir(parents=True)
    y, x = np.mgrid[0:size, 0:size] / size
    sky = np.array([150, 180 - 6 * (number % 9), 205])
    ground = np.array([80 + 7 * (number % 11), 120, 70])
    share = 1 / (1 + np.exp(-(y - 0.55 - 0.08 * np.sin(6 * x + number)) * 14))[..., None]
    result = sky * (1 - share) + ground * share
    disc = (x - 0.5 - 0.02 * (number % 5)) ** 2 + (y - 0.52) ** 2 < 0.055
    raw = np.where(disc[..., None], np.array([190, 120 + 8 * (number % 8), 60]), result)
    for name, array in (("raw", raw), ("mask", disc * 255), ("dilated", disc * 255), ("result", result)):
        Image.fromarray(array.astype(np.uint8)).save(folder / f"{name}.png")
    Image.fromarray(result.astype(np.uint8)).resize((32, 32)).save(folder / "thumbnail.jpg")


def browser_context(browser, **options):
    """A context with a fixed size, language and colour scheme, so that screenshots compare."""
    settings = {"viewport": {"width": 1280, "height": 800}, "color_scheme": "light", "locale": "en-GB"} | options
    return browser.new_context(**settings)


def _is_gradio_closing(message) -> bool:
    """Gradio's client logs the abort of its own event stream when a page is reloaded or left."""
    return message.text.startswith("AbortError: ") and "/assets/" in message.location.get("url", "")


def _is_lost(text: str) -> bool:
    return any(part in text for part in ("ERR_CONNECTION", "ERR_INCOMPLETE", "Connection errored", "EventSource"))


def _is_expected(page, error) -> bool:
    return page.expect_network_errors and ("Failed to fetch" in str(error) or _is_lost(str(error)))
