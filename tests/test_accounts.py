"""Accounts: who gets in, who stays out, what each role may do, and that no route of the application is forgotten."""

from __future__ import annotations

import datetime as dt
import json
import logging
import re
import subprocess
import sys
from contextlib import ExitStack
from typing import Annotated

import pytest
from argon2 import PasswordHasher
from fastapi import Depends, FastAPI, Request, WebSocket
from fastapi.testclient import TestClient
from sqlalchemy import select, update
from starlette.routing import Mount, Route
from starlette.websockets import WebSocketDisconnect
from typer.testing import CliRunner

from app.account_routes import account_router
from app.accounts import CurrentUser, current_user, passwords, require, user_of
from app.accounts.access import PUBLIC, required_role, user_name_of
from app.accounts.directory import (
    AccountError,
    add_account,
    list_accounts,
    set_active,
    set_password,
    set_role,
    sign_out,
)
from app.accounts.passwords import PasswordRefused, hash_password, is_outdated, verify_password
from app.accounts.sessions import IDLE, LONGEST, cookie_name, find_session, start_session
from app.accounts.sign_in import FREE_TRIES_BY_ADDRESS, FREE_TRIES_BY_NAME, SignIn, SignInRefused, TooManyTries
from app.accounts.throttle import Throttle, address_key
from app.cli import app as cli
from app.commands.users import _password
from app.doctor import _accounts
from app.gate import Gate
from app.guard import Guard
from app.listening import Listening
from app.role_pages import RolePages
from app.server import create_app, server_config
from app.sign_in_routes import sign_in_router
from db.models import Candidate, Job, Role, User, UserSession, utcnow
from db.workspace import open_workspace
from review.decisions import DecisionEvent, record
from tests.browser import synthetic_candidates
from tests.conftest import ROOT

HOST = "http://127.0.0.1"
PASSWORD = "correct horse battery"
OTHER = "staple battery horse"
NAMES = {Role.ADMIN: "Ada", Role.ADJUDICATOR: "Jo", Role.ANNOTATOR: "Ann"}
REAL = passwords._hasher
QUICK = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)


@pytest.fixture(autouse=True)
def quick_hashes(monkeypatch):
    """Hashes that cost nothing; the tests of the real parameters put those back."""
    monkeypatch.setattr(passwords, "_hasher", QUICK)


def add_users(workspace) -> dict[Role, User]:
    """One account a role."""
    with workspace.write() as session:
        users = {role: User(name=name, role=role, password_hash=QUICK.hash(PASSWORD)) for role, name in NAMES.items()}
        session.add_all(users.values())
    return users


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def users(workspace):
    return add_users(workspace)


# ---- passwords ----


def test_a_password_is_stored_as_argon2id_and_checked(monkeypatch):
    monkeypatch.setattr(passwords, "_hasher", REAL)
    assert REAL.memory_cost >= 19 * 1024 and REAL.time_cost >= 2, "what OWASP asks of argon2id, in KiB and passes"
    stored = hash_password("pässword " + "x" * 20)
    assert stored.startswith("$argon2id$") and "ssword" not in stored
    # ä as one code point or as two: the same key on another keyboard
    assert verify_password(stored, "pa\u0308ssword " + "x" * 20)
    assert not verify_password(stored, "password " + "x" * 20)
    assert not verify_password("", PASSWORD) and not verify_password("no hash", PASSWORD)
    assert not is_outdated(stored) and is_outdated(QUICK.hash(PASSWORD))


@pytest.mark.parametrize("password", ["", "short", "123456789", "x" * 257, "a\u0308" * 9])
def test_a_password_that_is_too_short_or_long_is_refused(workspace, password):
    with pytest.raises(PasswordRefused, match="characters"):
        add_account(workspace, "Ada", password, Role.ADMIN)
    with workspace.read() as session:
        assert not session.scalars(select(User)).all()


# ---- the accounts ----


def test_the_first_account_is_an_admin_and_one_always_stays(workspace):
    with pytest.raises(AccountError, match="first account must be an admin"):
        add_account(workspace, "Ann", PASSWORD, Role.ANNOTATOR)
    add_account(workspace, "Ada", PASSWORD, Role.ADMIN)
    add_account(workspace, "Ann", PASSWORD, Role.ANNOTATOR)
    for change in (lambda: set_active(workspace, "Ada", False), lambda: set_role(workspace, "Ada", Role.ANNOTATOR)):
        with pytest.raises(AccountError, match="only active admin"):
            change()
    set_role(workspace, "Ann", Role.ADMIN)
    set_active(workspace, "Ada", False)
    with pytest.raises(AccountError, match="only active admin"):
        set_role(workspace, "Ann", Role.ADJUDICATOR)


