"""A mask corrected: by the function, through the routes and the job, and what it leaves of the old version."""

from __future__ import annotations

import base64
import io

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from PIL import Image
from sqlalchemy import select

from app.jobs import find_handler
from app.review_routes import review_router
from app.worker import JobProgress, run_job, worker_name
from db import jobs
from db.models import Candidate, Job, JobState, Outcome, Split
from db.progress import NoProgress
from db.queries import ensure_user
from exports.builds import freeze
from exports.rules import Rule
from generation.backends import load_backends
from generation.correction import CorrectionRefused, correct_mask
from generation.masking.scribbles import NoScribble, grow_from_scribbles
from generation.pipeline import generate
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from review.decisions import record
from review.events import DecisionEvent
from tests.conftest import write_photos

OPTIONS = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")


@pytest.fixture
def made(workspace, tmp_path):
    """A workspace with two candidates of the no-op backends."""
    write_photos(tmp_path / "photos", 2)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.VAL))
    generate(workspace, OPTIONS)
    return workspace


@pytest.fixture(scope="module")
def backends():
    return load_backends(OPTIONS)


def first(workspace) -> Candidate:
    with workspace.read() as session:
        return session.scalar(select(Candidate).order_by(Candidate.id))


def block(candidate: Candidate, x: int = 10, y: int = 20, side: int = 60) -> np.ndarray:
    mask = np.zeros((candidate.height, candidate.width), np.uint8)
    mask[y : y + side, x : x + side] = 255
    return mask


