"""Accounts in a real Chromium: signing in with and without JavaScript, each role's pages, and being put out."""

from __future__ import annotations

from functools import partial

import pytest
from argon2 import PasswordHasher

from app import sign_in_routes
from app.accounts import passwords
from app.accounts.directory import add_account, list_accounts, set_active
from app.accounts.sessions import start_session
from app.accounts.sign_in import FREE_TRIES_BY_NAME, SignIn
from app.server import create_app
from db.models import Role
from tests.browser import browser_context, running, synthetic_candidates

pytestmark = pytest.mark.browser

PASSWORD = "correct horse battery"
HEADER_NAME = ".site-head .account a"


@pytest.fixture
def server(workspace, monkeypatch):
    """A server with an admin and an annotator, and some candidates."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=8, parallelism=1))
    synthetic_candidates(workspace, 6)
    add_account(workspace, "Ada", PASSWORD, Role.ADMIN)
    add_account(workspace, "Ann", PASSWORD, Role.ANNOTATOR)
    with running(lambda: create_app(workspace)) as started:
        yield started


def sign_in(page, server, name: str, password: str = PASSWORD) -> None:
    """By keyboard: the name's field has the focus."""
    page.goto(server.url)
    page.wait_for_function("document.activeElement.id === 'name'")
    page.keyboard.type(name)
    page.keyboard.press("Tab")
    page.keyboard.type(password)
    page.keyboard.press("Enter")


def row_of(page, name: str):
    return page.locator(".accounts tbody tr", has=page.locator("th", has_text=name))


def page_links(page) -> list[str]:
    page.wait_for_selector(f"{HEADER_NAME} >> visible=true", timeout=20_000)
    return page.locator(".site-head nav a").all_inner_texts()


def test_an_annotator_signs_in_sees_review_alone_and_signs_out(chromium_page, server):
    page = chromium_page
    page.expect_network_errors = True  # the browser notes the refused sign-in and, after it, the page that is left
    sign_in(page, server, "Ann", "not the password")
    page.wait_for_selector("[role=alert] >> text=do not belong together")
    assert page.input_value("#name") == "Ann"
    assert page.evaluate("document.activeElement.id") == "password"
    page.keyboard.type(PASSWORD)
    page.keyboard.press("Enter")
    assert page_links(page) == ["Review", "Duplicates"]
    assert page.inner_text(HEADER_NAME) == "Ann"
    page.wait_for_function("[...document.querySelectorAll('#page-review img')].some((img) => img.naturalWidth > 0)")
    assert "Ada" not in page.inner_text("body")
    # what the page does not offer, the server refuses
    statuses = page.evaluate(
        "Promise.all(['/api/jobs', '/api/accounts', '/download/1'].map(async (a) => (await fetch(a)).status))"
    )
    assert statuses == [403, 403, 403]
    page.click(".site-head .account button")
    page.wait_for_url("**/sign-in")
    page.goto(f"{server.url}/#review")
    page.wait_for_selector("#password")


def test_guessing_has_to_wait_and_says_how_long(chromium_page, workspace, monkeypatch):
    page = chromium_page
    page.expect_network_errors = True
    # A clock that stands still: however slowly the tries are typed, the wait is not over.
    monkeypatch.setattr(sign_in_routes, "SignIn", partial(SignIn, clock=lambda: 0.0))
    add_account(workspace, "Ann", PASSWORD, Role.ADMIN)
    with running(lambda: create_app(workspace)) as server:
        for _ in range(FREE_TRIES_BY_NAME + 1):
            sign_in(page, server, "Ann", "not the password")
            page.wait_for_selector("[role=alert] >> text=do not belong together")
        sign_in(page, server, "Ann")
        page.wait_for_selector("[role=alert] >> text=Too many tries. Wait 2 seconds, then try again.")


def test_a_session_outlives_the_server_and_ends_with_the_account(chromium_page, server, workspace):
    page = chromium_page
    page.expect_network_errors = True
    sign_in(page, server, "Ann")
    page_links(page)
    server.stop()
    server.start()
    page.reload()
    assert page_links(page) == ["Review", "Duplicates"]
    page.wait_for_selector(".slide.on")  # the last that it loads: whatever is asked for from now on is refused
    set_active(workspace, "Ann", False)
    page.evaluate("window.dispatchEvent(new Event('session:check'))")
    page.wait_for_selector(".signed-out[role=alert] >> text=You are signed out")
    page.click(".signed-out a")
    page.wait_for_url("**/sign-in")
    page.fill("#name", "Ann")
    page.fill("#password", PASSWORD)
    page.keyboard.press("Enter")
    page.wait_for_selector("[role=alert] >> text=do not belong together")


