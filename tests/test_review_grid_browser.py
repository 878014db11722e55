"""The review page's grid in a real Chromium: a page of candidates at a time, through the same outbox and routes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from sqlalchemy import select

from app.server import create_app
from db.models import Decision, Lease, Via
from tests.browser import browser_context, running, synthetic_candidates
from tests.review_page import (
    SHEET_SEEN,
    current,
    decisions,
    delivered,
    look_at_sheet,
    on_sheet,
    open_grid,
    open_review,
    press,
    standing,
)

pytestmark = pytest.mark.browser

SHEET = 24


@pytest.fixture
def server(workspace):
    with running(lambda: create_app(workspace)) as started:
        yield started


def accepts(ids: list[int]) -> list[tuple[int, str, list[str]]]:
    return [(candidate, "accept", []) for candidate in ids]


def next_sheet(page, first: int) -> None:
    page.wait_for_function(
        "(id) => document.querySelector('.sheet .tile')?.dataset.candidate === String(id)", arg=first
    )
    look_at_sheet(page)


def leased(workspace) -> set[int]:
    with workspace.read() as session:
        return set(session.scalars(select(Lease.candidate_id)))


def wait_until(true: Callable[[], bool], page) -> None:
    for _ in range(400):
        if true():
            return
        page.wait_for_timeout(50)
    raise AssertionError("It did not come true within 20 s.")


def test_a_page_is_accepted_but_for_two(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 30, size=32)
    open_grid(page, server.url)
    assert on_sheet(page) == ids[:SHEET]
    assert page.evaluate("document.documentElement.scrollHeight <= innerHeight"), "a page fits the screen"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Space")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("4")
    page.keyboard.press("Shift+Digit5")
    marked = page.locator(".sheet [aria-selected=true]")
    assert [tile.get_attribute("aria-label") for tile in marked.all()] == [
        "goldfish, to be rejected · unsuitable",
        "tench, to be rejected · another id object · artefact",
    ]
    assert page.inner_text(".grid-controls .plan") == "Accept 22, reject 2"
    page.keyboard.press("Enter")
    next_sheet(page, ids[SHEET])
    assert "22 accepted, 2 rejected" in page.inner_text(".status-text")
    delivered(page)
    with workspace.read() as session:
        rows = list(session.scalars(select(Decision).order_by(Decision.id)))
    assert [row.candidate_id for row in rows] == ids[:SHEET], "an event each, in order"
    assert {row.via for row in rows} == {Via.GRID}
    rejected = {row.candidate_id: row.reasons for row in rows if row.verdict == "reject"}
    assert rejected == {ids[1]: ["unsuitable"], ids[9]: ["other_id_object", "artefact"]}
    # the last page, by pointer: a click marks with the last reason, another takes the mark off
    page.click(f".tile[data-candidate='{ids[25]}']")
    page.click(f".tile[data-candidate='{ids[26]}']")
    page.click(f".tile[data-candidate='{ids[26]}']")
    page.click(".grid-controls [data-action=send]")
    page.wait_for_selector(".empty h3:has-text('Everything here is reviewed')")
    delivered(page)
    assert decisions(workspace)[SHEET:] == [
        (candidate, *(("reject", ["other_id_object", "artefact"]) if candidate == ids[25] else ("accept", [])))
        for candidate in ids[SHEET:]
    ]


def test_undo_and_redo_of_one_and_of_a_page(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 30, size=32)
    open_grid(page, server.url)
    page.keyboard.press("2")
    page.keyboard.press("Enter")
    next_sheet(page, ids[SHEET])
    page.keyboard.press("Shift+U")
    next_sheet(page, ids[0])
    assert page.inner_text(".grid-controls .plan") == "Accept 23, reject 1", "marked as it was"
    delivered(page)
    assert standing(workspace) == {}
    page.keyboard.press("Shift+Y")
    next_sheet(page, ids[SHEET])
    delivered(page)
    assert standing(workspace) == {ids[0]: "reject"} | dict.fromkeys(ids[1:SHEET], "accept")
    page.keyboard.press("u")
    next_sheet(page, ids[0])
    page.keyboard.press("u")
    assert page.inner_text(".grid-controls .plan") == "Accept 2, reject 0"
    page.keyboard.press("y")
    assert page.inner_text(".grid-controls .plan") == "Accept 1, reject 0"
    delivered(page)
    assert set(ids[:SHEET]) - set(standing(workspace)) == {ids[23]}
    # the page is remembered over a reload, and so is the grid
    page.reload()
    page.wait_for_selector(".sheet .tile")
    assert on_sheet(page) == ids[23:]
    page.keyboard.press("Shift+U")
    page.wait_for_function("document.querySelectorAll('.sheet .tile').length === 24")
    delivered(page)
    assert standing(workspace) == {}


def test_nothing_is_lost_or_doubled_when_the_server_dies_and_the_page_is_reloaded(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 60, size=32)
    open_grid(page, server.url)
    page.wait_for_selector(".progress-text >> text=of 60 reviewed")
    page.expect_network_errors = True
    server.stop()
    page.keyboard.press("6")
    page.keyboard.press("Enter")
    page.wait_for_selector(".status.trouble >> text=24 verdicts waiting: the server does not answer")
    server.start()
    delivered(page)
    first = [(ids[0], "reject", ["wrong_mask"]), *accepts(ids[1:SHEET])]
    assert decisions(workspace) == first
    # An answer that is lost: the same events are sent again, and are stored once.
    look_at_sheet(page)
    lost = []

    def lose(route) -> None:
        lost.append(route.fetch().status)
        route.abort()

    page.route("**/api/review/decisions", lose, times=1)
    page.keyboard.press("Enter")
    page.wait_for_selector(".status.trouble >> text=24 verdicts waiting")
    page.reload()
    page.wait_for_selector(".sheet .tile")
    assert on_sheet(page) == ids[2 * SHEET :], "what waits is not shown again"
    delivered(page)
    assert lost == [200]
    assert decisions(workspace) == [*first, *accepts(ids[SHEET : 2 * SHEET])]


def test_an_unseen_tile_is_not_judged(workspace, server, chromium_page):
    page = chromium_page
    page.expect_network_errors = True
    ids = synthetic_candidates(workspace, 5, size=32)
    held = []
    page.route(f"**/media/candidate/{ids[2]}/*/result.png", lambda route: held.append(route))
    page.goto(f"{server.url}/#review")
    page.wait_for_selector(".slide.on")
    page.keyboard.press("g")
    page.wait_for_selector(".sheet .tile")
    page.wait_for_timeout(1000)
    page.keyboard.press("Enter")
    assert "1 image has not arrived yet" in page.inner_text(".status-text")
    page.focus(f".tile[data-candidate='{ids[2]}']")
    page.keyboard.press("1")
    assert "has not been shown yet" in page.inner_text(".status-text")
    for route in held:
        route.abort()
    page.wait_for_selector(f".tile.broken[data-candidate='{ids[2]}']")
    page.keyboard.press("Enter")
    page.wait_for_selector(".status-text >> text=1 was left open: the image is missing")
    delivered(page)
    assert decisions(workspace) == accepts([candidate for candidate in ids if candidate != ids[2]])


def test_a_sheet_that_has_just_come_up_is_not_judged(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 30, size=32)
    open_grid(page, server.url)
    page.keyboard.press("Enter")
    page.keyboard.press("Enter")
    assert "only just come up" in page.inner_text(".status-text")
    delivered(page)
    assert decisions(workspace) == accepts(ids[:SHEET])


def test_one_and_grid_are_two_views_of_the_same_list(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 10, size=32)
    open_review(page, server.url)
    press(page, "a")
    page.keyboard.press("g")
    page.wait_for_function(SHEET_SEEN)
    assert on_sheet(page) == ids[1:]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("x")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("x")
    page.keyboard.press("z")
    assert current(page) == ids[2]
    press(page, "s")
    page.keyboard.press("g")
    page.wait_for_function(SHEET_SEEN)
    assert page.inner_text(".grid-controls .plan") == "Accept 7, reject 1", "one mark is kept, one was judged alone"
    page.hover(f".tile[data-candidate='{ids[5]}']")
    source = page.locator(f".tile[data-candidate='{ids[5]}'] .tile-source")
    page.wait_for_function("(image) => getComputedStyle(image).opacity === '1'", arg=source.element_handle())
    page.keyboard.down("f")
    assert "sources" in page.get_attribute(".sheet", "class")
    page.keyboard.up("f")
    assert "sources" not in page.get_attribute(".sheet", "class")
    look_at_sheet(page)
    page.keyboard.press("Enter")
    delivered(page)
    rejected = {ids[3]: "reject", ids[2]: "skip"}
    assert standing(workspace) == dict.fromkeys(ids, "accept") | rejected


def test_two_tabs_are_not_given_the_same_candidates(workspace, server, chromium):
    ids = synthetic_candidates(workspace, 150, size=16)
    context = browser_context(chromium)
    elsewhere = context.new_page()
    elsewhere.goto(f"{server.url}/#build")
    elsewhere.wait_for_selector("#page-build .page-head", state="visible")
    pages = [context.new_page(), context.new_page()]
    for page in pages:
        open_review(page, server.url)
    assert current(pages[0]) == ids[0], "who does not look at the page holds nothing"
    assert current(pages[1]) not in ids[:25]
    elsewhere.close()
    held_by_the_second = current(pages[1])
    pages[0].close()
    wait_until(lambda: ids[0] not in leased(workspace), pages[1])
    third = context.new_page()
    open_review(third, server.url)
    assert current(third) == ids[0], "a closed tab gives back what it held"
    assert current(pages[1]) == held_by_the_second
    context.close()


def test_typing_marks_nothing_and_a_phone_can_use_it(workspace, server, chromium):
    ids = synthetic_candidates(workspace, 26, size=32)
    context = browser_context(chromium, viewport={"width": 390, "height": 844}, has_touch=True)
    page = context.new_page()
    open_grid(page, server.url)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.click("[data-opens=more]")
    page.focus("[name=residual_min]")
    page.keyboard.type("x 1")
    page.keyboard.press("Enter")
    page.fill("[name=residual_min]", "")
    page.keyboard.press("Escape")
    assert page.locator(".sheet [aria-selected=true]").count() == 0
    page.tap(f".tile[data-candidate='{ids[4]}']")
    box = page.locator(".grid-controls [data-action=send]").bounding_box()
    assert box["y"] + box["height"] <= 844, "what ends the page is in reach without scrolling"
    look_at_sheet(page)
    page.click(".grid-controls [data-action=send]")
    delivered(page)
    assert standing(workspace) == dict.fromkeys(ids[:SHEET], "accept") | {ids[4]: "reject"}
    context.close()