def test_names_are_clean_and_do_not_look_alike(workspace):
    add_account(workspace, "  Ada Lovelace ", PASSWORD, Role.ADMIN)
    add_account(workspace, "Žofie.n@lab-2", PASSWORD, Role.ANNOTATOR)
    for name in ("ada lovelace", "Ａda Lovelace"):
        with pytest.raises(AccountError, match="already"):
            add_account(workspace, name, PASSWORD, Role.ADMIN)
    for name in ("", " ", "<b>", "a\nb", "a\x00b", ".hidden", "x" * 81, "${x}"):
        with pytest.raises(AccountError, match="cannot be a name"):
            add_account(workspace, name, PASSWORD, Role.ADMIN)
    with pytest.raises(AccountError, match="There is no account"):
        set_role(workspace, "Nobody", Role.ADMIN)


def test_the_local_user_can_become_an_account_and_keeps_the_decisions(workspace):
    create_local = TestClient(small_app(workspace), base_url=HOST).get("/api/me").json()
    assert create_local == {"name": "local", "role": "admin", "local": True}
    with workspace.read() as session:
        local = session.scalar(select(User))
    assert add_account(workspace, "local", PASSWORD, Role.ADMIN).id == local.id


def test_the_list_counts_decisions_and_browsers(workspace, users):
    ids = synthetic_candidates(workspace, 3, size=16)
    ann = users[Role.ANNOTATOR].id
    with workspace.read() as session:
        shas = {number: session.get(Candidate, number).result_sha256 for number in ids}
    events = [DecisionEvent(f"{number:032x}", "accept", number, shas[number]) for number in ids]
    record(workspace, events, ann)
    start_session(workspace, ann)
    start_session(workspace, ann)
    with workspace.read() as session:
        rows = {row.name: row for row in list_accounts(session)}
    assert (rows["Ann"].decisions, rows["Ann"].sessions) == (3, 2)
    assert utcnow() - rows["Ann"].last_decision_at < dt.timedelta(minutes=1)
    assert (rows["Ada"].decisions, rows["Ada"].sessions, rows["Ada"].last_decision_at) == (0, 0, None)
    assert sign_out(workspace, "Ann") == 2


# ---- sessions ----


def test_a_session_is_kept_by_the_hash_of_its_token_alone(workspace, users):
    token = start_session(workspace, users[Role.ANNOTATOR].id)
    assert len(token) >= 43
    assert token.encode() not in (workspace.root / "workspace.db-wal").read_bytes()
    found = find_session(workspace, token)
    assert (found.name, found.role, found.is_local) == ("Ann", Role.ANNOTATOR, False)
    assert find_session(workspace, token[:-1]) is None
    assert find_session(workspace, found.session) is None


def _shift(workspace, **values) -> None:
    with workspace.write() as session:
        session.execute(update(UserSession).values(**values))


def test_a_session_slides_while_it_is_used_and_ends(workspace, users):
    token = start_session(workspace, users[Role.ANNOTATOR].id)
    now = utcnow()
    _shift(workspace, expires_at=now + dt.timedelta(minutes=1))
    assert find_session(workspace, token) is not None
    with workspace.read() as session:
        renewed = session.scalar(select(UserSession.expires_at))
    assert abs(renewed - now - IDLE) < dt.timedelta(minutes=1)
    # never beyond a week from signing in
    _shift(workspace, created_at=now - LONGEST + dt.timedelta(hours=1), expires_at=now + dt.timedelta(minutes=1))
    assert find_session(workspace, token) is not None
    with workspace.read() as session:
        assert session.scalar(select(UserSession.expires_at)) <= now + dt.timedelta(hours=1)
    _shift(workspace, expires_at=now - dt.timedelta(seconds=1))
    assert find_session(workspace, token) is None
    start_session(workspace, users[Role.ADMIN].id)
    with workspace.read() as session:
        assert len(session.scalars(select(UserSession)).all()) == 1, "what has expired is cleared away"


@pytest.mark.parametrize(
    "change",
    [
        lambda w: set_active(w, "Ann", False),
        lambda w: set_role(w, "Ann", Role.ADJUDICATOR),
        lambda w: set_password(w, "Ann", OTHER),
        lambda w: sign_out(w, "Ann"),
    ],
)
def test_a_change_signs_the_account_out_at_once(workspace, users, change):
    mine, other = (start_session(workspace, users[role].id) for role in (Role.ANNOTATOR, Role.ADMIN))
    change(workspace)
    assert find_session(workspace, mine) is None
    assert find_session(workspace, other) is not None


# ---- signing in ----


