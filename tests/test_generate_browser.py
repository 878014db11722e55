"""The Generate page's long run in a real Chromium: which photos, how, and what it tells meanwhile and afterwards."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.generate_job import run_facts
from app.server import create_app
from app.worker import JobProgress, run_job
from db.jobs import claim, heartbeat
from db.models import FewShotSet, ImageClass, Job, JobState, SourceImage, Split
from db.workspace import Workspace
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from tests.browser import serve
from tests.conftest import write_photos

pytestmark = pytest.mark.browser
WORKER = "test:1:1"


@pytest.fixture
def url(workspace: Workspace, tmp_path):
    write_photos(tmp_path / "photos", 6)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.TRAIN))
    with workspace.write() as session:
        session.add_all(FewShotSet(shots=4, seed=seed, content_hash=str(seed) * 64, summary={}) for seed in (1, 2))
    with serve(create_app(workspace)) as address:
        yield address


def open_form(page, url: str) -> None:
    page.goto(f"{url}/#generate")
    page.wait_for_selector("#run-start", state="visible", timeout=20_000)
    page.click("#run-more button")
    page.wait_for_selector("#run-batch", state="visible")


def choose_photos(page, label: str) -> None:
    page.click("#run-photos input")
    page.click(f"#run-photos [role=option]:has-text('{label}'), [role=option]:has-text('{label}')")


def newest_job(workspace: Workspace) -> Job | None:
    with workspace.read() as session:
        return session.scalar(select(Job).order_by(Job.id.desc()))


def test_every_field_goes_into_the_job(chromium_page, url, workspace):
    page = chromium_page
    open_form(page, url)
    for field, text, said in (
        ("#run-batch", "2.5", "Images at once: give a whole number"),
        ("#run-batch", "many", "Images at once: 'many' is not a number"),
        ("#run-classes", "n01440764, owl", "'owl' is neither a wnid nor an index"),
    ):
        page.fill(f"{field} :is(input, textarea)", text)
        page.click("#run-start")
        page.wait_for_selector(f"#run-message [role=alert] >> text={said}")
        page.fill(f"{field} :is(input, textarea)", "")
    assert newest_job(workspace) is None
    choose_photos(page, "Few-shot set 2: 4 shots, seed 2")
    page.fill("#run-classes :is(input, textarea)", "n01440764, 7")
    page.fill("#run-batch :is(input, textarea)", "16")
    page.fill("#run-limit :is(input, textarea)", "5")
    for box in ("#run-missing", "#run-low-memory", "#run-compile"):
        page.check(f"{box} input")
    page.click("#run-start")
    page.wait_for_selector("#run-message [role=status] >> text=makes the candidates")
    params = newest_job(workspace).params
    assert {name: value for name, value in params.items() if name != "options"} == {
        "limit": 5,
        "classes": [0, 7],
        "redo_failed": False,
        "only_missing": True,
        "split": None,
        "fewshot_set": 2,
        "low_memory": True,
        "batch": 16,
        "compile": True,
    }


def test_an_untouched_form_asks_for_all(chromium_page, url, workspace):
    page = chromium_page
    page.goto(f"{url}/#generate")
    page.wait_for_selector("#run-start", state="visible", timeout=20_000)
    page.click("#run-start")
    page.wait_for_selector("#run-message [role=status]")
    params = newest_job(workspace).params
    assert params["batch"] == "auto" and params["options"]["masker"] == "embedded_cam"
    assert not any(params[name] for name in params if name not in ("batch", "options"))


def test_a_run_tells_its_own_rate_and_afterwards_what_it_did(chromium_page, url, workspace):
    page = chromium_page
    options = {"masker": "noop", "inpainter": "noop", "scorer": "noop"}
    params = {"options": vars(RecipeOptions(**options)), "low_memory": True, "batch": 2}
    with workspace.write() as session:
        session.add(Job(kind="generate", params=params))
    with workspace.write() as session:
        job = claim(session, WORKER)
        words = "2.0 images/s, about 8 min left, GPU memory 10.0 of 140 GiB (at most 11.5); 30 candidate"
        heartbeat(session, job.id, WORKER, done=30, total=990, message=words)
    page.goto(f"{url}/#generate")
    page.wait_for_selector(f"#run-jobs >> text={words}", timeout=20_000)
    # The average since the start would contradict it.
    assert page.inner_text("#run-jobs .job-facts") == "30 of 990"
    assert not page.is_visible("#run-last section")
    state = run_job(workspace, job, WORKER, JobProgress(workspace, job.id, WORKER))
    assert state is JobState.DONE
    page.wait_for_selector("#run-last >> text=mask; inpaint and score", timeout=10_000)
    assert "took" in page.inner_text("#run-jobs .job-facts")
    shown = page.inner_text("#run-last")
    for name, value in run_facts(newest_job(workspace).result):
        assert name.lower() in shown.lower() and value in shown
    assert "job 1" in shown and "6" in shown


def test_a_run_of_an_older_version_still_shows(chromium_page, url, workspace):
    result = {"recipe": "0" * 64, "states": {}, "made": 1234, "busy_seconds": {"mask": 90.2, "write": 0.1}}
    with workspace.write() as session:
        session.add(Job(kind="generate", params={}, state=JobState.DONE, result=result))
        assert session.query(SourceImage).count() == 6 and session.query(ImageClass).count() == 1000
    chromium_page.goto(f"{url}/#generate")
    chromium_page.wait_for_selector("#run-last >> text=1,234", timeout=20_000)
    assert run_facts(result) == [("Photos", "1,234"), ("Work by stage", "mask 2 min")]


def test_facts_of_a_run_on_a_gpu():
    result = {
        "made": 50_000,
        "seconds": 3600.0,
        "images_per_s": 13.889,
        "passes": [],
        "busy_seconds": {"mask": 3000.0},
        "gpu": {"name": "NVIDIA H200", "allocated": 0, "peak": 60 << 30, "total": 140 << 30},
        "tuning": {"detector": {"batch": 16, "from": "probe"}, "scorer": {"batch": 32, "from": "recorded"}},
    }
    assert run_facts(result) == [
        ("Photos", "50,000"),
        ("Time", "1 h 0 min"),
        ("Rate", "13.9 images/s"),
        ("GPU memory", "at most 60.0 of 140 GiB, NVIDIA H200"),
        ("Images at once", "detector 16, scorer 32"),
        ("Work by stage", "mask 50 min"),
    ]
