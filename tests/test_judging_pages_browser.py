"""Adjudication, Agreement, Audit, Triage and Duplicates in a real Chromium, each used from its start to its end."""

from __future__ import annotations

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select

from app.accounts import passwords
from app.accounts.directory import add_account
from app.server import create_app
from db.models import (
    Adjudication,
    AuditJudgement,
    AutoVerdict,
    Candidate,
    CurrentVerdict,
    Decision,
    DuplicateMember,
    Role,
    TriageBand,
    User,
)
from db.workspace import Workspace
from exports.builds import freeze
from exports.rules import PRESETS
from review.audit_report import audit_report
from review.intervals import upper_bound
from tests.browser import browser_context, running, serve, synthetic_candidates
from tests.judged_material import say, user_id_of
from tests.review_page import delivered, open_review, press, shows
from tests.test_accounts_browser import PASSWORD, sign_in
from tests.test_pages_browser import run_waiting_jobs

pytestmark = pytest.mark.browser

PAGES = ("duplicates", "adjudication", "agreement", "triage", "audit")
ALL_ARRIVED = "#page-adjudication [data-waiting='0']"
ALL_RESULTS_SEEN = (
    "(count) => { const all = [...document.querySelectorAll('#page-adjudication .pane-result img:not(.flicker)')];"
    " return all.length === count && all.every((i) => i.complete && i.naturalWidth > 0) }"
)
RESULT_SEEN = (
    "(page) => { const i = document.querySelector(`#page-${page} .slide.on .pane-result img`);"
    " return i?.complete && i.naturalWidth > 0 }"
)


def open_page(page, url: str, name: str) -> None:
    """Open a page afresh, as with its address typed in."""
    page.goto(f"{url}/#{name}")
    page.reload()
    page.wait_for_selector(f"#page-{name} :is(.judging, #build-list)", state="visible", timeout=20_000)


def say_key(page, name: str, *keys: str) -> None:
    """Press keys once the candidate's result can be seen."""
    page.wait_for_function(RESULT_SEEN, arg=name)
    for key in keys:
        page.keyboard.press(key)


def wait_for_text(page, name: str, text: str) -> None:
    page.wait_for_selector(f"#page-{name} >> text={text}", timeout=20_000)


def rows(workspace: Workspace, model: type) -> list:
    with workspace.read() as session:
        return list(session.scalars(select(model)))


@pytest.fixture
def url(workspace):
    with serve(create_app(workspace)) as address:
        yield address


def test_two_annotators_with_overlap_disagree_and_one_word_is_final(chromium, chromium_page, workspace, monkeypatch):
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    ids = synthetic_candidates(workspace, 3, size=48)
    for name, role in (("Ada", Role.ADMIN), ("Ann", Role.ANNOTATOR), ("Bo", Role.ANNOTATOR)):
        add_account(workspace, name, PASSWORD, role)
    with running(lambda: create_app(workspace)) as server:
        page = chromium_page
        page.expect_network_errors = True
        sign_in(page, server, "Ada")
        page.wait_for_selector(".site-head nav a")
        open_page(page, server.url, "agreement")
        page.get_by_label("Share of the candidates").fill("100")
        page.get_by_role("button", name="Save").click()
        wait_for_text(page, "agreement", "The overlap is saved")

        said = {"Ann": ("a", "a", "a"), "Bo": ("a", "r2", "r1")}
        for name, verdicts in said.items():
            context = browser_context(chromium)
            other = context.new_page()
            sign_in(other, server, name)
            other.wait_for_selector(".site-head nav a")
            open_review(other, server.url)
            assert other.locator(".site-head nav a").all_inner_texts() == ["Review", "Duplicates"]
            for candidate, keys in zip(ids, verdicts, strict=True):
                shows(other, candidate)
                press(other, *keys)
            delivered(other)
            context.close()

        open_page(page, server.url, "adjudication")
        wait_for_text(page, "adjudication", "2 disagreements open")
        page.wait_for_function(RESULT_SEEN, arg="adjudication")
        opinions = page.locator("#page-adjudication .opinions li")
        assert sorted(opinions.evaluate_all("(all) => all.map((one) => one.dataset.verdict)")) == ["accept", "reject"]
        assert "Rejected · Part left" in "".join(opinions.all_inner_texts())
        assert "Ann" not in "".join(opinions.all_inner_texts())
        say_key(page, "adjudication", "a")
        wait_for_text(page, "adjudication", "1 disagreement open")
        say_key(page, "adjudication", "u")
        wait_for_text(page, "adjudication", "2 disagreements open")
        say_key(page, "adjudication", "r", "Shift+Digit2", "5")
        wait_for_text(page, "adjudication", "1 disagreement open")
        say_key(page, "adjudication", "a")
        wait_for_text(page, "adjudication", "Every disagreement is decided.")
        page.wait_for_selector(ALL_ARRIVED, state="attached")
        final = [(row.candidate_id, row.verdict.value, row.reasons) for row in rows(workspace, Adjudication)]
        assert final == [
            (ids[1], "accept", []),
            (ids[1], "undo", []),
            (ids[1], "reject", ["part_left", "artefact"]),
            (ids[2], "accept", []),
        ]
        open_page(page, server.url, "adjudication")
        wait_for_text(page, "adjudication", "No disagreement")

        # What they said stays, and is what agreement is measured on: 1 of 3 agreed.
        open_page(page, server.url, "agreement")
        wait_for_text(page, "agreement", "33.3 %")
        page.get_by_label("Candidate, by its id").fill(str(ids[0]))
        page.get_by_role("button", name="Add", exact=True).click()
        wait_for_text(page, "agreement", f"Candidate {ids[0]} is a gold item now.")
        accuracy = page.locator("#page-agreement table", has_text="Accuracy on gold items").locator("tbody tr")
        assert [row.split("\t")[:3] for row in accuracy.all_inner_texts()] == [["Ann", "1", "1"], ["Bo", "1", "1"]]
        page.get_by_role("button", name=f"Remove candidate {ids[0]}").click()
        wait_for_text(page, "agreement", "No gold item yet")


