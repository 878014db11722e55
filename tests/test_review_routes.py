"""The review routes with several people: who sees what, who may do what, and what they answer."""

from __future__ import annotations

import uuid

import pytest
from fastapi import FastAPI, Request
from fastapi.testclient import TestClient

from app.review_queue_routes import MAX_LEASES
from app.review_routes import review_router
from db.models import Role, User
from tests.browser import synthetic_candidates

PEOPLE = {
    "ann": Role.ANNOTATOR,
    "bob": Role.ANNOTATOR,
    "judge": Role.ADJUDICATOR,
    "boss": Role.ADMIN,
}


class Person:
    """A signed-in browser."""

    def __init__(self, client: TestClient, user_id: int) -> None:
        self.client = client
        self.id = user_id
        self.headers = {"X-User": str(user_id)}

    def call(self, method: str, path: str, status: int = 200, **options):
        answer = self.client.request(method, f"/api/review{path}", headers=self.headers, **options)
        assert answer.status_code == status, answer.text
        if status >= 400:
            assert answer.json()["error"].endswith(".")
        return answer.json() if answer.content else None

    def get(self, path: str, status: int = 200, **params):
        return self.call("GET", path, status, params=params)

    def post(self, path: str, body: dict, status: int = 200):
        return self.call("POST", path, status, json=body)

    def ids(self, **params) -> list[int]:
        return [item["id"] for item in self.get("/queue", **params)["items"]]

    def judge(self, item: dict, verdict: str, **fields) -> dict:
        event = {"uuid": str(uuid.uuid4()), "verdict": verdict, "candidate_id": item["id"]}
        event |= {"result_sha256": item["sha256"], "reasons": ["artefact"] if verdict == "reject" else []}
        (answer,) = self.post("/decisions", {"events": [event | fields]})
        assert answer["status"] == "stored", answer
        return answer


@pytest.fixture
def people(workspace) -> dict[str, Person]:
    synthetic_candidates(workspace, 6, size=8)
    with workspace.write() as session:
        users = {name: User(name=name, role=role, password_hash="x") for name, role in PEOPLE.items()}
        session.add_all(users.values())
    app = FastAPI()

    def current_user(request: Request) -> int:
        return int(request.headers["X-User"])

    app.include_router(review_router(workspace, current_user))
    client = TestClient(app)
    return {name: Person(client, user.id) for name, user in users.items()}


@pytest.fixture
def disagreed(people) -> dict[str, Person]:
    """Every candidate wants two; on the first, Ann and Bob disagree."""
    people["boss"].call("PUT", "/overlap", json={"share": 1, "k": 2})
    first, *_ = people["ann"].get("/queue")["items"]
    people["ann"].judge(first, "accept", elapsed_ms=1500)
    people["bob"].judge(first, "reject", via="grid")
    return people


def test_annotators_judge_blind(disagreed):
    ann, judge = disagreed["ann"], disagreed["judge"]
    for params in ({"verdict": "reject"}, {"annotator": disagreed["bob"].id}, {"disagreement": 1}):
        assert "adjudicator" in ann.get("/queue", 403, state="all", **params)["error"]
        assert "adjudicator" in ann.get("/progress", 403, **params)["error"]
        assert judge.ids(state="all", **params) == [1]
    own, all_of_it = ann.get("/history/1"), judge.get("/history/1")
    assert [entry["user_name"] for entry in own["decisions"]] == ["ann"]
    assert [(entry["user_name"], entry["via"]) for entry in all_of_it["decisions"]] == [
        ("ann", "single"),
        ("bob", "grid"),
    ]
    assert ann.get("/progress")["annotators"] is None
    rows = judge.get("/progress")["annotators"]
    assert [(row["name"], row["accepted"], row["rejected"], row["median_seconds"]) for row in rows] == [
        ("ann", 1, 0, 1.5),
        ("bob", 0, 1, None),
    ]


def test_what_is_for_others_is_refused_with_a_sentence(people):
    final_word = {"uuid": str(uuid.uuid4()), "candidate_id": 1, "verdict": "accept"}
    closed = {
        "ann": [
            ("GET", "/adjudication", None),
            ("POST", "/adjudication", final_word),
            ("GET", "/agreement", None),
            ("GET", "/overlap", None),
            ("GET", "/gold/report", None),
        ],
        "judge": [
            ("PUT", "/overlap", {"share": 0.5, "k": 2}),
            ("GET", "/gold", None),
            ("PUT", "/gold/1", {"verdict": "accept"}),
            ("DELETE", "/gold/1", None),
        ],
    }
    closed["ann"] += closed["judge"]
    for name, calls in closed.items():
        for method, path, body in calls:
            assert "Ask an admin" in people[name].call(method, path, 403, json=body)["error"]