def png(array: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def test_a_correction_is_a_new_version_and_the_old_one_stays(made, backends):
    old = first(made)
    with made.write() as session:
        user = ensure_user(session).id
    event = DecisionEvent(
        uuid="1" * 32, verdict="reject", candidate_id=old.id, result_sha256=old.result_sha256, reasons=("wrong_mask",)
    )
    record(made, [event], user)
    mask = block(old)
    answer = correct_mask(made, old.id, mask, backends, corrected_by="Ada")
    with made.read() as session:
        new = session.get_one(Candidate, answer.candidate_id)
        assert session.get_one(Outcome, (old.source_id, old.recipe_id)).candidate_id == new.id
    assert (new.version, new.parent_id, new.recipe_id, new.variant) == (2, old.id, old.recipe_id, 0)
    assert new.details == {"corrected_by": "Ada"}
    folder, before = made.path(new.folder), made.path(old.folder)
    assert np.array_equal(np.asarray(Image.open(folder / "mask.png")), mask)
    raw, result = (np.asarray(Image.open(folder / name)) for name in ("raw.png", "result.png"))
    dilated = np.asarray(Image.open(folder / "dilated.png")) != 0
    assert np.array_equal(raw[~dilated], result[~dilated])
    assert not np.array_equal(raw[dilated], result[dilated])
    assert (before / "result.png").is_file()
    build = freeze(made, "all", Rule()).build
    assert build.item_count == 2  # the old version's reject stays with it; the new one counts


def test_what_cannot_be_corrected_is_said(made, backends):
    old = first(made)
    for mask, says in (
        (np.zeros((old.height, old.width), np.uint8), "covers 0.00%"),
        (np.full((old.height, old.width), 255, np.uint8), "more than"),
        (np.zeros((3, 3), np.uint8), "3x3"),
        (np.asarray(Image.open(made.path(old.folder) / "mask.png")), "the one there was"),
    ):
        with pytest.raises(CorrectionRefused, match=says):
            correct_mask(made, old.id, mask, backends, corrected_by="Ada")
    with pytest.raises(CorrectionRefused, match="no candidate 999"):
        correct_mask(made, 999, block(old), backends, corrected_by="Ada")
    correct_mask(made, old.id, block(old), backends, corrected_by="Ada")
    with pytest.raises(CorrectionRefused, match="made again meanwhile"):
        correct_mask(made, old.id, block(old, 40), backends, corrected_by="Ada")
    other = load_backends(RecipeOptions(masker="noop", inpainter="telea", scorer="noop"))
    with made.read() as session:
        newest = session.scalar(select(Candidate).order_by(Candidate.id.desc()))
    with pytest.raises(CorrectionRefused, match="other models"):
        correct_mask(made, newest.id, block(old, 40), other, corrected_by="Ada")


@pytest.fixture
def client(made):
    with made.write() as session:
        user = ensure_user(session).id
    app = FastAPI()
    app.include_router(review_router(made, lambda: user))
    return TestClient(app)


def run_waiting_job(workspace) -> Job:
    with workspace.write() as session:
        job = jobs.claim(session, worker_name())
    assert run_job(workspace, job, worker_name(), JobProgress(workspace, job.id, worker_name())) is JobState.DONE
    return job


def test_the_routes_make_the_candidate_again(made, client):
    old = first(made)
    url = f"/api/review/masks/{old.id}"
    asked = client.post(url, json={"mask": png(block(old)), "result_sha256": old.result_sha256}).json()
    assert asked["state"] == "queued"
    assert client.get(f"/api/review/masks/jobs/{asked['id']}").json()["candidate"] is None
    run_waiting_job(made)
    answer = client.get(f"/api/review/masks/jobs/{asked['id']}").json()
    assert answer["state"] == "done"
    assert answer["candidate"]["version"] == 2
    assert answer["candidate"]["id"] != old.id
    assert not list(made.path("cache/corrections").glob("*.png"))


def test_scribbles_grow_over_the_object(made, client):
    old = first(made)
    on, off = block(old, 90, 90, 20), block(old, 0, 0, 30)
    url = f"/api/review/masks/{old.id}/grow"
    answer = client.post(url, json={"mask": png(block(old, 80, 80)), "on": png(on), "off": png(off)})
    grown = np.asarray(Image.open(io.BytesIO(base64.b64decode(answer.json()["mask"]))))
    assert grown[on != 0].min() == 255
    assert grown[off != 0].max() == 0


def test_bad_requests_get_a_sentence(made, client):
    old = first(made)
    url = f"/api/review/masks/{old.id}"
    good = png(block(old))
    for path, body, status, says in (
        (url, {"mask": "no base64!", "result_sha256": old.result_sha256}, 422, "no PNG"),
        (url, {"mask": png(np.zeros((4, 4), np.uint8)), "result_sha256": old.result_sha256}, 422, "4x4"),
        (url, {"mask": good, "result_sha256": "x"}, 409, "another image"),
        ("/api/review/masks/999", {"mask": good, "result_sha256": "x"}, 404, "no candidate"),
        (f"{url}/clicks", {"clicks": [{"x": 9999.0, "y": 1.0, "on": True}]}, 422, "outside"),
        (f"{url}/clicks", {"clicks": []}, 422, "clicks"),
        (
            f"{url}/grow",
            {"mask": png(block(old) * 0), "on": png(block(old) * 0), "off": png(block(old) * 0)},
            422,
            "Mark",
        ),
    ):
        answer = client.post(path, json=body)
        assert answer.status_code == status, says
        assert says in answer.json()["error"]
    assert client.get("/api/review/masks/jobs/1").status_code == 404
    assert client.get("/api/review/masks/tools").json() == {"sam": False}


def test_scribbles_are_repeatable_and_need_a_mark():
    draw = np.random.default_rng(0)
    image = draw.integers(0, 60, (64, 64, 3), dtype=np.uint8)
    image[16:48, 16:48] += 150
    none = np.zeros((64, 64), np.uint8)
    on, off = none.copy(), none.copy()
    on[28:36, 28:36] = 255
    off[:6] = 255
    grown = grow_from_scribbles(image, none, on, off)
    assert np.array_equal(grown, grow_from_scribbles(image, none, on, off))
    inside = np.zeros((64, 64), bool)
    inside[16:48, 16:48] = True
    assert (grown != 0)[inside].mean() > 0.9
    assert (grown != 0)[~inside].mean() < 0.1
    with pytest.raises(NoScribble, match="first"):
        grow_from_scribbles(image, none, none, none)
    with pytest.raises(NoScribble, match="both"):
        grow_from_scribbles(image, none, none, off)


def test_a_click_job_answers_with_sams_mask(made, tmp_path, monkeypatch):
    from generation.masking.sam import SamSegmenter
    from generation.masking.sam_click import SamClick
    from tests.tiny_models import TINY_SAM, build_tiny_sam, tiny_sam

    monkeypatch.setitem(__import__("segment_anything").sam_model_registry, TINY_SAM, build_tiny_sam)
    weights = tiny_sam(tmp_path / "sam.pth")
    click = SamClick(SamSegmenter(weights, variant=TINY_SAM, device="cpu"))
    monkeypatch.setattr("app.jobs.masks._sam_click", lambda: click)
    old = first(made)
    params = {"candidate_id": old.id, "clicks": [[30.0, 40.0, True]]}
    answer = find_handler("sam_click")(made, params, NoProgress())
    mask = np.asarray(Image.open(made.path(answer["mask"])))
    assert mask.shape == (old.height, old.width)
    assert set(np.unique(mask)) <= {0, 255}
