"""The review page in a real Chromium: every verdict given by key reaches the database once, come what may."""

from __future__ import annotations

import random
from uuid import uuid4

import pytest

from app.server import create_app
from db.models import Candidate, Role, User
from review.decisions import record
from review.events import DecisionEvent
from review.overlap import Overlap, save_overlap
from tests.browser import browser_context, running, synthetic_candidates
from tests.review_page import SEEN, current, decisions, delivered, open_review, press, shows, standing

pytestmark = pytest.mark.browser

REASON_KEYS = {"1": "object_left", "4": "other_id_object", "6": "wrong_mask"}


@pytest.fixture
def server(workspace):
    with running(lambda: create_app(workspace)) as started:
        yield started


def test_a_whole_queue_by_keyboard(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 12)
    open_review(page, server.url)
    press(page, "a", "r", "1", "Shift+R", "s", "u", "a")
    assert current(page) == ids[4]
    press(page, "r", "Shift+Digit2", "Shift+Digit5", "Enter", "r", "Escape", "7", "a")
    assert current(page) == ids[6]
    press(page, "ArrowLeft", "ArrowLeft")
    assert page.inner_text(".board .badge") == "Rejected · Part left · Artefact"
    press(page, "r", "6")
    assert current(page) == ids[6], "back where one was"
    press(page, *"aaaaaa")
    page.wait_for_selector(".empty h3:has-text('Everything here is reviewed')")
    delivered(page)
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
    assert page.inner_text(".review-root .progress-text").startswith("12 of 12 reviewed")


def test_two_hundred_decisions_with_undo_and_redo(workspace, server, chromium_page):
    """Keys drawn at random; what the database must hold in the end is worked out here, key by key."""
    page = chromium_page
    ids = synthetic_candidates(workspace, 180, size=24)
    open_review(page, server.url)
    rng = random.Random(4)
    done: list[tuple[int, str, list[str]]] = []
    undone: list[tuple[int, str, list[str]]] = []
    expected: list[tuple[int, str, list[str]]] = []
    while len(expected) < 200:
        here = ids[len(done)]  # undone ones are judged again before those that come after them
        assert current(page) == here
        key = rng.choices(["a", "r", "s", "u", "y"], weights=[10, 4, 2, 3, 3])[0]
        if key == "u" and done:
            undone.append(done.pop())
            expected.append((undone[-1][0], "undo", []))
        elif key == "y" and undone:
            done.append(undone.pop())
            expected.append(done[-1])
        elif key in "ars":
            digit = rng.choice(list(REASON_KEYS))
            verdict = {"a": "accept", "r": "reject", "s": "skip"}[key]
            done.append((here, verdict, [REASON_KEYS[digit]] if key == "r" else []))
            undone.clear()
            expected.append(done[-1])
        else:
            continue
        press(page, *((key, digit) if key == "r" else (key,)))
    delivered(page)
    assert decisions(workspace) == expected
    assert standing(workspace) == {candidate: verdict for candidate, verdict, _ in done}
    assert page.inner_text(".review-root .progress-text").startswith(f"{len(done)} of 180 reviewed")


def test_typing_and_other_pages_do_not_vote(workspace, server, chromium_page):
    page = chromium_page
    synthetic_candidates(workspace, 4)
    open_review(page, server.url)
    before = current(page)
    page.click("[data-opens=more]")
    page.focus("[name=drop_min]")
    page.keyboard.type("asu")
    page.focus("[data-action=close-popover]")
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    assert not page.is_visible("[data-popover=more]")
    page.click("[data-opens=views]")
    page.focus(".views-save [name=name]")
    page.keyboard.type("sure")
    page.keyboard.press("Escape")
    page.focus("[name=state]")
    page.keyboard.press("Tab")
    page.keyboard.press("s")
    page.keyboard.press("Escape")
    page.keyboard.press("Control+a")
    page.keyboard.press("h")
    page.wait_for_selector(".drawer[open]")
    page.keyboard.press("a")
    page.keyboard.press("Escape")
    page.click(".site-head nav a[href='#build']")
    page.wait_for_selector("#build-drop :is(input, textarea)", state="visible")
    page.keyboard.press("a")
    page.fill("#build-drop :is(input, textarea)", "1")
    page.click(".site-head nav a[href='#review']")
    page.wait_for_selector(".slide.on", state="visible")
    assert current(page) == before
    delivered(page)
    assert decisions(workspace) == []
    page.evaluate("document.activeElement.blur()")
    page.evaluate("""document.dispatchEvent(new KeyboardEvent('keydown', {key: 'a', code: 'KeyA', repeat: true}))""")
    press(page, "a")
    delivered(page)
    assert decisions(workspace) == [(before, "accept", [])]