def test_the_filters_reach_the_queue(people):
    ann = people["ann"]
    assert ann.ids(drop_min=1, drop_max=2) == [3, 4, 5]
    assert ann.ids(residual_max=0.25) == [5, 6]
    assert ann.ids(area_min=0.5) == []
    assert ann.ids(duplicates=1) == ann.ids(p_accept_min=0.5) == []
    assert ann.ids(order="residual") == [1, 2, 3, 4, 5, 6]
    assert ann.ids(order="uncertain") == [1, 2, 3, 4, 5, 6]
    shuffled = ann.ids(order="random", seed=4)
    assert sorted(shuffled) == [1, 2, 3, 4, 5, 6]
    page = ann.get("/queue", order="random", seed=4, limit=4)
    assert [item["id"] for item in page["items"]] + ann.ids(order="random", seed=4, cursor=page["cursor"]) == shuffled
    for wrong in ({"area_max": "inf"}, {"order": "best"}, {"seed": -1}, {"disagreement": "perhaps"}, {"tab": ""}):
        ann.get("/queue", 422, **wrong)
    ann.get("/queue", 422, order="random", seed=5, cursor=page["cursor"])


def test_what_a_filter_can_name(people):
    (recipe,) = people["ann"].get("/recipes")
    assert (recipe["id"], recipe["active"], recipe["candidates"]) == (1, True, 6)
    assert len(people["ann"].get("/classes", recipe=1)) == 3


def test_leases_over_http(people):
    ann, bob = people["ann"], people["bob"]
    page = ann.get("/queue", tab="left", limit=2)
    assert [item["id"] for item in page["items"]] == [1, 2]
    assert page["leased_until"] and page["lease_seconds"] == 120
    assert bob.ids(tab="right", limit=2) == [3, 4]
    renewed = bob.post("/leases/renew", {"tab": "right", "ids": [1, 3, 5]})
    assert (renewed["leased"], renewed["lost"]) == ([3, 5], [1])
    assert bob.post("/leases", {"tab": "right", "ids": [4]})["leased"] == [4]
    assert bob.post("/leases/release", {"tab": "right", "ids": [3]}) == {"released": 1}
    assert bob.call("DELETE", "/leases", json={"tab": "right"}) == {"released": 2}
    assert ann.ids(tab="other") == [3, 4, 5, 6]
    assert ann.get("/queue", state="all", tab="left")["leased_until"] is None
    for wrong in ({"ids": [1]}, {"tab": "", "ids": [1]}, {"tab": "t", "ids": ["1"]}, {"tab": "t", "ids": [0]}):
        ann.post("/leases/renew", wrong, 422)
    ann.post("/leases/renew", {"tab": "t", "ids": list(range(1, MAX_LEASES + 2))}, 422)


def test_undo_and_redo_over_http(people):
    ann = people["ann"]
    nothing = {"uuid": None, "item": None, "verdict": None, "reasons": None}
    assert ann.get("/last-undone") == nothing
    first, second, *_ = ann.get("/queue")["items"]
    ann.judge(first, "reject", reasons=["shadow_or_reflection"])
    undo = {"uuid": str(uuid.uuid4()), "verdict": "undo"}
    ann.post("/decisions", {"events": [undo]})
    undone = ann.get("/last-undone")
    assert (undone["uuid"], undone["item"]["id"], undone["item"]["verdict"]) == (undo["uuid"], first["id"], None)
    assert (undone["verdict"], undone["reasons"]) == ("reject", ["shadow_or_reflection"])
    redo = {"uuid": str(uuid.uuid4()), "verdict": "redo", "redoes": undone["uuid"]}
    answers = ann.post("/decisions", {"events": [redo, redo, {"uuid": str(uuid.uuid4()), "verdict": "redo"}]})
    assert [(answer["status"], answer["candidate_id"], answer["standing"]) for answer in answers] == [
        ("stored", first["id"], "reject"),
        ("duplicate", first["id"], "reject"),
        ("refused", None, None),
    ]
    assert answers[2]["field"] == "redoes" and answers[2]["error"].endswith(".")
    assert ann.get("/last-undone") == nothing
    assert ann.get("/last")["uuid"] == redo["uuid"]
    history = ann.get(f"/history/{first['id']}")
    assert [(entry["verdict"], entry["via"], entry["undone"], entry["redone"]) for entry in history["decisions"]] == [
        ("reject", "single", True, False),
        ("undo", "single", False, True),
        ("reject", "redo", False, False),
    ]
    assert history["adjudications"] == []
    (version,) = history["versions"]
    assert (version["version"], version["thumbnail"]) == (1, first["urls"]["thumbnail"])
    assert people["bob"].get("/last-undone") == nothing
    ann.judge(second, "accept")
    refused = ann.post("/decisions", {"events": [{"uuid": str(uuid.uuid4()), "verdict": "accept", "via": "redo"}]})
    assert refused[0]["field"] == "via"