def test_the_refusal_does_not_say_what_was_wrong(workspace, users):
    checker = SignIn(workspace)
    assert checker.check(" Ann ", PASSWORD, "192.0.2.1").name == "Ann"
    set_active(workspace, "Jo", False)
    with workspace.write() as session:
        session.add(User(name="local"))
    said = set()
    for name, password in (("Ann", OTHER), ("Nobody", PASSWORD), ("Jo", PASSWORD), ("local", ""), ("", "")):
        with pytest.raises(SignInRefused) as refusal:
            checker.check(name, password, "192.0.2.1")
        said.add(str(refusal.value))
    assert len(said) == 1


def test_an_unknown_name_is_hashed_as_a_known_one(workspace, users, monkeypatch):
    """Known, unknown, deactivated and without a password: one check of a real hash each."""
    from app.accounts import sign_in

    checked = []
    monkeypatch.setattr(sign_in, "verify_password", lambda stored, password: checked.append(stored) or False)
    set_active(workspace, "Jo", False)
    with workspace.write() as session:
        session.add(User(name="local"))
    checker = SignIn(workspace)
    for name in ("Ann", "Nobody", "Jo", "local"):
        with pytest.raises(SignInRefused):
            checker.check(name, PASSWORD, "192.0.2.1")
    assert len(checked) == 4 and all(stored.startswith("$argon2id$") for stored in checked)
    assert not is_outdated(checked[1]), "the stand-in costs what a new hash costs"


def test_an_old_hash_is_made_anew_when_its_owner_signs_in(workspace, users, monkeypatch):
    monkeypatch.setattr(passwords, "_hasher", REAL)
    SignIn(workspace).check("Ann", PASSWORD, "192.0.2.1")
    with workspace.read() as session:
        stored = {user.name: user.password_hash for user in session.scalars(select(User))}
    assert not is_outdated(stored["Ann"]) and verify_password(stored["Ann"], PASSWORD)
    assert is_outdated(stored["Ada"])


def _refused(checker, name, address) -> float:
    """Seconds to wait after a wrong password; 0.0 when it was looked at."""
    try:
        checker.check(name, OTHER, address)
    except TooManyTries as refusal:
        return refusal.seconds
    except SignInRefused:
        return 0.0
    raise AssertionError("A wrong password was taken.")


def test_guessing_one_name_waits_twice_as_long_each_time(workspace, users):
    clock = Clock()
    checker = SignIn(workspace, clock)
    for number in range(FREE_TRIES_BY_NAME + 1):
        assert _refused(checker, "Ann", f"192.0.2.{number}") == 0
    for expected in (1, 2, 4, 8, 16, 32, 60, 60):
        waited = _refused(checker, "ANN", "198.51.100.1")
        assert expected <= waited <= expected + 1
        with pytest.raises(TooManyTries):
            checker.check("Ann", PASSWORD, "198.51.100.2")  # not even the right one
        clock.now += expected + 0.01
        assert _refused(checker, "Ann", f"203.0.113.{expected}") == 0
    assert checker.check("Ada", PASSWORD, "198.51.100.3").name == "Ada"
    clock.now += 61
    assert checker.check("Ann", PASSWORD, "198.51.100.3").name == "Ann"
    assert _refused(checker, "Ann", "198.51.100.4") == 0, "the right password starts anew"


def test_guessing_from_one_address_waits_whatever_the_name(workspace, users):
    clock = Clock()
    checker = SignIn(workspace, clock)
    for number in range(FREE_TRIES_BY_ADDRESS + 1):
        assert _refused(checker, f"guess {number}", "2001:db8::1") == 0
    assert _refused(checker, "another", "2001:db8::2") > 0, "the same /64"
    assert checker.check("Ann", PASSWORD, "2001:db8:1::1").name == "Ann"
    clock.now += 2
    # an account of one's own does not buy more guesses
    assert checker.check("Ann", PASSWORD, "2001:db8::1").name == "Ann"
    assert _refused(checker, "another", "2001:db8::1") == 0
    assert _refused(checker, "another", "2001:db8::1") > 1


def test_tries_at_once_count_one_after_another():
    throttle = Throttle(free=2, longest=60, clock=Clock())
    assert [throttle.begin("x") > 0 for _ in range(6)] == [False, False, False, True, True, True]


def test_the_throttle_forgets_and_stays_small(monkeypatch):
    monkeypatch.setattr("app.accounts.throttle.CAPACITY", 10)
    clock = Clock()
    throttle = Throttle(free=0, longest=3600, clock=clock)
    assert throttle.begin("x") == 0 and throttle.begin("x") > 0
    clock.now += 16 * 60
    assert throttle.begin("x") == 0
    for number in range(1000):
        clock.now += 0.001
        throttle.begin(f"name {number}")
        assert len(throttle._records) <= 10
    assert throttle.begin("name 999") > 0


def test_addresses_of_one_network_share_a_key():
    assert address_key("192.0.2.1") != address_key("192.0.2.2")
    assert address_key("2001:db8::1") == address_key("2001:db8::ffff") != address_key("2001:db8:0:1::1")
    assert address_key("testclient") == "testclient"