def test_an_audit_is_drawn_judged_to_the_end_and_stated(chromium_page, workspace, url):
    page = chromium_page
    synthetic_candidates(workspace, 30, size=48)
    freeze(workspace, "bg", PRESETS["bg"], created_by="local")
    open_page(page, url, "build")
    page.wait_for_selector("#build-list >> text=not audited")
    open_page(page, url, "audit")
    wait_for_text(page, "audit", "No audit yet")
    page.get_by_label("To state").fill("20")
    wait_for_text(page, "audit", "To state ≤ 20 % (95 %) you need 14.")
    page.get_by_role("button", name="Take this size").click()
    page.get_by_label("Divided by").select_option("none")
    page.get_by_label("Seed").fill("7")
    page.get_by_role("button", name="Draw the sample").click()
    wait_for_text(page, "audit", "Audit 1 is drawn: 14 images.")
    page.get_by_role("button", name="Judge audit 1").click()
    blind = page.locator("#page-audit .judge")
    for number in range(14):
        wait_for_text(page, "audit", f"{number} of 14 judged")
        say_key(page, "audit", "l" if number == 1 else "n")
        if number == 1:
            # A slip, taken back: the third judgement is the second one's correction.
            wait_for_text(page, "audit", "2 of 14 judged")
            say_key(page, "audit", "u")
            wait_for_text(page, "audit", "you said: object left")
            assert "drop" not in blind.inner_text().lower()
            say_key(page, "audit", "2")
            page.wait_for_selector("#page-audit .facts:not(:has-text('you said'))")
    bound = f"object left in <= {100 * upper_bound(1, 14):.1f} % (95 %): 1 of 14 judged at random"
    page.wait_for_selector(f"#page-audit .report >> text={bound}")
    with workspace.read() as session:
        assert audit_report(session, 1).statement == bound
    wait_for_text(page, "audit", "auditor-1 (14)")
    judgements = rows(workspace, AuditJudgement)
    assert len(judgements) == 15 and [row.reasons for row in judgements if row.object_left] == [[], ["part_left"]]
    page.get_by_role("button", name="Second reading of audit 1").click()
    wait_for_text(page, "audit", "Nothing is left for a second reading")
    open_page(page, url, "build")
    page.wait_for_selector(f"#build-list >> text={bound}")
    page.goto("about:blank")  # its thumbnails may still be loading


def test_triage_is_trained_and_bands_are_confirmed_and_revoked(chromium_page, workspace, url):
    page = chromium_page
    ids = synthetic_candidates(workspace, 120, size=32)
    open_page(page, url, "triage")
    wait_for_text(page, "triage", "No model yet")
    wait_for_text(page, "triage", "at least 20 accepted and 20 rejected")
    assert page.get_by_role("button", name="Train now").is_disabled()
    judged = {key: key >= ids[60] for key in ids if key % 4}
    say(workspace, judged, user_id_of(workspace))
    open_page(page, url, "triage")
    page.get_by_role("button", name="Train now").click()
    wait_for_text(page, "triage", "Training …")
    run_waiting_jobs(workspace)
    wait_for_text(page, "triage", "Model 1 is trained")
    for plot in ("Calibration", "Learning curve", "What it leans on", "How P(accept) is spread"):
        picture = page.get_by_role("img", name=plot)
        picture.wait_for()
        assert picture.locator("desc").text_content()
    wait_for_text(page, "triage", "No band to accept")
    page.get_by_label("Wrong accepts at most").fill("15")
    page.get_by_label("Wrong rejects at most").fill("15")
    page.get_by_role("button", name="Propose").click()
    wait_for_text(page, "triage", "Bands that could be confirmed")
    confirm = page.get_by_role("button", name="Confirm the bands")
    assert confirm.is_disabled() and not rows(workspace, TriageBand)
    page.get_by_label("I let the model decide these").check()
    confirm.click()
    wait_for_text(page, "triage", "Band 1 is in force.")
    auto = rows(workspace, AutoVerdict)
    assert auto and not {row.candidate_id for row in auto} & set(judged)
    wait_for_text(page, "triage", f"{sum(row.verdict == 'accept' for row in auto)} accepted")
    page.get_by_role("button", name="Revoke").click()
    wait_for_text(page, "triage", "Band 1 is revoked")
    wait_for_text(page, "triage", "No band is in force")
    assert not rows(workspace, AutoVerdict) and rows(workspace, TriageBand)[0].revoked_at


