"""The mask editor in a real Chromium: painted, grown from scribbles, made again by the worker's handler, judged."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import select

from app import media_routes
from app.server import create_app
from app.worker import JobProgress, run_job, worker_name
from db import jobs
from db.models import Candidate, Split
from generation.pipeline import generate
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from tests.browser import running
from tests.conftest import write_photos
from tests.review_page import SEEN, delivered, open_review, shows, standing

pytestmark = pytest.mark.browser


@pytest.fixture
def candidates(workspace, tmp_path) -> list[Candidate]:
    write_photos(tmp_path / "photos", 2)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.VAL))
    generate(workspace, RecipeOptions(masker="noop", inpainter="noop", scorer="noop"))
    with workspace.read() as session:
        return list(session.scalars(select(Candidate).order_by(Candidate.id)))


@pytest.fixture
def worker(workspace):
    """Runs waiting jobs until the test ends, as the worker process does."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            with workspace.write() as session:
                job = jobs.claim(session, worker_name())
            if job is not None:
                run_job(workspace, job, worker_name(), JobProgress(workspace, job.id, worker_name()))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def drag(page, points: list[tuple[float, float]]) -> None:
    """Along points given as shares of the photo."""
    place = page.evaluate(
        "() => { const c = document.querySelector('.mask-editor canvas'), b = c.getBoundingClientRect();"
        " const s = Math.min(b.width / c.width, b.height / c.height);"
        " const x = b.left + (b.width - c.width * s) / 2, y = b.top + (b.height - c.height * s) / 2;"
        " return [x, y, c.width * s, c.height * s] }"
    )
    left, top, width, height = place
    for number, (x, y) in enumerate(points):
        page.mouse.move(left + x * width, top + y * height, steps=4)
        if number == 0:
            page.mouse.down()
    page.mouse.up()


def stored_mask(workspace, candidate_id: int) -> np.ndarray:
    with workspace.read() as session:
        folder = session.get_one(Candidate, candidate_id).folder
    return np.asarray(Image.open(workspace.path(folder) / "mask.png"))


def newest(workspace) -> Candidate:
    with workspace.read() as session:
        return session.scalar(select(Candidate).order_by(Candidate.id.desc()))


@pytest.fixture
def slow_results(monkeypatch):
    """Results take their time to arrive, as over a slow line."""
    serve_file = media_routes._file

    def slow(workspace, relative, *rest):
        if relative.endswith("result.png"):
            time.sleep(0.7)
        return serve_file(workspace, relative, *rest)

    monkeypatch.setattr(media_routes, "_file", slow)


def test_a_mask_is_painted_and_the_candidate_made_again(workspace, candidates, worker, slow_results, chromium_page):
    page = chromium_page
    old = candidates[0]
    with running(lambda: create_app(workspace)) as server:
        open_review(page, server.url)
        shows(page, old.id)
        page.keyboard.press("e")
        page.wait_for_function("() => document.querySelector('.mask-status')?.textContent.includes('Paint over')")
        page.keyboard.press("a")  # a verdict's key judges nothing while the editor is open
        drag(page, [(0.05, 0.05), (0.3, 0.05)])
        page.keyboard.press("u")
        drag(page, [(0.05, 0.9), (0.4, 0.9)])
        page.get_by_role("button", name="Make again").click()
        page.wait_for_function("() => !document.querySelector('.mask-editor').open", timeout=20_000)
        new = newest(workspace)
        assert (new.parent_id, new.version) == (old.id, 2)
        shows(page, new.id)
        before, after = stored_mask(workspace, old.id), stored_mask(workspace, new.id)
        height, width = before.shape
        assert after[round(height * 0.9), round(width * 0.2)] == 255, "what was painted"
        assert before[round(height * 0.9), round(width * 0.2)] == 0
        assert after[round(height * 0.05), round(width * 0.15)] == 0, "what was undone"
        assert np.all(after[before == 255] == 255), "what was there before"
        assert page.evaluate(SEEN), "its result was there before it was shown, so no key is lost"
        page.keyboard.press("a")
        delivered(page)
        assert standing(workspace) == {new.id: "accept"}
        shows(page, candidates[1].id)


def test_scribbles_grow_and_a_refusal_is_said(workspace, candidates, worker, chromium_page):
    page = chromium_page
    page.expect_network_errors = True  # Chromium logs the 422 that the page shows as a sentence
    with running(lambda: create_app(workspace)) as server:
        open_review(page, server.url)
        page.keyboard.press("e")
        page.wait_for_function("() => document.querySelector('.mask-status')?.textContent.includes('Paint over')")
        assert page.locator("[data-mask-action=click]").is_hidden(), "no weights, no clicks"
        page.keyboard.press("w")
        page.wait_for_function("() => document.querySelector('.mask-status').textContent.includes('Mark some')")
        page.keyboard.press("o")
        drag(page, [(0.4, 0.4), (0.6, 0.6)])
        page.keyboard.press("k")
        drag(page, [(0.02, 0.02), (0.98, 0.02)])
        page.keyboard.press("w")
        page.wait_for_function("() => document.querySelector('.mask-status').textContent.includes('Grown')")
        page.keyboard.press("Escape")
        assert newest(workspace).version == 1