# ---- over HTTP ----


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A workspace with one account a role, and its application."""
    opened = open_workspace(tmp_path_factory.mktemp("accounts") / "workspace")
    add_users(opened)
    yield opened, create_app(opened, allowed_hosts=("127.0.0.1", "lab.example"))
    opened.close()


def small_app(workspace) -> FastAPI:
    """The routes about accounts behind gate and guard, without the pages."""
    app = FastAPI()
    app.add_middleware(Gate, workspace=workspace)
    app.add_middleware(Guard)
    app.include_router(sign_in_router(workspace))
    app.include_router(account_router(workspace))
    return app


def signed_in(served, role: Role, **options) -> TestClient:
    """A browser of the account of that role."""
    workspace, app = served
    client = TestClient(app, base_url=HOST, follow_redirects=False, **options)
    with workspace.read() as session:
        user_id = session.scalar(select(User.id).where(User.role == role))
    client.cookies.set(cookie_name(workspace), start_session(workspace, user_id))
    return client


def test_who_asks_is_known_while_every_shared_connection_is_taken(served):
    workspace, _ = served
    client = signed_in(served, Role.ANNOTATOR)
    assert client.get("/api/me").status_code == 200
    pool = workspace.engine.pool
    with ExitStack() as taken:
        for _ in range(pool.size() + pool._max_overflow - pool.checkedout()):
            taken.enter_context(workspace.engine.connect())
        assert client.get("/api/me").json()["role"] == "annotator"
        client.cookies.clear()
        assert client.get("/api/me").status_code == 401


@pytest.fixture
def anonymous(served):
    return TestClient(served[1], base_url=HOST, follow_redirects=False)


def _routes(app, prefix: str = ""):
    """Every (path, methods) of an application: routers, mounts and the Gradio applications of all roles included."""
    for route in app.routes:
        if isinstance(route, Mount):
            inner = route.app.apps.values() if isinstance(route.app, RolePages) else [route.app]
            if not any(hasattr(one, "routes") for one in inner):
                yield f"{prefix}{route.path}/some-file.js", {"GET"}
            for one in inner:
                if hasattr(one, "routes"):
                    yield from _routes(one, f"{prefix}{route.path}")
        elif isinstance(route, Route):
            yield prefix + route.path, route.methods or {"GET"}
        else:
            router = route.original_router
            extra = getattr(getattr(route, "include_context", None), "prefix", "") or ""
            yield from _routes(router, prefix + extra)


def _address(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "1", path)


def test_every_route_of_the_application_asks_for_a_session(served, anonymous):
    routes = list(_routes(served[1]))
    paths = {path for path, _ in routes}
    for known in (
        "/sign-in",
        "/api/review/decisions",
        "/media/candidate/{candidate_id}/{sha}/{name}",
        "/api/jobs/{job_id}/cancel",
        "/download/{job_id}",
        "/static/some-file.js",
        "/gradio_api/cancel",
        "/gradio_api/reset",
        "/gradio_api/startup-events",
        "/gradio_api/app_id",
        "/theme.css",
        "/gradio_api/queue/join",
        "/gradio_api/file={path_or_url:path}",
        "/monitoring/{key}",
        "/",
    ):
        assert known in paths, f"the walk misses {known}"
    for path, methods in routes:
        for method in methods:
            address = _address(path)
            if address in PUBLIC:
                continue
            answer = anonymous.request(method, address, json={} if method == "POST" else None)
            if address == "/":
                assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
            else:
                assert answer.status_code == 401, f"{method} {address}: {answer.status_code}"
                if method != "HEAD":
                    assert answer.json() == {"error": "You are not signed in; open /sign-in and sign in."}
            if path not in ("/", "/sign-out"):
                loaded = anonymous.request(method, address, headers={"Accept": "text/html,*/*;q=0.8"})
                expected = 303 if method in ("GET", "HEAD") else 401
                assert loaded.status_code == expected, f"{method} {address} as a page: {loaded.status_code}"


def test_what_is_open_to_anybody_is_these_three(anonymous):
    assert {"/sign-in", "/static/sign_in.css", "/healthz"} == PUBLIC
    for path in PUBLIC:
        assert anonymous.get(path).status_code == 200
    for path in ("/sign-in/", "/static/sign_in.css/", "/static/../api/jobs", "/nothing", "/Sign-In"):
        assert anonymous.get(path).status_code == 401, path
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert anonymous.request(method, "/sign-in").status_code in (401, 405)
        assert anonymous.request(method, "/healthz").status_code in (401, 405)


ALLOWED = {
    Role.ANNOTATOR: ("/", "/api/me", "/password", "/config", "/static/app.js", "/api/review/queue", "/gradio_api/info"),
    Role.ADJUDICATOR: ("/api/review/adjudication", "/api/review/overlap"),
    Role.ADMIN: ("/api/jobs", "/api/accounts"),
}


@pytest.mark.parametrize("role", Role)
def test_each_role_reaches_what_it_may(served, role):
    client = signed_in(served, role)
    user = CurrentUser(1, "x", role)
    for least, paths in ALLOWED.items():
        for path in paths:
            assert client.get(path).status_code == (200 if user.may(least) else 403), path
    for path, methods in _routes(served[1]):
        address = _address(path)
        needed = required_role(address)
        if needed is None or user.may(needed):
            continue
        for method in methods:
            answer = client.request(method, address, json={} if method == "POST" else None)
            assert answer.status_code == 403, f"{method} {address} as {role}: {answer.status_code}"


def test_what_is_not_listed_is_for_admins():
    for path in ("/api/new", "/download/1", "/monitoring", "/gradio_api/upload", "/gradio_api/file=x", "/login", ""):
        assert required_role(path) is Role.ADMIN, path
    assert required_role("/api/reviewers/") is Role.ADMIN


def _pages(client) -> list[str]:
    config = client.get("/config").json()
    tabs = [part["props"] for part in config["components"] if part["type"] == "tabitem"]
    return [tab["label"] for tab in tabs]


def test_the_pages_of_a_role_hold_the_functions_of_that_role_alone(served):
    demos = served[1].state.pages.demos
    assert _pages(signed_in(served, Role.ANNOTATOR)) == ["Review", "Duplicates"]
    assert {"Overview", "Generate", "Export", "Accounts"} <= set(_pages(signed_in(served, Role.ADMIN)))
    assert "Accounts" not in _pages(signed_in(served, Role.ADJUDICATOR))
    assert len(demos[Role.ADMIN].fns) > len(demos[Role.ANNOTATOR].fns)
    # An event names its function by number: one that only an admin has does not exist for others.
    number = max(demos[Role.ADMIN].fns)
    event = {"fn_index": number, "data": [], "session_hash": "abc"}
    annotator = signed_in(served, Role.ANNOTATOR, raise_server_exceptions=False)
    for path in ("/gradio_api/run/predict", "/gradio_api/queue/join"):
        assert annotator.post(path, json=event).status_code == 500


def _call(client, demo, name: str):
    """Call a page's handler, found by its qualified name, as a browser does."""
    number = next(n for n, f in demo.fns.items() if f.fn and f.fn.__qualname__ == name)
    body = {"fn_index": number, "data": [], "session_hash": "abc"}
    return client.post("/gradio_api/run/predict", json=body)