def test_duplicates_are_found_and_decided_once(chromium_page, workspace, url):
    page = chromium_page
    ids = synthetic_candidates(workspace, 6, size=48)
    far = 0x0F0F_0F0F_0F0F_0F0F
    with workspace.write() as session:
        for place, candidate in enumerate(session.scalars(select(Candidate).order_by(Candidate.id))):
            candidate.phash = f"{[0, 1, 3, far, far ^ 1, 0xFFFF_FFFF_0000_0000][place]:016x}"
    open_page(page, url, "duplicates")
    wait_for_text(page, "duplicates", "Nobody has searched yet")
    page.get_by_role("button", name="Find now").click()
    wait_for_text(page, "duplicates", "Searching")
    run_waiting_jobs(workspace)
    group = page.locator(f"#page-duplicates .group[data-group='{ids[0]}']")
    group.wait_for()
    assert {row.group_id for row in rows(workspace, DuplicateMember)} >= {ids[0], ids[3]}
    group.get_by_role("button", name="Reject all 3 as").click()
    group.locator(".tile[data-verdict='reject']").nth(2).wait_for()
    given = [(row.candidate_id, row.verdict.value, row.reasons, row.via.value) for row in rows(workspace, Decision)]
    assert given == [(key, "reject", ["unsuitable"], "duplicates") for key in ids[:3]]
    group.get_by_role("button", name="Accept").nth(1).click()
    group.locator(".tile[data-verdict='accept']").wait_for()
    standing = {row.candidate_id: row.verdict.value for row in rows(workspace, CurrentVerdict)}
    assert standing == {ids[0]: "accept", ids[1]: "reject", ids[2]: "reject"}
    # Undo goes back choice by choice: the single one, then the group's.
    group.focus()
    page.keyboard.press("u")
    group.locator(".tile[data-verdict='reject']").nth(2).wait_for()
    page.keyboard.press("u")
    group.locator(".tile[data-verdict='']").nth(2).wait_for()
    assert rows(workspace, CurrentVerdict) == []
    page.keyboard.press("ArrowDown")
    page.keyboard.press("a")
    page.locator(f"#page-duplicates .group[data-group='{ids[3]}'] .tile[data-verdict='accept']").nth(1).wait_for()
    page.get_by_label("only with some you have not judged").check()
    page.locator(f"#page-duplicates .group[data-group='{ids[3]}']").wait_for(state="detached")
    group.wait_for()


def test_a_final_word_is_kept_while_the_server_is_away(chromium_page, workspace):
    page = chromium_page
    page.expect_network_errors = True
    ids = synthetic_candidates(workspace, 4, size=48)
    for name, verdict in (("Ann", True), ("Bo", False)):
        say(workspace, dict.fromkeys(ids, verdict), user_id_of(workspace, name))
    with running(lambda: create_app(workspace)) as server:
        open_page(page, server.url, "adjudication")
        page.wait_for_function(ALL_RESULTS_SEEN, arg=len(ids))
        server.stop()
        page.keyboard.press("a")
        page.wait_for_selector("#page-adjudication [role=alert] >> text=sent again until it arrives")
        # The page goes on meanwhile: no key is dropped, and everything arrives in order.
        for key in ("a", "u", "r", "3", "a", "a"):
            page.keyboard.press(key)
        wait_for_text(page, "adjudication", "Every disagreement is decided.")
        assert rows(workspace, Adjudication) == []
        server.start()
        page.wait_for_selector(ALL_ARRIVED, state="attached", timeout=20_000)
        assert page.locator("#page-adjudication [role=alert]:visible").count() == 0
    given = [(row.candidate_id, row.verdict.value) for row in rows(workspace, Adjudication)]
    accepted = [(key, "accept") for key in ids]
    assert given == [*accepted[:2], (ids[1], "undo"), (ids[1], "reject"), *accepted[2:]]
    with workspace.read() as session:
        assert session.scalar(select(User.name).where(User.id == rows(workspace, Adjudication)[0].user_id)) == "local"


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_empty_pages_say_what_to_do_next_and_fit(chromium, url, width, scheme):
    context = browser_context(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    for name in PAGES:
        open_page(page, url, name)
        page.wait_for_selector(f"#page-{name} .empty-state")
        wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
        assert wider <= 0, f"{name} scrolls sideways by {wider} px"
    context.close()
