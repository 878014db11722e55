"""The review page in a real Chromium: every verdict given by key reaches the database once, come what may."""

from __future__ import annotations

import pytest
from sqlalchemy import select

from app.guard import Guard
from app.media_routes import media_router
from app.pages.review_page import review_page
from app.review_routes import review_router
from db.models import CurrentVerdict, Decision
from db.queries import ensure_user
from tests.browser import browser_context, gradio_app, running, synthetic_candidates

pytestmark = pytest.mark.browser

SEEN = (
    "() => { const i = document.querySelector('.slide.on .pane-result img'); return i?.complete && i.naturalWidth > 0 }"
)
DELIVERED = "() => !Object.keys(localStorage).some((key) => key.startsWith('imagenet-bg.outbox.'))"


def make_app(workspace):
    with workspace.write() as session:
        user = ensure_user(session).id

    def current_user() -> int:
        return user

    def build() -> None:
        import gradio as gr

        with gr.Tabs():
            with gr.Tab("Review"):
                review_page(workspace)
            with gr.Tab("Other"):
                gr.Textbox(label="A field")

    return gradio_app(build, [media_router(workspace, current_user), review_router(workspace, current_user)], Guard)


@pytest.fixture
def server(workspace):
    with running(lambda: make_app(workspace)) as started:
        yield started


def open_page(page, url: str) -> None:
    page.goto(url)
    page.wait_for_selector(".review-root .slide.on", timeout=20_000)
    page.wait_for_function(SEEN)


def current(page) -> int:
    return int(page.get_attribute(".slide.on", "data-candidate"))


def press(page, *keys: str) -> None:
    for key in keys:
        if page.query_selector(".slide.on"):
            page.wait_for_function(SEEN)
        page.keyboard.press(key)


def decisions(workspace) -> list[tuple[int, str, list[str]]]:
    with workspace.read() as session:
        rows = session.scalars(select(Decision).order_by(Decision.id))
        return [(row.candidate_id, row.verdict.value, row.reasons) for row in rows]


def standing(workspace) -> dict[int, str]:
    with workspace.read() as session:
        return {row.candidate_id: row.verdict.value for row in session.scalars(select(CurrentVerdict))}


def test_a_whole_queue_by_keyboard(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 12)
    open_page(page, server.url)
    press(page, "a", "r", "1", "Shift+R", "s", "u", "a")
    assert current(page) == ids[4]
    press(page, "r", "Shift+Digit2", "Shift+Digit5", "Enter", "r", "Escape", "7", "a")
    assert current(page) == ids[6]
    press(page, "ArrowLeft", "ArrowLeft")
    assert page.inner_text(".badge") == "Rejected · Part left · Artefact"
    press(page, "r", "6")
    assert current(page) == ids[6], "back where one was"
    press(page, *"aaaaaa")
    page.wait_for_selector(".empty h3:has-text('Everything here is reviewed')")
    page.wait_for_function(DELIVERED)
    assert decisions(workspace) == [
        (ids[0], "accept", []),
        (ids[1], "reject", ["object_left"]),
        (ids[2], "reject", ["object_left"]),
        (ids[3], "skip", []),
        (ids[3], "undo", []),
        (ids[3], "accept", []),
        (ids[4], "reject", ["part_left", "artefact"]),
        (ids[5], "accept", []),
        (ids[4], "reject", ["wrong_mask"]),
        *((candidate, "accept", []) for candidate in ids[6:]),
    ]
    assert page.inner_text(".progress-text").startswith("12 of 12 reviewed")


def test_typing_and_other_tabs_do_not_vote(workspace, server, chromium_page):
    page = chromium_page
    synthetic_candidates(workspace, 4)
    open_page(page, server.url)
    before = current(page)
    page.focus("[name=drop_min]")
    page.keyboard.type("asu")
    page.focus("[name=state]")
    page.keyboard.press("Tab")
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")
    page.get_by_role("tab", name="Other").click()
    page.keyboard.press("a")
    page.get_by_label("A field").fill("a")
    page.get_by_role("tab", name="Review").click()
    page.evaluate("document.activeElement.blur()")
    assert current(page) == before
    assert page.evaluate(DELIVERED)
    assert decisions(workspace) == []
    press(page, "a")
    page.wait_for_function(DELIVERED)
    assert decisions(workspace) == [(before, "accept", [])]