def test_the_overview_is_drawn_for_who_asks(served):
    answer = _call(signed_in(served, Role.ADMIN), served[1].state.demo, "overview_page.<locals>.refresh")
    assert answer.status_code == 200 and "Workspace" in answer.json()["data"][0]


def test_a_job_is_signed_by_who_asked_for_it(served):
    answer = _call(signed_in(served, Role.ADMIN), served[1].state.demo, "sources_page.<locals>.import_demo")
    assert "imports the photos" in answer.json()["data"][0]
    with served[0].read() as session:
        assert session.scalar(select(Job.created_by).order_by(Job.id.desc())) == NAMES[Role.ADMIN]


def test_sign_in_sets_a_cookie_and_sign_out_ends_it(served, anonymous):
    workspace = served[0]
    page = anonymous.get("/sign-in")
    assert page.headers["cache-control"] == "no-store"
    form = {"name": "Ann", "password": PASSWORD}
    answer = anonymous.post("/sign-in", data=form)
    assert (answer.status_code, answer.headers["location"]) == (303, "/")
    cookie = answer.headers["set-cookie"]
    assert cookie.startswith(f"{cookie_name(workspace)}=")
    assert {"httponly", "samesite=lax", "path=/", f"max-age={7 * 24 * 3600}"} <= set(cookie.lower().split("; "))
    assert "secure" not in cookie.lower()
    assert anonymous.get("/api/me").json() == {"name": "Ann", "role": "annotator", "local": False}
    assert anonymous.get("/sign-in").status_code == 303
    token = anonymous.cookies[cookie_name(workspace)]
    assert anonymous.get("/sign-out").status_code in (404, 405), "a link or an image must not sign out"
    answer = anonymous.post("/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/sign-in")
    assert cookie_name(workspace) not in anonymous.cookies
    anonymous.cookies.set(cookie_name(workspace), token)
    assert anonymous.get("/api/me").status_code == 401, "the token itself is dead"


