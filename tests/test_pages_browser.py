"""The pages in a real Chromium: empty and full, by keyboard alone, light and dark, wide and narrow."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
from sqlalchemy import select

from app.server import create_app
from app.worker import JobProgress, run_job
from db.jobs import claim, heartbeat
from db.models import Build, Candidate, Job, JobState, Outcome, SourceImage, State
from db.queries import active_recipe
from tests.browser import browser_context, serve, synthetic_candidates
from tests.conftest import write_photos

pytestmark = pytest.mark.browser

PAGES = ("overview", "sources", "generate", "review", "build", "export")
WORKER = "test:1:1"


@pytest.fixture
def url(workspace):
    with serve(create_app(workspace)) as address:
        yield address


def open_page(page, url: str, name: str = "overview") -> None:
    page.goto(f"{url}/#{name}")
    page.wait_for_selector(f"#page-{name} .page-head, #page-{name} .review-root", state="visible", timeout=20_000)


def go(page, name: str) -> None:
    """To another page by keyboard: the header's link, then Enter."""
    page.focus(f".site-head nav a[href='#{name}']")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#page-{name} .page-head, #page-{name} .review-root", state="visible")


def tab_to(page, selector: str, *, limit: int = 60) -> None:
    """Press Tab until the element (or one inside it) has the focus and shows it."""
    for _ in range(limit):
        page.keyboard.press("Tab")
        if page.evaluate("(s) => !!document.activeElement.closest(s)", selector):
            break
    else:
        raise AssertionError(f"{selector} is out of reach of the Tab key.")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle !== 'none'"), (
        f"{selector}: no focus ring"
    )


def run_waiting_jobs(workspace) -> None:
    while True:
        with workspace.write() as session:
            job = claim(session, WORKER)
        if job is None:
            return
        run_job(workspace, job, WORKER, JobProgress(workspace, job.id, WORKER))


def wait_for_job(page, workspace, kind: str) -> Job:
    for _ in range(100):
        with workspace.read() as session:
            job = session.scalar(select(Job).where(Job.kind == kind).order_by(Job.id.desc()))
        if job is not None:
            return job
        page.wait_for_timeout(50)
    raise AssertionError(f"No {kind} job was made.")


def populate(workspace, count: int = 45) -> list[int]:
    ids = synthetic_candidates(workspace, count, size=48)
    with workspace.write() as session:
        recipe = active_recipe(session)
        for source in session.scalars(select(SourceImage)):
            content = (Path(source.root) / source.path).read_bytes()
            source.sha256, source.bytes = hashlib.sha256(content).hexdigest(), len(content)
        for candidate in session.scalars(select(Candidate)):
            outcome = {"state": State.CANDIDATE, "candidate_id": candidate.id}
            session.add(Outcome(source_id=candidate.source_id, recipe_id=recipe.id, **outcome))
    return ids


def test_the_page_asked_for_opens_however_late_its_script_comes(chromium_page, url):
    """Gradio may have drawn everything by then, and change nothing more."""
    page = chromium_page
    held = []
    page.route("**/static/app.js", lambda route: held.append(route))
    page.goto(f"{url}/#build", wait_until="commit")
    page.wait_for_selector("#page-overview .page-head", state="visible", timeout=20_000)
    page.wait_for_timeout(1_000)
    held[0].continue_()
    page.wait_for_selector("#page-build .page-head", state="visible", timeout=20_000)
    assert page.get_attribute(".site-head nav a[aria-current]", "href") == "#build"


def test_every_page_says_what_to_do_when_there_is_nothing(chromium_page, url):
    open_page(chromium_page, url)
    expected = {
        "overview": "Import labelled photos",
        "sources": "Import the demo photos",
        "generate": "Nothing tried yet",
        "review": "candidate",
        "build": "Go to Generate",
        "export": "Go to Build",
    }
    for name in PAGES:
        go(chromium_page, name)
        chromium_page.wait_for_selector(f"#page-{name} >> text={expected[name]}", timeout=10_000)
        assert chromium_page.get_attribute(f".site-head nav a[href='#{name}']", "aria-current") == "page"
    chromium_page.reload()
    chromium_page.wait_for_selector("#export-nothing", state="visible", timeout=20_000)