def test_nothing_is_lost_or_doubled_when_the_server_dies(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 12)
    open_review(page, server.url)
    page.wait_for_function("document.querySelectorAll('.slide').length === 11")
    page.wait_for_function("[...document.querySelectorAll('.pane-result img')].every((i) => i.naturalWidth > 0)")
    page.wait_for_selector(".progress-text >> text=of 12 reviewed")
    press(page, "a", "a", "s")
    delivered(page)
    page.expect_network_errors = True
    server.stop()
    press(page, "a", "r", "3", "u", "y", "u", "a")
    page.wait_for_selector(".status.trouble >> text=6 verdicts waiting: the server does not answer")
    server.start()
    delivered(page)
    shadow = (ids[4], "reject", ["shadow_or_reflection"])
    expected = [
        *((ids[number], verdict, []) for number, verdict in enumerate(("accept", "accept", "skip", "accept"))),
        *(shadow, (ids[4], "undo", []), shadow, (ids[4], "undo", []), (ids[4], "accept", [])),
    ]
    assert decisions(workspace) == expected
    # What waits survives a reload, is not shown again, and can be undone and redone after it.
    page.route("**/api/review/decisions", lambda route: route.abort())
    press(page, "s")
    page.reload()
    page.wait_for_selector(".slide.on")
    assert current(page) == ids[6]
    press(page, "u", "y", "u")
    assert current(page) == ids[5]
    page.unroute("**/api/review/decisions")
    delivered(page)
    skip, undo = (ids[5], "skip", []), (ids[5], "undo", [])
    assert decisions(workspace) == [*expected, skip, undo, skip, undo]
    assert ids[5] not in standing(workspace)


def test_a_new_browser_undoes_and_redoes_what_the_server_knows(workspace, server, chromium):
    ids = synthetic_candidates(workspace, 3)
    first = browser_context(chromium)
    page = first.new_page()
    open_review(page, server.url)
    press(page, "a", "r", "2")
    delivered(page)
    first.close()
    server.stop()
    server.start()
    second = browser_context(chromium)
    page = second.new_page()
    open_review(page, server.url)
    assert current(page) == ids[2]
    for key, shown in (("u", ids[1]), ("u", ids[0]), ("y", ids[1]), ("y", ids[2])):
        press(page, key)
        page.wait_for_function(
            "(id) => document.querySelector('.slide.on').dataset.candidate === String(id)", arg=shown
        )
        delivered(page)
    press(page, "y")
    page.wait_for_selector(".status-text >> text=There is nothing to redo.")
    accept, reject = (ids[0], "accept", []), (ids[1], "reject", ["part_left"])
    undone = [(ids[1], "undo", []), (ids[0], "undo", [])]
    assert decisions(workspace) == [accept, reject, *undone, accept, reject]
    second.close()


def test_the_history_opens_by_key_and_gives_the_focus_back(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 2)
    open_review(page, server.url)
    press(page, "r", "5", "u", "a")
    delivered(page)
    press(page, "ArrowLeft")
    assert current(page) == ids[0]
    page.focus(".single-controls [data-action=flicker]")
    page.keyboard.press("h")
    page.wait_for_selector(".drawer[open] .timeline li:nth-child(3)")
    titles = page.eval_on_selector_all(".drawer .timeline strong", "all => all.map((one) => one.textContent)")
    assert titles == ["Rejected · Artefact", "Taken back", "Accepted"]
    assert page.get_attribute(".drawer .timeline li >> nth=0", "class") == "undone"
    assert page.evaluate("document.querySelector('.drawer').contains(document.activeElement)")
    page.keyboard.press("Escape")
    assert not page.is_visible(".drawer")
    assert page.evaluate("document.activeElement.dataset.action") == "flicker"


