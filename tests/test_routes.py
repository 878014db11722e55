"""The image and review routes, and the guard before them."""

from __future__ import annotations

import json
import uuid

import pytest
from fastapi import FastAPI, WebSocket
from fastapi.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

from app.guard import Guard
from app.media_routes import media_router
from app.review_event_routes import MAX_BATCH, MAX_BODY_BYTES
from app.review_routes import review_router
from db.models import Candidate, SourceImage
from db.queries import ensure_user
from tests.browser import synthetic_candidates

BASE = "http://127.0.0.1:7860"


@pytest.fixture
def ids(workspace):
    return synthetic_candidates(workspace, 5, size=16)


@pytest.fixture
def client(workspace, ids):
    with workspace.write() as session:
        user = ensure_user(session).id
    app = FastAPI()
    app.include_router(media_router(workspace, lambda: user))
    app.include_router(review_router(workspace, lambda: user))

    @app.get("/open")
    def open_to_all() -> dict:
        return {}

    @app.websocket("/socket")
    async def socket(websocket: WebSocket) -> None:
        await websocket.accept()
        await websocket.send_text("hello")
        await websocket.close()

    return TestClient(Guard(_permissive(app)), base_url=BASE)


def _permissive(app):
    """What Gradio does: answers any origin, with credentials."""

    async def wrapped(scope, receive, send):
        async def with_cors(message):
            if message["type"] == "http.response.start":
                cors = [(b"Access-Control-Allow-Origin", b"*"), (b"x-frame-options", b"ALLOW")]
                message = {**message, "headers": [*message["headers"], *cors]}
            await send(message)

        await app(scope, receive, with_cors)

    return wrapped


def items(client, **query):
    return client.get("/api/review/queue", params=query).raise_for_status().json()["items"]


def event(item, verdict="accept", **fields):
    known = {"uuid": str(uuid.uuid4()), "verdict": verdict, "candidate_id": item["id"], "result_sha256": item["sha256"]}
    return known | fields


def post(client, *events, **options):
    return client.post("/api/review/decisions", json={"events": list(events)}, **options)


# ---- images ----


def test_an_image_is_served_once_and_kept(client):
    item = items(client)[0]
    for url in item["urls"].values():
        answer = client.get(url)
        assert answer.status_code == 200
        assert answer.headers["content-type"].startswith("image/")
        assert answer.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert answer.headers["x-content-type-options"] == "nosniff"
        again = client.get(url, headers={"If-None-Match": f'W/"x", {answer.headers["etag"]}'})
        assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize(
    "path",
    [
        "/media/candidate/1/{wrong}/result.png",
        "/media/candidate/999/{sha}/result.png",
        "/media/candidate/1/{sha}/candidate.json",
        "/media/candidate/1/{sha}/..%2f..%2f..%2fworkspace.db",
        "/media/candidate/1/{sha}/%2e%2e",
        "/media/candidate/99999999999999999999999/{sha}/result.png",
        "/media/preview/..%2f..%2fworkspace.db/raw.png",
        "/media/preview/{wrong}/raw.png",
        "/media/preview/{upper}/raw.png",
        "/media/preview/{wrong}/workspace.db",
        "/media/source/1/{wrong}.jpg",
        "/media/source/999/{sha}.jpg",
    ],
)
def test_nothing_else_is_served(client, path):
    sha = items(client)[0]["sha256"]
    answer = client.get(path.format(sha=sha, wrong="0" * 64, upper="A" * 64))
    assert answer.status_code in (404, 422)
    assert b"SQLite" not in answer.content


def test_a_folder_that_leads_out_is_not_followed(client, workspace, ids, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "result.png").write_bytes(b"secret")
    (workspace.root / "link").symlink_to(outside)
    for folder in ("../outside", "link", str(outside)):
        with workspace.write() as session:
            candidate = session.get(Candidate, ids[0])
            candidate.folder = folder
            sha = candidate.result_sha256
        answer = client.get(f"/media/candidate/{ids[0]}/{sha}/result.png")
        assert answer.status_code == 404
        assert b"secret" not in answer.content


def test_previews_are_served(client, workspace):
    folder = workspace.root / "previews" / ("a" * 64)
    folder.mkdir(parents=True)
    (folder / "boxes.png").write_bytes(b"png")
    assert client.get(f"/media/preview/{'a' * 64}/boxes.png").content == b"png"


