"""The routes of the Build page against known answers, and the memory behind them against reading anew."""

from __future__ import annotations

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings

from app.build_facts import refresh_class_kappas
from app.build_routes import build_router
from app.server import create_app
from db.changes import ChangeCounter
from db.models import Recipe, Role, SourceImage, User, Verdict
from db.queries import CLASS_LIST_SHA256, ensure_user, get_meta, set_meta
from exports.builds import compare, find_build, freeze
from exports.datacard import data_card
from exports.loaded_facts import KeptFacts
from exports.rules import PRESETS, Rule
from exports.what_if import preview, preview_and_what_if, what_if
from tests.browser import synthetic_candidates
from tests.test_builds import crowd, make_small, rules

__all__ = ["crowd"]

WHAT_IF = "/api/builds/what-if"


@pytest.fixture
def client(workspace):
    """Twenty candidates of three classes with drops 0, 0.5, ..., 9.5."""
    synthetic_candidates(workspace, 20, size=8)
    with workspace.write() as session:
        ada = ensure_user(session, "Ada")
        ada.role = Role.ADMIN
        user = ada.id
    app = FastAPI()
    app.include_router(build_router(workspace, lambda: user))
    return TestClient(app)


def ask(client, rule: dict, **more) -> dict:
    answer = client.post(WHAT_IF, json={"rule": rule, **more})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_threshold_shows_count_balance_and_who_leaves(client):
    seen = ask(client, {"drop_above": 5.0})
    # drops 5.5 to 9.5 are the candidates 12 to 20, whose classes are 2, 0, 1, 2, ...
    assert (seen["candidates"], seen["members"]) == (20, 9)
    assert seen["excluded"] == [{"cause": "drop", "text": "drop too low", "count": 11}]
    assert seen["balance"] == {
        "classes": 3,
        "with_members": 3,
        "smallest": 3,
        "median": 3.0,
        "largest": 3,
        "class_counts": [0, 0, 0, 3],
        "empty_classes": [],
    }
    assert seen["rule_in_words"] == PRESETS["bg_s"].describe()
    assert [item["id"] for item in seen["sample"]] == list(range(12, 21))
    assert seen["sample"][0]["drop"] == 5.5
    change = seen["change"]
    assert (change["reference"], change["before"], change["entered"], change["left"]) == ("bg", 20, 0, 11)
    assert {item["id"] for item in change["left_sample"]} == set(range(1, 12))
    assert [(one["class_name"], one["change"]) for one in change["classes"]] == [
        ("tench", -4),
        ("goldfish", -4),
        ("great white shark", -3),
    ]
    assert seen["histogram"]["threshold"] == 5.0
    assert sum(seen["histogram"]["members"]) == 9 and sum(seen["histogram"]["all"]) == 20


def test_against_a_preset_and_against_a_frozen_build(client, workspace):
    freeze(workspace, "deep", Rule(drop_at_least=9.0))
    loose = ask(client, {"drop_above": 5.0}, against={"build": "deep"})["change"]
    assert (loose["reference"], loose["before"], loose["entered"], loose["left"]) == ("deep-v1", 2, 7, 0)
    assert [item["id"] for item in loose["entered_sample"]] == list(range(12, 19))
    strict = ask(client, {"expression": "drop > 9.2"}, against={"preset": "bg_s"})["change"]
    assert (strict["before"], strict["entered"], strict["left"]) == (9, 0, 8)
    empty = ask(client, {"area_min": 0.9})
    assert (empty["members"], empty["change"]["left"], empty["balance"]["class_counts"]) == (0, 20, [3])
    assert empty["balance"]["empty_classes"] == ["tench", "goldfish", "great white shark"]


@pytest.mark.parametrize(
    ("rule", "field", "position"),
    [
        ({"expression": "area < 0.5 and dorp > 3"}, "expression", 15),
        ({"area_min": 0.9, "area_max": 0.1}, "area_min", None),
        ({"drop_above": 1.0, "drop_at_least": 1.0}, "drop_at_least", None),
        ({"colour": "blue"}, "colour", None),
        ({"expression": 7}, "rule", None),
    ],
)
def test_what_is_wrong_with_a_rule_is_said_at_its_place(client, rule, field, position):
    refused = ask(client, rule)
    assert (refused["field"], refused["position"]) == (field, position)
    frozen = client.post("/api/builds", json={"name": "x", "rule": rule})
    assert (frozen.status_code, frozen.json()) == (422, refused)


@pytest.mark.parametrize(
    ("against", "status"),
    [({"build": "none"}, 404), ({"preset": "x"}, 422), ({}, 422), ({"preset": "bg", "build": "b"}, 422)],
)
def test_a_reference_that_is_not_there_is_refused(client, against, status):
    answer = client.post(WHAT_IF, json={"rule": {}, "against": against})
    assert answer.status_code == status and answer.json()["error"].endswith(".")


