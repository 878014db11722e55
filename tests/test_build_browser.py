"""Build and Export in a real Chromium, by keyboard: what-if, freeze, compare, export with options, check."""

from __future__ import annotations

import hashlib

import pytest
from sqlalchemy import select

from app.server import create_app
from db.models import Build, Candidate, Job
from tests.browser import serve, synthetic_candidates
from tests.test_pages_browser import open_page, run_waiting_jobs, tab_to

pytestmark = pytest.mark.browser

PICTURES_SEEN = """(place) => {
  const pictures = [...document.querySelectorAll(`${place} img`)];
  pictures[0]?.scrollIntoView();
  return pictures.length > 0 && pictures[0].complete && pictures[0].naturalWidth > 0;
}"""


@pytest.fixture
def url(workspace):
    """45 candidates with drops 0, 0.5, ..., 22 and the sums of their files."""
    synthetic_candidates(workspace, 45, size=32)
    with workspace.write() as session:
        for candidate in session.scalars(select(Candidate)):
            content = (workspace.root / candidate.folder / "result.png").read_bytes()
            candidate.result_sha256 = hashlib.sha256(content).hexdigest()
    with serve(create_app(workspace)) as address:
        yield address


def freeze_as(page, name: str, note: str = "") -> None:
    page.fill("#build-name input", name)
    page.fill("#build-note input", note)
    tab_to(page, "#build-freeze")
    page.keyboard.press("Enter")
    page.wait_for_selector(f"#build-message >> text=Frozen as {name}-v1")


def test_a_rule_is_tried_frozen_compared_and_exported(chromium_page, workspace, url):
    page = chromium_page
    open_page(page, url, "build")
    page.wait_for_selector("#build-members >> text=A sample of 24 of the 45 members")
    freeze_as(page, "bg", "everything so far")
    page.wait_for_selector("#build-list >> text=everything so far")

    # a threshold by the slider alone: the number follows, and so does everything below
    page.focus("#build-drop input[type=range]")
    for _ in range(10):
        page.keyboard.press("ArrowRight")
    assert page.input_value("#build-drop input[type=text]") == "5"
    page.wait_for_selector("#build-members >> text=of the 34 members")
    page.wait_for_selector("#build-members .threshold", state="attached")
    page.wait_for_selector("#build-changes >> text=Leaves: 11 of 11")
    page.wait_for_function(PICTURES_SEEN, arg="#build-changes")
    assert "3 of 3 classes have members; 11 to 12 a class, median 11." in page.inner_text("#build-members")
    page.select_option("#build-against select", "build:bg-v1")
    page.wait_for_selector("#build-members >> text=Against bg-v1 (45 images)")
    assert page.is_checked("#build-preset input[value=custom]")

    # an expression that cannot be read is marked where it stops, and what was shown stays
    page.fill("#build-where textarea", "class in ('tench') and dorp > 3")
    page.wait_for_selector("#build-where mark >> text=dorp")
    assert "there is no field 'dorp'" in page.inner_text("#build-where-fault")
    assert page.get_attribute("#build-where textarea", "aria-invalid") == "true"
    page.fill("#build-where textarea", "class in ('tench')")
    page.wait_for_selector("#build-members >> text=of the 11 members")
    assert page.is_hidden("#build-where-fault")
    page.fill("#build-area-min input[type=text]", "a lot")
    page.wait_for_selector("#build-area-min-fault >> text=is not a number")
    page.fill("#build-area-min input[type=text]", "")
    page.wait_for_selector("#build-area-min-fault", state="hidden")
    freeze_as(page, "tench")
    with workspace.read() as session:
        assert [(build.name, build.item_count) for build in session.scalars(select(Build))] == [
            ("bg", 45),
            ("tench", 11),
        ]

    page.click("#page-build button:text-is('Compare')")
    page.wait_for_selector("#build-compared >> text=From bg-v1 to tench-v1")
    assert page.locator("#build-compared tr:has-text('Left') .number").first.inner_text() == "34"
    page.wait_for_function(PICTURES_SEEN, arg="#build-compared")

    export_by_keyboard(page, url, workspace)


def export_by_keyboard(page, url: str, workspace) -> None:
    open_page(page, url, "export")
    page.wait_for_selector("#export-facts >> text=11 images of tench-v1")
    page.focus("#export-formats input[value=imagefolder]")
    assert page.is_hidden("#page-export label:has-text('JPEG quality')")
    page.focus("#page-export .options select")
    page.keyboard.press("j")
    page.get_by_label("JPEG quality").fill("80")
    tab_to(page, "#export-start")
    page.keyboard.press("Enter")
    page.wait_for_selector("#export-message >> text=exports tench-v1")
    with workspace.read() as session:
        options = session.scalar(select(Job).where(Job.kind == "export")).params["options"]
    assert (options["images"], options["quality"], options["id_side"]) == ("jpeg", 80, False)
    run_waiting_jobs(workspace)
    page.wait_for_selector("#export-archives >> text=imagenet-tench-v1-jpeg80.zip")
    page.focus("#export-archives button")
    page.keyboard.press("Enter")
    page.wait_for_selector("#export-message >> text=checks imagenet-tench-v1-jpeg80.zip")
    run_waiting_jobs(workspace)
    page.wait_for_selector("#export-archives >> text=in order")
    with page.expect_download() as download:
        page.click("#export-archives a[download]")
    assert download.value.suggested_filename == "imagenet-tench-v1-jpeg80.zip"
    # only the options that a format has are shown
    page.focus("#export-formats input[value=imagefolder]")
    page.keyboard.press("ArrowDown")
    page.wait_for_selector("#page-export label:has-text('Kaggle: owner')")
    assert page.is_hidden("#page-export label:has-text('the ID side')")