def test_nothing_is_lost_or_doubled_when_the_server_dies(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 12)
    open_page(page, server.url)
    page.wait_for_function("document.querySelectorAll('.slide').length === 11")
    page.wait_for_function("[...document.querySelectorAll('.pane-result img')].every((i) => i.naturalWidth > 0)")
    page.wait_for_function("document.querySelector('.progress-text').textContent.includes('12')")
    press(page, "a", "a", "s")
    page.wait_for_function(DELIVERED)
    page.expect_network_errors = True
    server.stop()
    press(page, "a", "r", "3", "u", "a")
    page.wait_for_selector(".status.trouble >> text=4 verdicts waiting: the server does not answer")
    server.start()
    page.wait_for_function(DELIVERED, timeout=20_000)
    expected = [
        *((ids[number], verdict, []) for number, verdict in enumerate(("accept", "accept", "skip", "accept"))),
        (ids[4], "reject", ["shadow_or_reflection"]),
        (ids[4], "undo", []),
        (ids[4], "accept", []),
    ]
    assert decisions(workspace) == expected
    # What waits survives a reload, is not shown again, and can be undone after it.
    page.route("**/api/review/decisions", lambda route: route.abort())
    open_page(page, server.url)
    press(page, "s")
    page.reload()
    page.wait_for_selector(".slide.on")
    assert current(page) == ids[6]
    press(page, "u")
    assert "Undo waits" in page.inner_text(".spoken")
    page.unroute("**/api/review/decisions")
    page.wait_for_function(DELIVERED, timeout=20_000)
    press(page, "u")
    page.wait_for_function(f"document.querySelector('.slide.on').dataset.candidate === '{ids[5]}'")
    page.wait_for_function(DELIVERED)
    assert decisions(workspace) == [*expected, (ids[5], "skip", []), (ids[5], "undo", [])]
    assert ids[5] not in standing(workspace)


def test_filter_buttons_and_views(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 6)
    open_page(page, server.url)
    page.select_option("[name=order]", "drop")
    page.select_option("[name=class_index]", label="goldfish (2)")
    page.wait_for_function(f"document.querySelector('.slide.on')?.dataset.candidate === '{ids[1]}'")
    page.evaluate("document.activeElement.blur()")
    page.wait_for_function(SEEN)
    for key, name, shown in (("f", "flicker", "flicker"), ("m", "mask", "no-mask"), ("z", "zoom", "zoom")):
        pressed = page.get_attribute(f"[data-action={name}]", "aria-pressed")
        page.keyboard.press(key)
        assert shown in page.get_attribute(".stage", "class")
        assert page.get_attribute(f"[data-action={name}]", "aria-pressed") != pressed
    page.keyboard.press("?")
    assert page.is_visible(".legend")
    page.keyboard.press("Escape")
    assert not page.is_visible(".legend")
    page.click("[data-action=accept]")
    page.wait_for_function(f"document.querySelector('.slide.on').dataset.candidate === '{ids[4]}'")
    page.wait_for_function(SEEN)
    page.click("[data-action=reject]")
    page.click("[data-reason=artefact]")
    page.wait_for_selector(".empty h3:has-text('Everything here is reviewed')")
    page.wait_for_function(DELIVERED)
    assert standing(workspace) == {ids[1]: "accept", ids[4]: "reject"}
    page.select_option("[name=kind]", "texture")
    page.wait_for_selector("text=No candidate matches this filter.")
    page.click("[data-action=clear]")
    page.wait_for_function(f"document.querySelector('.slide.on')?.dataset.candidate === '{ids[0]}'")


def test_an_unseen_image_gets_no_verdict(workspace, server, chromium_page):
    page = chromium_page
    page.expect_network_errors = True
    ids = synthetic_candidates(workspace, 2)
    page.route(f"**/media/candidate/{ids[0]}/*/result.png", lambda route: route.abort())
    page.goto(server.url)
    page.wait_for_selector(".slide.on .pane-result.broken")
    page.keyboard.press("a")
    assert "not been shown yet" in page.inner_text(".spoken")
    assert current(page) == ids[0]
    page.unroute(f"**/media/candidate/{ids[0]}/*/result.png")
    page.wait_for_function(SEEN)
    page.keyboard.press("a")
    page.wait_for_function(DELIVERED)
    assert decisions(workspace) == [(ids[0], "accept", [])]


def test_empty_workspace_and_a_narrow_screen(server, chromium):
    context = browser_context(chromium, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(server.url)
    page.wait_for_selector(".empty h3:has-text('Nothing to review yet.')")
    assert "Generate" in page.inner_text(".empty p")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
    context.close()