def test_the_cookie_is_secure_over_https_and_signing_in_again_ends_the_session_before(served):
    client = TestClient(served[1], base_url="https://lab.example", follow_redirects=False)
    first = client.post("/sign-in", data={"name": "Ann", "password": PASSWORD})
    assert "secure" in first.headers["set-cookie"].lower().split("; ")
    before = client.cookies[cookie_name(served[0])]
    client.post("/sign-in", data={"name": "Jo", "password": PASSWORD})
    assert client.get("/api/me").json()["name"] == "Jo"
    assert find_session(served[0], before) is None


def test_a_wrong_sign_in_is_a_page_with_a_sentence(workspace, users, caplog, capfd):
    client = TestClient(small_app(workspace), base_url=HOST, follow_redirects=False)
    name = '"><script>alert(1)</script>'
    with caplog.at_level(logging.DEBUG):
        answer = client.post("/sign-in", data={"name": name, "password": PASSWORD})
        for _ in range(FREE_TRIES_BY_NAME + 1):
            client.post("/sign-in", data={"name": "Ann", "password": OTHER})
        waiting = client.post("/sign-in", data={"name": "Ann", "password": PASSWORD})
    assert answer.status_code == 401 and 'role="alert"' in answer.text and "set-cookie" not in answer.headers
    assert "<script>" not in answer.text and "&lt;script&gt;" in answer.text
    assert waiting.status_code == 429 and "Too many tries. Wait" in waiting.text
    assert int(waiting.headers["retry-after"]) >= 1
    everything = caplog.text + "".join(capfd.readouterr())
    assert PASSWORD not in everything and OTHER not in everything
    assert PASSWORD not in answer.text + waiting.text


def test_forms_of_other_sites_and_monsters_are_refused(anonymous):
    form = {"name": "Ann", "password": PASSWORD}
    for headers in ({"Origin": "http://evil.example"}, {"Sec-Fetch-Site": "cross-site"}):
        assert anonymous.post("/sign-in", data=form, headers=headers).status_code == 403
    assert anonymous.post("/sign-in", content=b"x" * 9000).status_code == 413
    assert anonymous.post("/sign-in", content=b"\xff\xfe").status_code == 400
    assert anonymous.post("/sign-in", content="&".join(f"a{n}=1" for n in range(50)).encode()).status_code == 400
    assert anonymous.post("/sign-in", content=b"").status_code == 401
    assert anonymous.post("/sign-in", content=b"name=%00%ED%A0%80&password=%ff").status_code == 401


def test_the_address_of_a_stranger_is_not_taken_from_a_header(served):
    """Without a trusted proxy nobody escapes the throttle, or learns anything, by X-Forwarded-For."""
    client = TestClient(served[1], base_url=HOST, follow_redirects=False, client=("203.0.113.77", 1))
    answers = [
        client.post(
            "/sign-in",
            data={"name": f"guess {number}", "password": OTHER},
            headers={"X-Forwarded-For": f"198.51.100.{number}"},
        ).status_code
        for number in range(FREE_TRIES_BY_ADDRESS + 2)
    ]
    assert answers[:-1] == [401] * (FREE_TRIES_BY_ADDRESS + 1) and answers[-1] == 429


@pytest.mark.parametrize(
    ("trusted", "peer", "believed"),
    [((), "127.0.0.1", False), (("10.0.0.0/24",), "10.0.0.7", True), (("10.0.0.0/24",), "10.0.1.7", False)],
)
def test_a_proxy_is_believed_when_it_is_trusted(workspace, users, trusted, peer, believed):
    config = server_config(small_app(workspace), Listening(trusted_proxies=trusted))
    config.load()
    client = TestClient(config.loaded_app, base_url=HOST, follow_redirects=False, client=(peer, 1))
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "198.51.100.1"}
    answer = client.post("/sign-in", data={"name": "Ann", "password": PASSWORD}, headers=headers)
    assert answer.status_code == 303
    assert ("secure" in answer.headers["set-cookie"].lower().split("; ")) is believed


def test_ones_own_password_can_be_changed(workspace, users):
    app = small_app(workspace)
    client = signed_in((workspace, app), Role.ANNOTATOR)
    elsewhere = signed_in((workspace, app), Role.ANNOTATOR)
    assert client.get("/password").status_code == 200

    def change(current, new, again):
        return client.post("/password", data={"current": current, "new": new, "again": again})

    assert "two new passwords differ" in change(PASSWORD, OTHER, OTHER + "x").text
    assert "current password is not right" in change(OTHER, OTHER, OTHER).text
    assert "at least 10" in change(PASSWORD, "short", "short").text
    assert client.get("/api/me").status_code == elsewhere.get("/api/me").status_code == 200
    assert "The password is changed" in change(PASSWORD, OTHER, OTHER).text
    assert client.get("/api/me").status_code == 200
    assert elsewhere.get("/api/me").status_code == 401
    assert SignIn(workspace).check("Ann", OTHER, "192.0.2.1").name == "Ann"


