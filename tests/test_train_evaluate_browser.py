"""Train and Evaluate in a real Chromium: from the form to the curves, from the tables to a shortcut map."""

from __future__ import annotations

import threading

import pytest

from app.server import create_app
from app.worker import JobProgress, run_job, worker_name
from db import jobs
from db.workspace import open_workspace
from ospcoop.evaluation.tables import results
from ospcoop.runs import epochs_of, find_run
from tests.browser import running
from tests.evaluation_material import evaluation_material
from tests.training_material import tiny_encoder

pytestmark = pytest.mark.browser

NEW_RUN = "ospcoop-embedded-dual-s1"
PATIENCE_MS = 30_000


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """Everything that is trained and evaluated on, and every encoder the tiny CLIP of random weights."""
    monkeypatch.setattr("app.encoders.load_encoder", lambda *_args, **_options: tiny_encoder())
    workspace = open_workspace(evaluation_material(tmp_path))
    yield workspace
    workspace.close()


@pytest.fixture
def worker(opened):
    """Runs waiting jobs until the test ends, as the worker process does."""
    stop = threading.Event()

    def work() -> None:
        while not stop.wait(0.1):
            with opened.write() as session:
                job = jobs.claim(session, worker_name())
            if job is not None:
                run_job(opened, job, worker_name(), JobProgress(opened, job.id, worker_name()))

    thread = threading.Thread(target=work)
    thread.start()
    yield
    stop.set()
    thread.join()


def legend(page, title: str) -> str:
    return (
        page.locator("figure.chart", has=page.get_by_role("heading", name=title, exact=True))
        .locator(".legend")
        .inner_text()
    )


def train(page, url: str, workspace) -> None:
    page.goto(f"{url}/#train")
    page.locator("summary", has_text="New run").click()  # folded, as there is a run already
    plan = page.locator(".plan")
    plan.get_by_text("few-shot photos").wait_for()
    assert "pseudo-OOD backgrounds" in plan.inner_text() and "count as object throughout" in plan.inner_text()
    page.locator("[name=objective]").select_option("coop")
    plan.get_by_text("16 images, 4 classes.").wait_for()
    assert "pseudo-OOD" not in plan.inner_text(), "CoOp takes the photos alone"
    page.locator("[name=objective]").select_option("ospcoop")
    page.locator("[name=id_augs]").check()
    assert page.locator("[name=epochs]").input_value() == "20", "the published number with ID augmentations"
    page.locator("[name=id_augs]").uncheck()
    page.locator("[name=epochs]").fill("3")
    page.locator("[name=batch_size]").fill("8")
    page.get_by_text("All other hyper-parameters").click()
    page.locator("[name=n_ctx]").fill("4")
    page.get_by_text("3 values differ from the published: epochs, batch size, n ctx.").wait_for()
    page.get_by_role("button", name="Start training").click()
    row = page.locator(".runs tr", has=page.get_by_role("button", name=NEW_RUN, exact=True))
    row.get_by_text("Done").wait_for(timeout=PATIENCE_MS)
    page.get_by_text("3 epochs done").wait_for()
    with workspace.read() as session:
        epochs = epochs_of(session, find_run(session, NEW_RUN).id)
    page.reload()  # what is drawn comes from the database
    chart = page.get_by_role("img", name="Losses")
    chart.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    said = legend(page, "Losses")
    assert "epoch 2" in said and "cross entropy" in said and "local entropy" in said
    loss = epochs[1].metrics["loss"]
    assert f"{loss:.4g}" in said
    chart.hover(position={"x": 2, "y": 80})
    assert "epoch 1" in legend(page, "Losses")
    page.get_by_role("button", name="first", exact=True).click()
    page.get_by_text("2 epochs done").wait_for()


def evaluate(page, url: str, workspace) -> None:
    page.goto(f"{url}/#evaluate")
    page.get_by_text("No result yet").wait_for()
    page.locator("input[value=first]").check()
    page.get_by_text("at least 20 results").wait_for()
    page.get_by_role("button", name="Evaluate", exact=True).click()
    rows = page.locator(".results tbody tr")
    rows.first.wait_for(timeout=PATIENCE_MS)
    assert rows.count() == 20 and page.locator(".results strong").count() > 0
    assert "far too few" in page.locator(".sentences").inner_text()
    average = page.get_by_role("region", name="Average of the classic four")
    assert average.locator("tbody tr").count() == 4
    with workspace.read() as session:
        highest = max(row.metrics["auroc"].value for row in results(session))
    page.get_by_role("button", name="AUROC ↑").click()
    assert rows.first.inner_text().count(f"{100 * highest:.2f}") >= 1
    assert page.locator("th[aria-sort=descending]").inner_text().startswith("AUROC")
    with page.expect_download() as saved:
        page.get_by_role("link", name="CSV").click()
    assert saved.value.suggested_filename == "results.csv"
    page.locator("select[name=filter_set]").select_option("bg-v1")
    page.get_by_role("button", name="Show MCM on bg-v1, first").click()
    page.get_by_text("AUROC", exact=False).and_(page.locator("figcaption")).first.wait_for()
    assert page.locator("figure.chart:visible").count() == 4, "scores, ROC, reliability, backgrounds and photos"
    assert "Backgrounds that score below their photo" in page.locator(".figures").last.inner_text()
    page.locator("summary", has_text="Classes").click()
    page.get_by_role("region", name="By class").get_by_text("tench (n01440764)").wait_for()


def shortcuts(page) -> None:
    page.locator(".gallery .pick").nth(1).click()
    chosen = page.locator(".gallery .pick[aria-pressed=true]").get_attribute("data-candidate")
    assert page.get_by_label("Candidate", exact=True).input_value() == chosen
    page.get_by_role("button", name="Make the map").click()
    panels = page.locator(".shortcut svg")
    panels.first.wait_for(timeout=PATIENCE_MS)
    assert panels.count() == 2 and panels.nth(1).locator("rect.outline").count() == 8
    rows, columns = tiny_encoder().local_grid
    assert panels.first.locator("rect:not(.outline)").count() == rows * columns
    with page.expect_download() as saved:
        page.get_by_role("link", name="Save as SVG").click()
    assert saved.value.suggested_filename == f"candidate-{chosen}-shortcuts.svg"


def test_from_the_form_of_a_run_to_a_shortcut_map(opened, worker, chromium_page):
    page = chromium_page
    with running(lambda: create_app(opened)) as server:
        train(page, server.url, opened)
        evaluate(page, server.url, opened)
        shortcuts(page)