def test_adjudication_over_http(disagreed):
    judge = disagreed["judge"]
    page = judge.get("/adjudication")
    assert (page["total"], page["cursor"]) == (1, None)
    (entry,) = page["items"]
    assert {(opinion["verdict"], opinion["annotator"][:10]) for opinion in entry["opinions"]} == {
        ("accept", "annotator "),
        ("reject", "annotator "),
    }
    word = {"uuid": str(uuid.uuid4()), "candidate_id": 1, "result_sha256": entry["item"]["sha256"]}
    judge.post("/adjudication", word | {"verdict": "reject"}, 422)
    judge.post("/adjudication", word | {"verdict": "accept", "result_sha256": "0" * 64}, 422)
    judge.post("/adjudication", word | {"verdict": "accept", "more": 1}, 422)
    reject = word | {"verdict": "reject", "reasons": ["part_left"], "note": "a fin"}
    assert [judge.post("/adjudication", reject)["status"] for _ in range(2)] == ["stored", "duplicate"]
    assert judge.get("/adjudication") == {"items": [], "cursor": None, "total": 0}
    (said,) = judge.get("/history/1")["adjudications"]
    assert (said["user_name"], said["reasons"], said["note"], said["stands"]) == ("judge", ["part_left"], "a fin", True)
    assert disagreed["ann"].get("/history/1")["adjudications"] == []
    undo = {"uuid": str(uuid.uuid4()), "candidate_id": 1, "verdict": "undo"}
    assert judge.post("/adjudication", undo)["standing"] is None
    assert judge.get("/adjudication", skips=1, recipe=1, limit=1)["total"] == 1
    assert judge.get("/adjudication", recipe=9)["total"] == 0


def test_agreement_over_http(disagreed):
    judge, boss = disagreed["judge"], disagreed["boss"]
    summary = judge.get("/agreement")
    assert (summary["sample"], summary["ratings_per_item"], summary["overall"]["items"]) == ("overlap", 2, 1)
    assert judge.get("/overlap") == {"share": 1.0, "k": 2, "seed": 0}
    for wrong in ({"share": 2, "k": 2}, {"share": 0.5, "k": 1}, {"share": 0.5}):
        boss.call("PUT", "/overlap", 422, json=wrong)
    assert boss.call("PUT", "/overlap", json={"share": 0, "k": 3, "seed": 7}) == {"share": 0, "k": 3, "seed": 7}


def test_gold_items_over_http(people):
    ann, judge, boss = people["ann"], people["judge"], people["boss"]
    boss.call("PUT", "/gold/2", 204, json={"verdict": "reject", "reasons": ["object_left"], "note": "clear"})
    boss.call("PUT", "/gold/2", 422, json={"verdict": "skip"})
    boss.call("PUT", "/gold/99", 422, json={"verdict": "accept"})
    (entry,) = boss.get("/gold")
    assert (entry["candidate_id"], entry["created_by"], entry["note"]) == (2, "boss", "clear")
    items = {item["id"]: item for item in ann.get("/queue")["items"]}
    assert set(items[2]) == set(items[1]), "nothing tells a gold item"
    ann.judge(items[2], "accept")
    assert 2 in people["bob"].ids()
    (score,) = judge.get("/gold/report")
    assert (score["name"], score["judged"], score["correct"], score["wrong_accepts"]) == ("ann", 1, 0, 1)
    boss.call("DELETE", "/gold/2", 204)
    boss.call("DELETE", "/gold/2", 404)
    assert 2 not in people["bob"].ids()


def test_views_over_http(people):
    ann, bob, judge = people["ann"], people["bob"], people["judge"]
    query = {"state": "skipped", "area_max": "0.25", "duplicates": "true", "order": "uncertain", "class_index": "1"}
    saved = ann.post("/views", {"name": "small", "query": query, "shared": True})
    assert saved["query"] == {
        "state": "skipped",
        "area_max": 0.25,
        "duplicates": True,
        "order": "uncertain",
        "class_index": 1,
    }
    assert ann.ids(**saved["query"]) == []
    ann.post("/views", {"name": "nothing set", "query": {"state": "unreviewed", "order": "id"}})
    assert [(view["name"], view["mine"], view["query"]) for view in ann.get("/views")] == [
        ("nothing set", True, {}),
        ("small", True, saved["query"]),
    ]
    assert [(view["name"], view["owner"], view["mine"]) for view in bob.get("/views")] == [("small", "ann", False)]
    for wrong in ({"area_max": "wide"}, {"colour": "red"}, {"cursor": "x"}):
        ann.post("/views", {"name": "bad", "query": wrong}, 422)
    ann.post("/views", {"name": " ", "query": {}}, 422)
    # A view that looks at others is for those who may.
    ann.post("/views", {"name": "theirs", "query": {"verdict": "reject"}}, 403)
    judge.post("/views", {"name": "disagreed", "query": {"disagreement": True, "state": "all"}, "shared": True})
    assert [view["name"] for view in bob.get("/views")] == ["small"]
    bob.call("DELETE", f"/views/{saved['id']}", 404)
    people["boss"].call("DELETE", f"/views/{saved['id']}", 204)
    assert bob.get("/views") == []