def test_admins_keep_the_accounts_over_http(workspace, users):
    client = signed_in((workspace, small_app(workspace)), Role.ADMIN)
    listed = client.get("/api/accounts").json()
    assert listed["needed"] and [a["name"] for a in listed["accounts"]] == ["Ada", "Ann", "Jo"]
    assert [a["is_you"] for a in listed["accounts"]] == [True, False, False]
    assert "password_hash" not in json.dumps(listed) and "argon2" not in json.dumps(listed)
    new = {"name": "Eve", "password": PASSWORD, "role": "annotator"}
    ids = {a["name"]: a["id"] for a in client.post("/api/accounts", json=new).json()["accounts"]}
    assert client.post("/api/accounts", json=new).json()["error"].startswith("There is a user 'Eve' already")
    assert client.post("/api/accounts", json=new | {"name": "Sly", "role": "king"}).status_code == 422
    eve = find_session(workspace, start_session(workspace, ids["Eve"]))
    assert eve.role is Role.ANNOTATOR

    def patch(name, **change):
        return client.patch(f"/api/accounts/{ids[name]}", json=change)

    changed = {a["name"]: a for a in patch("Eve", role="adjudicator").json()["accounts"]}
    assert changed["Eve"]["role"] == "adjudicator" and changed["Eve"]["sessions"] == 0
    assert not {a["name"]: a["active"] for a in patch("Eve", active=False).json()["accounts"]}["Eve"]
    assert "characters" in patch("Eve", password="short").json()["error"]
    assert patch("Eve", password=OTHER).status_code == patch("Eve", active=True).status_code == 200
    assert SignIn(workspace).check("Eve", OTHER, "192.0.2.1").role is Role.ADJUDICATOR
    assert "only active admin" in patch("Ada", active=False).json()["error"]
    assert client.patch("/api/accounts/999", json={"active": False}).status_code == 422
    assert client.post(f"/api/accounts/{ids['Ada']}/sign-out").status_code == 200
    assert client.get("/api/accounts").status_code == 401


# ---- the gate and the dependencies ----


def test_without_accounts_the_local_user_may_everything_until_there_is_one(workspace):
    client = TestClient(create_app(workspace), base_url=HOST, follow_redirects=False)
    assert client.get("/api/me").json() == {"name": "local", "role": "admin", "local": True}
    for path in ("/", "/api/jobs", "/api/accounts", "/gradio_api/info"):
        assert client.get(path).status_code == 200, path
    for path in ("/sign-in", "/password"):
        assert client.get(path).headers["location"] == "/"
    for path in ("/sign-in", "/password", "/sign-out"):
        assert client.post(path).headers["location"] == "/"
    for header in ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Forwarded-Proto"):
        answer = client.get("/", headers={header: "198.51.100.1"})
        assert answer.status_code == 403 and "users add NAME --role admin" in answer.json()["error"]
    first = {"name": "Ada", "password": PASSWORD, "role": "annotator"}
    assert "must be an admin" in client.post("/api/accounts", json=first).json()["error"]
    assert client.post("/api/accounts", json=first | {"role": "admin"}).json()["needed"]
    assert client.get("/api/me").status_code == 401, "from here on everybody has to sign in"
    assert client.get("/").headers["location"] == "/sign-in"


def test_a_session_outlives_a_restart_and_belongs_to_one_workspace(workspace, users, tmp_path):
    client = signed_in((workspace, small_app(workspace)), Role.ANNOTATOR)
    assert client.get("/api/me").status_code == 200
    again = TestClient(small_app(workspace), base_url=HOST, cookies=client.cookies)
    assert again.get("/api/me").json()["name"] == "Ann"
    other = open_workspace(tmp_path / "other")
    add_users(other)
    assert TestClient(small_app(other), base_url=HOST, cookies=client.cookies).get("/api/me").status_code == 401
    other.close()