def test_freeze_list_and_compare(client, workspace):
    first = client.post("/api/builds", json={"name": "bg", "note": " the  first ", "rule": {}}).json()
    assert (first["label"], first["images"], first["is_new"]) == ("bg-v1", 20, True)
    assert client.post("/api/builds", json={"name": "bg", "rule": {}}).json()["is_new"] is False
    client.post("/api/builds", json={"name": "bg", "rule": {"drop_above": 5.0}})
    assert client.post("/api/builds", json={"name": "B g", "rule": {}}).status_code == 422
    assert "characters" in client.post("/api/builds", json={"name": "b", "note": "x" * 501, "rule": {}}).json()["error"]
    listed = client.get("/api/builds").json()
    assert [(one["label"], one["images"], one["note"], one["created_by"]) for one in listed] == [
        ("bg-v2", 9, "", "Ada"),
        ("bg-v1", 20, "the first", "Ada"),
    ]
    assert listed[1]["statement"] == "not audited" and listed[1]["content_hash"] == first["content_hash"]
    found = client.get("/api/builds/compare", params={"before": "bg-1", "after": "bg-2"}).json()
    counts = {key: found[key] for key in ("entered", "left", "changed", "unchanged")}
    assert counts == {"entered": 0, "left": 11, "changed": 0, "unchanged": 9}
    assert [(one["class_name"], one["left"]) for one in found["classes"]] == [
        ("tench", 4),
        ("goldfish", 4),
        ("great white shark", 3),
    ]
    assert {item["source_name"] for item in found["left_sample"]} == {f"photo_{number:04d}" for number in range(11)}
    back = client.get("/api/builds/compare", params={"before": "bg-2", "after": "bg-1"}).json()
    assert (back["entered"], back["entered_sample"]) == (11, found["left_sample"])
    assert client.get("/api/builds/compare", params={"before": "bg-1", "after": "no"}).status_code == 404
    with workspace.read() as session:
        build = find_build(session, "bg-1")
        assert "Note: the first" in data_card(build, session.get_one(Recipe, build.recipe_id))


def test_choices_say_what_a_rule_may_say(client, workspace):
    choices = client.get("/api/builds/choices").json()
    assert choices["candidates"] == 20
    assert choices["ranges"] == {"drop": [0.0, 9.5], "residual": [0.1, 2.0], "area": [0.18, 0.18]}
    assert {preset["name"]: Rule.from_json(preset["rule"]) for preset in choices["presets"]} == PRESETS
    assert {"drop", "kappa", "duplicates", "class"} <= {field["name"] for field in choices["fields"]}


def test_without_candidates_the_page_is_told_what_comes_first(workspace):
    with workspace.write() as session:
        user = ensure_user(session).id
    app = FastAPI()
    app.include_router(build_router(workspace, lambda: user))
    empty = TestClient(app)
    assert empty.get("/api/builds/choices").json()["candidates"] == 0
    answer = empty.post(WHAT_IF, json={"rule": {}})
    assert answer.status_code == 409 and "generate candidates first" in answer.json()["error"]


def test_builds_are_for_admins(client, workspace):
    with workspace.write() as session:
        session.query(User).filter(User.name == "Ada").one().role = Role.ADJUDICATOR
    assert client.get("/api/builds").status_code == 403
    assert client.post(WHAT_IF, json={"rule": {}}).status_code == 403
    served = TestClient(create_app(workspace), base_url="http://127.0.0.1")
    assert served.get("/api/builds/choices").json()["candidates"] == 20


@given(before=rules(), after=rules())
@settings(max_examples=40, deadline=None)
def test_what_if_is_the_difference_of_two_rules(crowd, before, after):
    """Whatever the two rules, entered and left are the set differences of what each takes in by itself."""
    workspace, recipe, _ = crowd
    with workspace.read() as session:
        old, new = (set(preview(session, recipe, rule, sample_size=999).sample) for rule in (before, after))
        change = what_if(session, recipe, before, after, sample_size=999)
    assert (set(change.entered_sample), set(change.left_sample)) == (new - old, old - new)
    assert (change.before, change.entered, change.left) == (len(old), len(new - old), len(old - new))
    assert sum(change.classes.values()) == len(new) - len(old)


def test_kept_facts_are_those_of_now(workspace):
    """What is remembered is used again only while nothing was committed."""
    small = make_small(workspace)
    kept = KeptFacts(workspace)
    rule = Rule()

    def members() -> int:
        with workspace.read() as session:
            return preview_and_what_if(session, small.recipe, rule, rule, source=kept)[0].members

    assert members() == 3
    first = kept.facts(small.recipe, [rule])
    assert kept.facts(small.recipe, [rule]) is first
    small.maker.vote(small.candidates["skipped"], "Cyd", Verdict.REJECT)
    assert members() == 2
    assert kept.facts(small.recipe, [rule]) is not first


def test_the_counter_sees_every_commit_and_no_reading(workspace):
    changes = ChangeCounter(workspace)
    start = changes.value()
    with workspace.read() as session:
        get_meta(session, CLASS_LIST_SHA256)
    assert changes.value() == start
    with workspace.write() as session:
        set_meta(session, "x", "1")
    assert changes.value() != start


def test_kappas_are_computed_anew_after_a_decision_only(workspace, monkeypatch):
    small = make_small(workspace)
    calls = []
    monkeypatch.setattr("app.build_facts.keep_class_kappas", lambda session, recipe: calls.append(recipe.id))
    refresh_class_kappas(workspace, small.recipe)
    refresh_class_kappas(workspace, small.recipe)
    assert len(calls) == 1
    small.maker.vote(small.candidates["skipped"], "Cyd", Verdict.ACCEPT)
    refresh_class_kappas(workspace, small.recipe)
    assert len(calls) == 2


def test_compare_counts_classes_of_remade_images_too(workspace):
    small = make_small(workspace)
    first = freeze(workspace, "bg", Rule(verdicts="any")).build
    with workspace.read() as session:
        source = session.get_one(SourceImage, small.candidates["accepted"].source_id)
    small.maker.candidate(source, small.recipe, version=2, drop=6.0)
    second = freeze(workspace, "bg", Rule(verdicts="any")).build
    with workspace.read() as session:
        found = compare(session, first, second)
    assert (found.entered, found.left, len(found.changed)) == ((), (), 1)
    assert found.classes == {small.candidates["accepted"].class_index: (0, 0, 1)}