def test_filters_chips_and_saved_views(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 9)
    open_review(page, server.url)
    page.select_option("[name=order]", "residual")
    page.select_option("[name=class_index]", label="goldfish (3)")
    shows(page, ids[1])
    page.click("[data-opens=more]")
    page.fill("[name=drop_min]", "1.5")
    page.fill("[name=area_max]", "40")
    page.click("[data-action=close-popover]")
    shows(page, ids[4])
    chips = page.locator(".chips button")
    assert chips.all_text_contents() == ["Drop ≥ 1.5×", "Area ≤ 40 %×", "goldfish×"]
    page.click("[data-opens=views]")
    page.fill(".views-save [name=name]", "${window.hacked = 1} <b>fish</b>")
    page.click(".views-save button")
    page.wait_for_selector(".views-list button:has-text('fish')")
    page.keyboard.press("Escape")
    chips.nth(2).click()
    shows(page, ids[3])
    chips.nth(0).click()
    shows(page, ids[0])
    page.reload()
    page.wait_for_selector(".slide.on")
    assert chips.all_text_contents() == ["Area ≤ 40 %×"], "a reload keeps the filter"
    page.click("[data-opens=views]")
    page.click(".views-list button:has-text('fish')")
    shows(page, ids[4])
    assert page.input_value("[name=order]") == "residual"
    assert len(chips.all()) == 3
    assert page.evaluate("window.hacked") is None
    page.click("[data-opens=views]")
    page.click(".views-list button:has-text('Delete')")
    page.wait_for_selector(".views-none", state="visible")
    page.keyboard.press("Escape")
    page.click("[data-opens=more]")
    page.fill("[name=drop_max]", "1")
    page.keyboard.press("Tab")
    assert page.evaluate("document.querySelector('[name=drop_max]').validity.customError"), "1.5 to 1 is refused"
    page.fill("[name=drop_max]", "100")
    page.select_option("[name=kind]", "texture")
    page.click("[data-action=close-popover]")
    page.wait_for_selector("text=No candidate matches this filter.")
    page.click(".empty [data-action=clear]")
    shows(page, ids[0])


def test_somebody_who_does_not_judge_blind_sees_everybody(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 4)
    with workspace.write() as session:
        ada = User(name="Ada", role=Role.ANNOTATOR)
        session.add(ada)
        session.flush()
        ada_id, shas = ada.id, [session.get(Candidate, number).result_sha256 for number in ids]
        # so that what Ada has judged is asked of others too
        save_overlap(session, Overlap(share=1.0, k=2))
    given = [(0, "reject", ["artefact"]), (1, "accept", [])]
    events = [DecisionEvent(str(uuid4()), said, ids[n], shas[n], why, elapsed_ms=2000) for n, said, why in given]
    record(workspace, events, ada_id)
    open_review(page, server.url)
    press(page, "a", "a")
    delivered(page)
    page.click("[data-opens=people]")
    page.wait_for_selector(".people tbody tr:nth-child(2)")
    rows = page.locator(".people tbody tr").all()
    assert [cell.inner_text() for cell in rows[0].locator("th, td").all()[:5]] == ["Ada", "1", "1", "0", "2.0"]
    assert "everybody 4 of 8" in page.inner_text(".review-root .progress-text")
    page.keyboard.press("Escape")
    page.select_option("[name=state]", "all")
    page.click("[data-opens=more]")
    page.check("[name=disagreement]")
    page.click("[data-action=close-popover]")
    page.wait_for_selector(".progress-text >> text=1 of 1 reviewed")
    page.wait_for_function(SEEN)
    assert current(page) == ids[0]
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("h")
    page.wait_for_selector(".drawer .timeline li:nth-child(2)")
    assert page.inner_text(".drawer .timeline li >> nth=0").startswith("Rejected · Artefact\nAda · ")
    page.keyboard.press("h")
    assert not page.is_visible(".drawer")