def test_a_source_is_shown_small(client, workspace):
    from db.files import sha256_file

    with workspace.write() as session:
        source = session.get(SourceImage, 1)
        path = workspace.root / source.path
        source.sha256, source.bytes = sha256_file(path), path.stat().st_size
        url = f"/media/source/1/{source.sha256}.jpg"
    answer = client.get(url, params={"size": 32})
    assert answer.status_code == 200
    assert answer.content.startswith(b"\xff\xd8")
    assert client.get(url, params={"size": 32}, headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get(url, params={"size": 5000}).status_code == 422
    path.unlink()
    gone = client.get(url, params={"size": 64})
    assert gone.status_code == 404
    assert "photo_0000" in gone.json()["error"]


# ---- review ----


def test_the_queue_pages_and_filters(client):
    first = client.get("/api/review/queue", params={"limit": 2}).json()
    rest = client.get("/api/review/queue", params={"limit": 9, "cursor": first["cursor"]}).json()
    assert [item["id"] for item in first["items"] + rest["items"]] == [1, 2, 3, 4, 5]
    assert rest["cursor"] is None
    assert first["owner"] == rest["owner"]
    assert [item["drop"] for item in items(client, drop_min=0.5, drop_max=1.5)] == [0.5, 1.0, 1.5]
    assert [item["id"] for item in items(client, order="residual")] == [1, 2, 3, 4, 5]
    for query in ({"limit": 0}, {"state": "x"}, {"drop_min": "nan"}, {"cursor": "x"}, {"recipe": 2**70}):
        answer = client.get("/api/review/queue", params=query)
        assert answer.status_code == 422
        assert answer.json()["error"].endswith(".")


def test_verdicts_go_in_and_come_out(client):
    one, two, *_ = items(client)
    accepted, rejected = event(one), event(two, "reject", reasons=["artefact"], elapsed_ms=900)
    assert [answer["status"] for answer in post(client, accepted, rejected, accepted).json()] == [
        "stored",
        "stored",
        "duplicate",
    ]
    counts = {"total": 5, "unreviewed": 3, "accepted": 1, "rejected": 1, "skipped": 0, "not_asked": 0, "auto": 0}
    progress = client.get("/api/review/progress").json()
    assert {name: progress[name] for name in counts} == counts
    assert [item["reasons"] for item in items(client, state="rejected")] == [["artefact"]]
    last = client.get("/api/review/last").json()
    assert (last["uuid"], last["item"]["id"]) == (rejected["uuid"], two["id"])
    post(client, event(two, "undo", undoes=rejected["uuid"]))
    entries = client.get(f"/api/review/history/{two['id']}").json()["decisions"]
    assert [(entry["verdict"], entry["undone"]) for entry in entries] == [("reject", True), ("undo", False)]
    assert client.get("/api/review/classes").json()[0] == {"class_index": 0, "name": "tench", "candidates": 2}


def test_a_bad_event_does_not_hold_up_the_others(client):
    item = items(client)[0]
    bad = [None, 7, {}, event(item, uuid="\ud800"), event(item, candidate_id=2**80), event(item, elapsed_ms=-1)]
    body = json.dumps({"events": [*bad, event(item, result_sha256="0" * 64), event(item)]})
    answer = client.post("/api/review/decisions", content=body, headers={"Content-Type": "application/json"})
    assert [entry["status"] for entry in answer.json()] == ["refused"] * 7 + ["stored"]
    assert all(entry["error"] for entry in answer.json()[:7])


def test_a_batch_has_its_limits(client):
    item = items(client)[0]
    as_json = {"Content-Type": "application/json"}
    url = "/api/review/decisions"
    assert post(client, *(event(item) for _ in range(MAX_BATCH + 1))).status_code == 413
    assert client.post(url, content=b" " * (MAX_BODY_BYTES + 1), headers=as_json).status_code == 413
    assert client.post(url, content=b"{", headers=as_json).status_code == 400
    assert client.post(url, content=b"[" * 100_000, headers=as_json).status_code == 400
    assert client.post(url, content=b"[]", headers=as_json).status_code == 422
    assert client.post(url, content=b"{}", headers={"Content-Type": "text/plain"}).status_code == 415
    assert client.get("/api/review/last").json() == {"uuid": None, "item": None}


# ---- the guard ----


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Origin": BASE}, 200),
        ({"Sec-Fetch-Site": "same-origin", "Origin": BASE}, 200),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:9999"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site", "Origin": BASE}, 403),
        ({"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}, 403),
    ],
)
def test_another_site_cannot_post(client, headers, status):
    answer = post(client, headers=headers)
    assert answer.status_code == status
    assert (client.options("/api/review/decisions", headers=headers).status_code == 403) == (status == 403)


def test_another_site_may_link_but_not_embed(client):
    there = {"Sec-Fetch-Site": "cross-site"}
    assert client.get("/open", headers=there).status_code == 403
    link = there | {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert client.get("/open", headers=link).status_code == 200
    frame = link | {"Sec-Fetch-Dest": "iframe"}
    assert client.get("/open", headers=frame).status_code == 403
    assert client.get("/open", headers={"Origin": "http://evil.example"}).status_code == 200, "no CORS answer, no harm"


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:1", 200),
        ("[::1]:7860", 200),
        ("evil.example", 400),
        ("127.0.0.1.evil.example", 400),
        ("localhost:7860@evil.example", 400),
        ("", 400),
    ],
)
def test_only_our_own_names_are_answered(client, host, status):
    assert client.get("/open", headers={"Host": host}).status_code == status


def test_every_answer_carries_the_headers(client):
    for answer in (client.get("/open"), client.get("/nothing"), client.get("/open", headers={"Host": "evil.example"})):
        assert "connect-src 'self'" in answer.headers["content-security-policy"]
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers.get_list("x-frame-options") == ["DENY"]
        assert answer.headers["referrer-policy"] == "same-origin"
        assert not [name for name in answer.headers if name.startswith("access-control-")]


def test_sockets_are_for_our_own_page(client):
    with client.websocket_connect("/socket", headers={"Origin": BASE, "Host": "127.0.0.1:7860"}) as socket:
        assert socket.receive_text() == "hello"
    with pytest.raises(WebSocketDisconnect):
        client.websocket_connect("/socket", headers={"Origin": "http://evil.example"}).__enter__()