def test_an_admin_keeps_the_accounts(chromium_page, server, workspace):
    page = chromium_page
    page.expect_network_errors = True
    with workspace.read() as session:
        ann = next(row.id for row in list_accounts(session) if row.name == "Ann")
    start_session(workspace, ann)
    sign_in(page, server, "Ada")
    assert page_links(page)[-1] == "Accounts"
    page.click(".site-head nav a[href='#accounts']")
    row = row_of(page, "Ann")
    row.wait_for()
    assert "signed in" in row.inner_text()
    assert "you" in row_of(page, "Ada").inner_text()
    row.get_by_role("combobox").select_option("adjudicator")
    page.wait_for_selector(".accounts .notice.good >> text=Ann is adjudicator now")
    assert "signed in" not in row.inner_text()
    row.get_by_role("button", name="Deactivate").click()
    row.locator("text=deactivated").wait_for()
    row.get_by_role("button", name="Activate").click()
    row.locator("text=active").wait_for()
    # the last admin stays
    row_of(page, "Ada").get_by_role("button", name="Deactivate").click()
    page.wait_for_selector(".accounts .notice.bad[role=alert] >> text=only active admin")
    form = page.locator(".accounts form", has_text="Add an account")
    form.get_by_label("Name").fill("Bo ${window.hacked = 1} <b>")
    form.get_by_label("Password (at least").fill(PASSWORD)
    form.get_by_label("Password again").fill(PASSWORD + "x")
    form.get_by_role("button").click()
    assert form.locator(":invalid").count() == 1
    form.get_by_label("Password again").fill(PASSWORD)
    form.get_by_role("button").click()
    page.wait_for_selector(".accounts .notice.bad >> text=cannot be a name")
    form.get_by_label("Name").fill("Bo")
    form.get_by_role("button").click()
    page.wait_for_selector(".accounts .notice.good >> text=Bo can sign in now")
    row_of(page, "Bo").wait_for()
    assert page.evaluate("window.hacked") is None
    assert form.get_by_label("Password again").input_value() == ""


# The page's first question who is signed in is answered only when the test says so.
SLOW_FIRST_CHECK = """
  const ask = window.fetch;
  const released = new Promise((go) => { window.release = go; });
  let held = false;
  window.fetch = async (...given) => {
    const answer = await ask(...given);
    if (given[0] === '/api/me' && !held) {
      held = true;
      await released;
    }
    return answer;
  };
  window.addEventListener('session:check', () => { window.wasAskedToCheck = true; });
"""


def test_the_first_account_can_be_made_in_the_browser(chromium_page, workspace):
    page = chromium_page
    page.expect_network_errors = True
    page.add_init_script(SLOW_FIRST_CHECK)
    with running(lambda: create_app(workspace)) as server:
        page.goto(f"{server.url}/#accounts")
        page.wait_for_selector(".accounts .notice >> text=There are no accounts", timeout=20_000)
        assert page.locator(HEADER_NAME).is_hidden()
        form = page.locator(".accounts form", has_text="Add an account")
        form.get_by_label("Name").fill("Ada")
        form.get_by_label("Role").select_option("admin")
        form.get_by_label("Password (at least").fill(PASSWORD)
        form.get_by_label("Password again").fill(PASSWORD)
        form.get_by_role("button").click()
        page.wait_for_function("window.wasAskedToCheck")
        page.evaluate("window.release()")  # an answer of before there was an account
        page.wait_for_selector(".signed-out a")
        page.add_init_script("window.release()")
        sign_in(page, server, "Ada")
        page_links(page)


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_sign_in_page_needs_no_javascript(chromium, server, width, scheme):
    context = browser_context(
        chromium, java_script_enabled=False, viewport={"width": width, "height": 800}, color_scheme=scheme
    )
    page = context.new_page()
    page.goto(server.url)
    page.get_by_label("Name").fill("Ann")
    page.get_by_label("Password").fill("wrong password")
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_selector("[role=alert]")
    box = page.locator("main").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= width
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url(f"{server.url}/")
    context.close()


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (1280, "dark")])
def test_the_accounts_page_fits(chromium, server, width, scheme):
    context = browser_context(chromium, viewport={"width": width, "height": 800}, color_scheme=scheme)
    page = context.new_page()
    sign_in(page, server, "Ada")
    page_links(page)
    page.goto(f"{server.url}/#accounts")
    page.wait_for_selector(".accounts tbody tr")
    wider = page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wider <= 0, f"it scrolls sideways by {wider} px"
    context.close()