def test_buttons_views_and_zoom(workspace, server, chromium_page):
    page = chromium_page
    ids = synthetic_candidates(workspace, 3)
    open_review(page, server.url)
    for key, name, shown in (("f", "flicker", "flicker"), ("m", "mask", "no-mask")):
        pressed = page.get_attribute(f".single-controls [data-action={name}]", "aria-pressed")
        page.keyboard.press(key)
        assert shown in page.get_attribute(".stage", "class")
        assert page.get_attribute(f".single-controls [data-action={name}]", "aria-pressed") != pressed
    page.keyboard.press("?")
    assert page.is_visible(".legend")
    page.keyboard.press("Escape")
    assert not page.is_visible(".legend")

    box = page.evaluate("document.querySelector('.stage').getBoundingClientRect().toJSON()")
    result = page.locator(".slide.on .pane-result img").first
    scale = "(image) => image.getBoundingClientRect().width / image.naturalWidth"
    page.keyboard.press("z")
    level = page.inner_text(".single-controls .level")
    assert level.endswith(" %")
    assert result.evaluate(scale) == pytest.approx(int(level.removesuffix(" %")) / 100), "the image's own pixels"
    left = result.evaluate("(image) => image.getBoundingClientRect().left")
    page.keyboard.press("Shift+ArrowRight")
    assert result.evaluate("(image) => image.getBoundingClientRect().left") < left
    assert page.evaluate("document.querySelector('.stage').getBoundingClientRect().toJSON()") == box, "nothing moved"
    page.keyboard.press("Shift+Z")
    assert page.inner_text(".single-controls .level") == "fit"

    page.click("[data-action=accept]")
    shows(page, ids[1])
    page.wait_for_function(SEEN)
    page.click("[data-action=reject]")
    page.click(".reasons [data-reason=artefact]")
    page.wait_for_function(SEEN)
    page.click(".single-controls [data-action=skip]")
    page.wait_for_selector(".empty h3:has-text('Everything here is reviewed')")
    delivered(page)
    assert standing(workspace) == {ids[0]: "accept", ids[1]: "reject", ids[2]: "skip"}


def test_an_unseen_image_gets_no_verdict(workspace, server, chromium_page):
    page = chromium_page
    page.expect_network_errors = True
    ids = synthetic_candidates(workspace, 2)
    page.route(f"**/media/candidate/{ids[0]}/*/result.png", lambda route: route.abort())
    page.goto(f"{server.url}/#review")
    page.wait_for_selector(".slide.on .pane-result.broken")
    page.keyboard.press("a")
    assert "not been shown yet" in page.inner_text(".spoken")
    assert current(page) == ids[0]
    page.unroute(f"**/media/candidate/{ids[0]}/*/result.png")
    page.wait_for_function(SEEN)
    page.keyboard.press("a")
    delivered(page)
    assert decisions(workspace) == [(ids[0], "accept", [])]


def test_light_dark_and_as_the_system_says(workspace, server, chromium):
    context = browser_context(chromium, color_scheme="light")
    page = context.new_page()
    ground = "getComputedStyle(document.body).backgroundColor"
    page.goto(f"{server.url}/#review")
    page.wait_for_selector(".empty h3:has-text('Nothing to review yet.')")
    light = page.evaluate(ground)
    page.click(".theme-switch [data-theme=dark]")
    dark = page.evaluate(ground)
    assert dark != light
    page.reload()
    page.wait_for_selector(".theme-switch [data-theme=dark][aria-pressed=true]")
    page.wait_for_selector(".empty h3:has-text('Nothing to review yet.')")
    assert page.evaluate(ground) == dark, "the choice outlives a reload, whatever the system says"
    page.click(".theme-switch [data-theme=auto]")
    assert page.evaluate(ground) == light
    page.emulate_media(color_scheme="dark")
    page.wait_for_function(f"{ground} === '{dark}'")
    page.click(".theme-switch [data-theme=light]")
    assert page.evaluate(ground) == light
    context.close()


def test_empty_workspace_and_a_narrow_screen(workspace, server, chromium):
    context = browser_context(chromium, viewport={"width": 390, "height": 844})
    page = context.new_page()
    page.goto(f"{server.url}/#review")
    page.wait_for_selector(".empty h3:has-text('Nothing to review yet.')")
    assert "Generate" in page.inner_text(".empty p")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "no sideways scrolling"
    ids = synthetic_candidates(workspace, 2)
    page.click(".empty [data-action=reload]")
    page.wait_for_selector(".slide.on")
    page.wait_for_function(SEEN)
    page.click("[data-action=accept]")
    shows(page, ids[1])
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    box = page.locator("[data-action=accept]").bounding_box()
    assert box["y"] + box["height"] <= 844, "the verdicts are in reach without scrolling"
    context.close()