def test_from_import_to_export_by_keyboard(chromium_page, url, workspace, tmp_path):
    page = chromium_page
    photos = write_photos(tmp_path / "photos", 6)
    open_page(page, url)
    tab_to(page, ".next-step a")
    page.keyboard.press("Enter")
    page.wait_for_selector("#import-root", state="visible")

    # a folder that does not exist is refused with what to do, and nothing is enqueued
    tab_to(page, "#import-root")
    page.keyboard.type("/no/such/folder")
    tab_to(page, "#import-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#import-message [role=alert] >> text=check the spelling")
    page.focus("#import-root :is(input, textarea)")
    page.keyboard.press("Control+A")
    page.keyboard.type(str(photos))
    tab_to(page, "#import-start")
    page.keyboard.press("Enter")
    wait_for_job(page, workspace, "import")
    page.wait_for_selector("#import-jobs .job[data-state=queued]")
    run_waiting_jobs(workspace)
    page.wait_for_selector("#import-summary >> text=6 added", timeout=10_000)
    page.wait_for_selector("#sources-grid li:nth-child(6)")
    page.wait_for_function("document.querySelector('#sources-grid img').naturalWidth > 0")

    go(page, "generate")
    tab_to(page, "#run-limit")
    page.keyboard.type("3")
    tab_to(page, "#run-start")
    page.keyboard.press("Enter")
    params = wait_for_job(page, workspace, "generate").params
    assert params["limit"] == 3 and params["options"]["dilation"] == 15
    page.wait_for_selector("#run-jobs .job[data-state=queued]")
    tab_to(page, "#run-jobs .cancel")
    page.keyboard.press("Enter")
    page.wait_for_selector("#run-jobs .job[data-state=cancelled]")

    # what the generation would have made
    with workspace.write() as session:
        session.query(SourceImage).delete()
    populate(workspace, 12)

    go(page, "build")
    tab_to(page, "#build-preset")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#build-members >> text=with a drop above 5")
    page.wait_for_selector("#build-members .threshold", state="attached")
    tab_to(page, "#build-freeze")
    page.keyboard.press("Enter")
    page.wait_for_selector("#build-message >> text=Frozen as bg_s-v1 with 1 image.")

    go(page, "export")
    page.wait_for_function("document.querySelector('#export-build select').value.startsWith('bg_s-v1')")
    tab_to(page, "#export-start")
    page.keyboard.press("Enter")
    assert wait_for_job(page, workspace, "export").params["out"] == str(workspace.root / "archives")
    page.wait_for_selector("#export-message [role=status]")


def test_progress_is_live_survives_a_reload_and_can_be_cancelled(chromium_page, url, workspace):
    page = chromium_page
    populate(workspace, 3)
    with workspace.write() as session:
        job = Job(kind="generate", params={})
        session.add(job)
    with workspace.write() as session:
        claim(session, WORKER)
        heartbeat(session, job.id, WORKER, done=20, total=80, message="inpaint: ${window.hacked = 1}<b>")
    open_page(page, url, "generate")
    page.wait_for_selector("#run-jobs >> text=20 of 80")
    with workspace.write() as session:
        heartbeat(session, job.id, WORKER, done=40)
    page.wait_for_selector("#run-jobs >> text=40 of 80")
    page.wait_for_selector("#run-jobs >> text=inpaint: ${window.hacked = 1}<b>")
    page.wait_for_timeout(500)
    page.reload()
    page.wait_for_selector("#run-jobs >> text=40 of 80", timeout=20_000)
    assert page.get_attribute("#run-jobs progress", "value") == "40"
    page.focus("#run-jobs .cancel")
    page.keyboard.press("Enter")
    page.wait_for_selector("#run-jobs >> text=Stopping")
    with workspace.write() as session:
        assert session.get(Job, job.id).cancel_requested
        session.get(Job, job.id).state = JobState.CANCELLED
        source = session.get(SourceImage, 1)
        session.add(
            SourceImage(
                **{
                    k: getattr(source, k)
                    for k in ("split", "root", "path", "sha256", "bytes", "width", "height", "class_index")
                },
                name="late",
            )
        )
    page.wait_for_selector("#run-jobs .job[data-state=cancelled]")
    # the end of a job brings the page's other parts up to date
    page.wait_for_selector("#run-states tfoot >> text=4")
    assert page.evaluate("window.hacked") is None