def _gated(workspace) -> TestClient:
    app = FastAPI()

    @app.get("/api/review/who")
    def who(user: Annotated[CurrentUser, Depends(current_user)]) -> str:
        return user.name

    @app.get("/api/review/strict")
    def strict(user: Annotated[CurrentUser, Depends(require(Role.ADJUDICATOR))]) -> str:
        return user.name

    @app.get("/healthz")
    def health(request: Request) -> list[str | None]:
        return [user_name_of(request), getattr(user_of(request), "role", None)]

    @app.websocket("/api/review/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return TestClient(Gate(app, workspace), base_url=HOST)


def _cookie(workspace, user: User) -> dict[str, str]:
    return {"Cookie": f'odd=a b"; {cookie_name(workspace)}={start_session(workspace, user.id)}; last=1'}


def test_the_dependencies_name_the_user_and_ask_for_a_role(workspace, users):
    client = _gated(workspace)
    ann, jo = (_cookie(workspace, users[role]) for role in (Role.ANNOTATOR, Role.ADJUDICATOR))
    assert client.get("/api/review/who", headers=ann).json() == "Ann"
    assert client.get("/api/review/strict", headers=ann).status_code == 403
    assert client.get("/api/review/strict", headers=jo).json() == "Jo"
    assert client.get("/healthz", headers=jo).json() == ["Jo", "adjudicator"]
    assert client.get("/healthz").json() == [None, None]


def test_a_websocket_needs_a_session_too(workspace, users):
    client = _gated(workspace)
    with pytest.raises(WebSocketDisconnect) as refused, client.websocket_connect("/api/review/socket"):
        pass
    assert refused.value.code == 1008
    with client.websocket_connect("/api/review/socket", headers=_cookie(workspace, users[Role.ANNOTATOR])) as socket:
        assert socket.receive_text() == "hello"


def test_without_a_gate_nobody_is_signed_in():
    app = FastAPI()

    @app.get("/")
    def who(user: Annotated[CurrentUser, Depends(current_user)]) -> str:
        return user.name

    @app.get("/strict")
    def strict(user: Annotated[CurrentUser, Depends(require(Role.ANNOTATOR))]) -> str:
        return user.name

    client = TestClient(app)
    assert client.get("/").status_code == client.get("/strict").status_code == 401


# ---- the commands ----


def run_users(workspace_folder, *arguments: str, given: str = ""):
    """`launch.py users ...` as typed, without a terminal."""
    return CliRunner().invoke(cli, ["users", *arguments, "--workspace", str(workspace_folder)], input=given)


def test_the_first_accounts_are_made_from_the_terminal(tmp_path):
    folder, file = tmp_path / "w", tmp_path / "password.txt"
    file.write_text(f"{PASSWORD}\nmore\n")
    early = run_users(folder, "add", "Ann", "--role", "annotator", "--password-file", "-", given=PASSWORD)
    assert isinstance(early.exception, AccountError)
    command = [sys.executable, "launch.py", "--host", "0.0.0.0", "--workspace", str(folder)]
    serving = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert serving.returncode == 1 and "users add NAME --role admin" in serving.stderr
    added = run_users(folder, "add", "Ada", "--role", "admin", "--password-file", str(file))
    assert added.exit_code == 0 and "everybody has to sign in" in added.output
    assert re.search(r"Ada\s+admin\s+active\s+0\s+0", run_users(folder, "list").output)
    piped = run_users(folder, "add", "Ann", "--role", "annotator", "--password-file", "-", given=f"{OTHER}\r\n")
    assert "Ann is annotator now" in piped.output and "has to sign in" not in piped.output
    workspace = open_workspace(folder)
    assert SignIn(workspace).check("Ada", PASSWORD, "192.0.2.1").role is Role.ADMIN
    assert SignIn(workspace).check("Ann", OTHER, "192.0.2.1").role is Role.ANNOTATOR
    workspace.close()


def test_every_users_command_does_what_it_says(workspace, users, monkeypatch, tmp_path):
    file = tmp_path / "password.txt"
    file.write_text(OTHER)

    def run(*arguments):
        return run_users(workspace.root, *arguments)

    token = start_session(workspace, users[Role.ANNOTATOR].id)
    assert "signed out of 1 browser." in run("sign-out", "Ann").output
    assert find_session(workspace, token) is None
    assert "Ann is adjudicator now" in run("role", "Ann", "adjudicator").output
    assert "no role" in run("role", "Ann", "king").output
    assert "deactivated" in run("deactivate", "Ann").output
    assert re.search(r"Ann\s+adjudicator\s+deactivated", run("list").output)
    assert "active" in run("activate", "Ann").output
    assert "new password" in run("password", "Ann", "--password-file", str(file)).output
    assert SignIn(workspace).check("Ann", OTHER, "192.0.2.1").role is Role.ADJUDICATOR
    assert "--password-file" in run("password", "Ann").output, "no terminal to ask on"
    assert isinstance(run("deactivate", "Ada").exception, AccountError)
    asked = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("typer.prompt", lambda text, **options: asked.append(options) or "typed twice on it")
    assert _password(None) == "typed twice on it"
    assert asked[0]["hide_input"] and asked[0]["confirmation_prompt"]


def test_the_doctor_says_who_may_do_what(tmp_path, workspace, users):
    assert _accounts(tmp_path / "nothing").value == "none (local only)"
    assert not (tmp_path / "nothing").exists()
    assert _accounts(workspace.root).value == "3 users; sign-in is needed"
    with workspace.write() as session:
        session.execute(update(User).values(password_hash=""))
    assert _accounts(workspace.root).value == "none (local only)"