def test_names_from_files_are_shown_and_never_run(chromium_page, url, workspace):
    populate(workspace, 3)
    name = "evil ${window.hacked = 1} {{window.hacked = 1}} `x` <img src=x onerror=window.hacked=1>"
    with workspace.write() as session:
        session.get(SourceImage, 2).name = name
        skipped = [{"path": name, "code": "unreadable", "message": name}]
        result = {"found": 1, "added": 0, "already_there": 0, "skipped": skipped}
        session.add(Job(kind="import", params={}, state=JobState.DONE, result=result))
    open_page(chromium_page, url, "sources")
    chromium_page.wait_for_selector("#sources-grid li")
    assert name in chromium_page.inner_text("#sources-grid")
    assert name in chromium_page.inner_text("#import-summary")
    assert chromium_page.evaluate("window.hacked") is None


def test_photos_are_paged(chromium_page, url, workspace):
    page = chromium_page
    populate(workspace)
    open_page(page, url, "sources")
    page.wait_for_selector("#sources-grid li:nth-child(40)")
    page.click("#sources-forward")
    page.wait_for_function("document.querySelectorAll('#sources-grid li').length === 5")
    page.click("#sources-back")
    page.wait_for_selector("#sources-grid li:nth-child(40)")
    page.fill("#sources-class :is(input, textarea)", "tench")
    page.press("#sources-class :is(input, textarea)", "Enter")
    page.wait_for_function("document.querySelectorAll('#sources-grid li').length === 15")


def test_the_rule_is_shown_at_once_and_frozen_once(chromium_page, url, workspace):
    page = chromium_page
    populate(workspace)
    open_page(page, url, "build")
    page.wait_for_selector("#build-members >> text=A sample of 24 of the 45 members")
    page.click("#build-drop :is(input, textarea)")
    page.keyboard.type("10")
    page.wait_for_selector("#build-members >> text=of the 24 members")
    assert page.is_checked("#build-preset input[value=custom]")
    go(page, "export")
    go(page, "build")
    page.wait_for_timeout(500)
    assert page.input_value("#build-drop :is(input, textarea)") == "10"
    page.wait_for_selector("#build-members >> text=of the 24 members")
    page.fill("#build-name :is(input, textarea)", "Not A Name")
    page.expect_network_errors = True
    page.click("#build-freeze")
    page.wait_for_selector("#build-message [role=alert] >> text=lower-case")
    page.expect_network_errors = False
    page.fill("#build-name :is(input, textarea)", "pure")
    page.click("#build-freeze")
    page.wait_for_selector("#build-message >> text=Frozen as pure-v1 with 24 images")
    page.click("#build-freeze")
    page.wait_for_selector("#build-message >> text=nothing new was frozen")
    page.wait_for_selector("#build-list >> text=pure-v1")
    with workspace.read() as session:
        assert [build.item_count for build in session.scalars(select(Build))] == [24]


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 800, "dark"), (390, 844, "light")])
def test_nothing_is_cut_off(chromium, url, workspace, width, height, scheme):
    populate(workspace, 12)
    context = browser_context(chromium, viewport={"width": width, "height": height}, color_scheme=scheme)
    page = context.new_page()
    open_page(page, url)
    assert page.evaluate("document.body.classList.contains('dark')") is (scheme == "dark")
    for name in PAGES:
        go(page, name)
        page.wait_for_timeout(300)
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
    context.close()


@pytest.mark.parametrize("visit", range(3))
def test_a_reloaded_build_page_starts_from_the_whole_preset(workspace, url, chromium_page, visit):
    """An empty bound must mean none, also to the first event, which comes while the page is loading."""
    synthetic_candidates(workspace, 3)
    page = chromium_page
    page.goto(f"{url}/#build")
    page.reload()
    rule = page.locator("#build-members .rule")
    rule.wait_for()
    page.wait_for_timeout(1500)
    assert rule.inner_text() == "Every background candidate of the val sources that no annotator rejects."
