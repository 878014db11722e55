"""Intervals against known answers and exact coverage; samples, judgements, reports, and the way to the page."""

from __future__ import annotations

import itertools
import math
import uuid
from collections import Counter

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom
from sqlalchemy import update
from sqlalchemy.exc import DatabaseError
from typer.testing import CliRunner

from app.audit_members import members_of_build, members_of_rule
from app.audit_routes import audit_router
from app.cli import app as command_line
from db.models import AuditItem, AuditJudgement, Candidate, Recipe, Role, User
from exports.builds import find_build, freeze
from exports.rules import PRESETS, Rule
from review.audit import AuditError, Strata, draw_audit, judge, next_to_judge
from review.audit_report import NOT_AUDITED, audit_report, audit_statement, build_audit
from review.decisions import Status
from review.events import MalformedEvent, ReasonNotAllowed, StaleResult, UuidTaken
from review.intervals import (
    IntervalError,
    Stratum,
    clopper_pearson,
    estimate_share,
    sample_size_for,
    upper_bound,
)
from tests.judged_material import make_candidates, say, user_id_of

# ---- intervals ----


def test_known_intervals():
    assert upper_bound(0, 300) == pytest.approx(1 - 0.05 ** (1 / 300)) == pytest.approx(0.00994, abs=5e-6)
    low_high = clopper_pearson(3, 100)
    assert (low_high.lower, low_high.upper) == (pytest.approx(0.00623, abs=5e-6), pytest.approx(0.08518, abs=5e-6))
    assert (clopper_pearson(0, 10).lower, clopper_pearson(10, 10).upper, upper_bound(10, 10)) == (0, 1, 1)
    # The rule of three, and Clopper and Pearson's own example: 10 of 50.
    assert upper_bound(0, 1000) == pytest.approx(3 / 1000, rel=0.01)
    tens = clopper_pearson(10, 50)
    assert (tens.lower, tens.upper) == (pytest.approx(0.1003, abs=5e-5), pytest.approx(0.3372, abs=5e-5))


@settings(max_examples=100, deadline=None)
@given(judged=st.integers(1, 3000), data=st.data(), confidence=st.floats(0.5, 0.999))
def test_the_bounds_are_quantiles_of_the_beta_distribution(judged, data, confidence):
    found = data.draw(st.integers(0, judged))
    tail = 1 - confidence
    both = clopper_pearson(found, judged, confidence)
    if found < judged:
        assert upper_bound(found, judged, confidence) == pytest.approx(beta.ppf(1 - tail, found + 1, judged - found))
        assert both.upper == pytest.approx(beta.ppf(1 - tail / 2, found + 1, judged - found))
    if found:
        assert both.lower == pytest.approx(beta.ppf(tail / 2, found, judged - found + 1))


@pytest.mark.parametrize(("found", "judged", "confidence"), [(-1, 5, 0.95), (6, 5, 0.95), (0, 0, 0.95), (1, 5, 1.0)])
def test_no_sample_has_such_counts(found, judged, confidence):
    with pytest.raises(IntervalError):
        clopper_pearson(found, judged, confidence)


def test_known_sample_sizes():
    assert [sample_size_for(bound) for bound in (0.05, 0.02, 0.01, 0.005)] == [59, 149, 299, 598]
    for bound, expected in [(0.05, 0.02), (0.1, 0.03), (0.02, 0.005)]:
        size = sample_size_for(bound, expected)

        def passes(size, bound=bound, expected=expected):
            return upper_bound(min(size, math.ceil(expected * size)), size) <= bound

        assert passes(size) and not any(passes(smaller) for smaller in range(1, size))
    for bound, expected in [(0.01, 0.01), (0, 0), (1, 0), (0.01, -0.1), (1e-9, 0)]:
        with pytest.raises(IntervalError):
            sample_size_for(bound, expected)


def test_one_stratum_is_clopper_pearson_and_everything_is_a_census():
    one = estimate_share([Stratum(5000, 300, 2)])
    assert (one.share, one.upper, one.method) == (2 / 300, upper_bound(2, 300), "clopper_pearson")
    assert one.interval == clopper_pearson(2, 300)
    every = estimate_share([Stratum(10, 10, 1), Stratum(30, 30, 0)])
    assert (every.share, every.upper, every.interval.lower, every.method) == (1 / 40, 1 / 40, 1 / 40, "census")


def test_proportional_strata_cost_next_to_nothing_and_weights_count():
    even = estimate_share([Stratum(4000, 80, 0), Stratum(6000, 120, 0)])
    assert (even.share, even.method) == (0, "stratified") and even.upper == pytest.approx(upper_bound(0, 200))
    # A stratum of a tenth with half of the judged: its find weighs a tenth of what it would in a plain sample.
    skewed = estimate_share([Stratum(900, 50, 0), Stratum(100, 50, 5)])
    assert skewed.share == pytest.approx(0.1 * 5 / 50)
    assert skewed.upper == pytest.approx(1.8 * upper_bound(5, 100))
    with pytest.raises(IntervalError, match="every stratum"):
        estimate_share([Stratum(900, 50, 0), Stratum(100, 0, 0)])


@pytest.mark.parametrize("shares", [(0.02, 0.02), (0.1, 0.0), (0.0, 0.4), (0.3, 0.05), (0.05, 0.6)])
@pytest.mark.parametrize("sizes", [((8000, 16), (2000, 4)), ((9000, 12), (1000, 8)), ((5000, 5), (5000, 20))])
def test_the_bounds_hold_as_often_as_they_say(shares, sizes):
    """Exact coverage over every outcome of two strata."""
    population = sum(size for size, _ in sizes)
    truth = sum(size / population * share for (size, _), share in zip(sizes, shares, strict=True))
    covered_above = covered_both = 0.0
    for counts in itertools.product(*(range(drawn + 1) for _, drawn in sizes)):
        chance = math.prod(
            binom.pmf(k, drawn, share) for k, (_, drawn), share in zip(counts, sizes, shares, strict=True)
        )
        estimate = estimate_share([Stratum(size, drawn, k) for k, (size, drawn) in zip(counts, sizes, strict=True)])
        covered_above += chance * (truth <= estimate.upper + 1e-12)
        covered_both += chance * (estimate.interval.lower - 1e-12 <= truth <= estimate.interval.upper + 1e-12)
    assert covered_above >= 0.95 and covered_both >= 0.95


# ---- samples ----


@pytest.fixture
def material(workspace):
    return make_candidates(workspace, 60)


def draw_all(workspace, material, **options):
    with workspace.read() as session:
        recipe = session.get(Recipe, material.recipe_id)
        found = members_of_rule(session, recipe, Rule())
    options = {"size": 20} | options
    return draw_audit(workspace, found.members, recipe_id=found.recipe_id, rule=found.rule, **options)


def items_of(workspace, audit_id) -> list[AuditItem]:
    with workspace.read() as session:
        return list(session.query(AuditItem).filter_by(audit_id=audit_id).order_by(AuditItem.position))


@pytest.mark.parametrize("strata", list(Strata))
def test_each_stratum_has_its_share_rounded_up(workspace, material, strata):
    audit = draw_all(workspace, material, strata=strata, size=17)
    items = items_of(workspace, audit.id)
    drawn = Counter(item.stratum for item in items)
    assert sum(audit.strata.values()) == 60 and set(drawn) == set(audit.strata)
    assert {name: math.ceil(17 * size / 60 - 1e-9) for name, size in audit.strata.items()} == dict(drawn)
    assert len(items) == audit.size == len({item.candidate_id for item in items})
    assert 17 <= audit.size < 17 + len(audit.strata)


def test_quarters_are_of_the_drop(workspace, material):
    audit = draw_all(workspace, material, strata="drop", size=60)
    with workspace.read() as session:
        drops: dict[str, list[float]] = {}
        for item in items_of(workspace, audit.id):
            drops.setdefault(item.stratum, []).append(session.get(Candidate, item.candidate_id).drop)
    quarters = [drops[name] for name in sorted(drops)]
    assert [len(quarter) for quarter in quarters] == [15] * 4
    assert all(max(low) <= min(high) for low, high in itertools.pairwise(quarters))


def test_the_same_seed_draws_the_same_in_the_same_order(workspace, material):
    first, again, other = (draw_all(workspace, material, seed=seed) for seed in (1, 1, 2))
    ids = [[item.candidate_id for item in items_of(workspace, audit.id)] for audit in (first, again, other)]
    assert ids[0] == ids[1] != ids[2]
    assert ids[0] != sorted(ids[0]), "shuffled"
    assert first.rule["rule"] == Rule().to_json() and (first.seed, first.created_by) == (1, "")


def test_every_member_is_drawn_as_often_as_any_other(workspace, material):
    counts = Counter()
    for seed in range(60):
        audit = draw_all(workspace, material, seed=seed, size=20, strata="none")
        counts.update(item.candidate_id for item in items_of(workspace, audit.id))
    # 60 draws with chance 1/3 each: 20 on average, with a deviation of 3.7.
    assert len(counts) == 60 and min(counts.values()) >= 6 and max(counts.values()) <= 36


@pytest.mark.parametrize(
    ("options", "message"), [({"size": 0}, "size"), ({"strata": "colour"}, "strata"), ({"size": 10**6}, "size")]
)
def test_a_sample_that_cannot_be_drawn(workspace, material, options, message):
    with pytest.raises(AuditError, match=message):
        draw_all(workspace, material, **options)
    with pytest.raises(AuditError, match="nothing"):
        draw_audit(workspace, [], recipe_id=material.recipe_id, rule={}, size=3)


# ---- judging ----


def judge_all(workspace, audit, user_id, left=lambda position: False, count=None):
    for item in items_of(workspace, audit.id)[:count]:
        done = judge(
            workspace,
            uuid=str(uuid.uuid4()),
            audit_id=audit.id,
            candidate_id=item.candidate_id,
            result_sha256=item.result_sha256,
            user_id=user_id,
            object_left=left(item.position),
            reasons=["part_left"] if left(item.position) else [],
        )
        assert done is Status.STORED


def report_of(workspace, audit_id):
    with workspace.read() as session:
        return audit_report(session, audit_id)


def test_from_sample_to_interval(workspace, material):
    audit = draw_all(workspace, material, size=20, strata="none")
    first, second = user_id_of(workspace, "first"), user_id_of(workspace, "second")
    assert report_of(workspace, audit.id).statement == f"audit {audit.id} not finished: 0 of 20 judged"
    assert report_of(workspace, audit.id).estimate is None
    judge_all(workspace, audit, second, left=lambda position: position == 3, count=12)
    partial = report_of(workspace, audit.id)
    assert (partial.judged, partial.object_left, partial.is_complete) == (12, 1, False)
    assert partial.estimate.upper == upper_bound(1, 12)
    with workspace.read() as session:
        rest = next_to_judge(session, audit.id)
        own = next_to_judge(session, audit.id, unseen_by=first, limit=100)
    assert [item.position for item in rest] == list(range(12, 20)) and len(own) == 20
    judge_all(workspace, audit, first)
    whole = report_of(workspace, audit.id)
    assert whole.is_complete and (whole.judged, whole.object_left, whole.disputed) == (20, 1, 1)
    assert whole.estimate.share == 1 / 20 and whole.estimate.upper == upper_bound(1, 20)
    assert whole.statement == "object left in <= 21.7 % (95 %): 1 of 20 judged at random"
    assert [(one.name, one.judged) for one in whole.auditors] == [("auditor-1", 12), ("auditor-2", 20)]
    assert whole.reasons == {"part_left": 1}
    assert whole.first_judged_at <= whole.last_judged_at


def test_judging_again_replaces_and_a_uuid_counts_once(workspace, material):
    audit = draw_all(workspace, material, size=5, strata="none")
    user = user_id_of(workspace)
    item = items_of(workspace, audit.id)[0]
    given = {
        "uuid": str(uuid.uuid4()),
        "audit_id": audit.id,
        "candidate_id": item.candidate_id,
        "result_sha256": item.result_sha256,
        "user_id": user,
        "object_left": True,
    }
    assert [judge(workspace, **given) for _ in range(2)] == [Status.STORED, Status.DUPLICATE]
    assert report_of(workspace, audit.id).object_left == 1
    judge(workspace, **given | {"uuid": str(uuid.uuid4()), "object_left": False})
    after = report_of(workspace, audit.id)
    assert (after.judged, after.object_left, after.disputed) == (1, 0, 0)
    for changes, error in [
        ({"object_left": False}, UuidTaken),
        ({"uuid": "no uuid"}, MalformedEvent),
        ({"uuid": str(uuid.uuid4()), "result_sha256": "0" * 64}, StaleResult),
        ({"uuid": str(uuid.uuid4()), "candidate_id": 10**6}, MalformedEvent),
        ({"uuid": str(uuid.uuid4()), "object_left": False, "reasons": ["shadow_or_reflection"]}, ReasonNotAllowed),
    ]:
        with pytest.raises(error):
            judge(workspace, **given | changes)
    with pytest.raises(DatabaseError, match="append-only"), workspace.write() as session:
        session.execute(update(AuditJudgement).values(object_left=False))


def test_a_whole_set_judged_has_no_uncertainty(workspace, material):
    audit = draw_all(workspace, material, size=60)
    judge_all(workspace, audit, user_id_of(workspace), left=lambda position: position < 3)
    assert report_of(workspace, audit.id).statement == "object left in 5.0 % (all 60 images judged)"


def test_a_bound_is_never_rounded_down(workspace, material):
    audit = draw_all(workspace, material, size=59, strata="none")
    judge_all(workspace, audit, user_id_of(workspace))
    found = report_of(workspace, audit.id)
    assert found.estimate.upper == pytest.approx(0.04951, abs=1e-5)
    assert "<= 5.0 % (95 %): 0 of 59" in found.statement


# ---- builds ----


def test_a_build_is_as_pure_as_the_audit_of_the_same_members(workspace, material):
    user = user_id_of(workspace)
    before = draw_all(workspace, material, size=10)
    judge_all(workspace, before, user)
    build = freeze(workspace, "bg", PRESETS["bg"]).build

    def applied(build):
        with workspace.read() as session:
            return build_audit(session, build)

    assert applied(build).audit_id == before.id, "drawn from the rule before it was frozen"
    with workspace.read() as session:
        found = members_of_build(session, "bg")
    assert found.build_id == build.id and len(found.members) == 60
    newer = draw_audit(
        workspace, found.members, recipe_id=found.recipe_id, rule=found.rule, size=12, seed=3, build_id=build.id
    )
    assert applied(build).audit_id == before.id, "the newer one is not finished"
    judge_all(workspace, newer, user)
    assert applied(build).audit_id == newer.id
    same = freeze(workspace, "same", PRESETS["bg"]).build
    assert applied(same).audit_id == newer.id, "another name, the same members"

    say(workspace, {material.ids[0]: False}, user)
    smaller = freeze(workspace, "bg", PRESETS["bg"]).build
    assert applied(smaller) is None and audit_statement(applied(smaller)) == NOT_AUDITED


def test_one_member_in_the_place_of_another_is_another_build(workspace, material):
    user = user_id_of(workspace)
    rejected = material.ids[0]
    say(workspace, {rejected: False}, user)
    audit = draw_all(workspace, material, size=10)
    judge_all(workspace, audit, user)
    say(workspace, {rejected: True, material.ids[1]: False}, user)
    build = freeze(workspace, "bg", PRESETS["bg"]).build
    with workspace.read() as session:
        assert build.item_count == sum(audit.strata.values()) == 59
        assert build_audit(session, find_build(session, "bg")) is None


def test_who_decided_can_divide_the_members(workspace, material):
    say(workspace, {material.ids[0]: True, material.ids[1]: True, material.ids[2]: None}, user_id_of(workspace))
    audit = draw_all(workspace, material, strata="decided_by", size=10)
    assert audit.strata == {"decided by human": 2, "decided by nobody": 58}


# ---- routes and commands ----


@pytest.fixture
def client(workspace, material):
    user = user_id_of(workspace, "local")
    app = FastAPI()
    app.include_router(audit_router(workspace, lambda: user))
    return TestClient(app)


def test_the_whole_way_by_routes(client, workspace, material):
    freeze(workspace, "bg", PRESETS["bg"])
    assert client.get("/api/audits/of-build/bg").json() == {"statement": "not audited", "report": None}
    drawn = client.post("/api/audits", json={"build": "bg", "size": 12, "strata": "none", "seed": 5})
    assert drawn.status_code == 201
    number = drawn.json()["id"]
    page = client.get(f"/api/audits/{number}/next", params={"limit": 100}).json()
    assert (page["drawn"], page["judged"], len(page["items"])) == (12, 0, 12)
    assert set(page["items"][0]) == {"position", "candidate_id", "sha256", "class_name", "urls"}, "nothing but pictures"
    judgements = [
        {
            "uuid": str(uuid.uuid4()),
            "candidate_id": item["candidate_id"],
            "result_sha256": item["sha256"],
            "object_left": item["position"] == 0,
            "reasons": ["object_left"] if item["position"] == 0 else [],
        }
        for item in page["items"]
    ]
    wrong = judgements[0] | {"uuid": str(uuid.uuid4()), "result_sha256": "0" * 64}
    answer = client.post(f"/api/audits/{number}/judgements", json={"judgements": [wrong, *judgements]}).json()
    assert [one["status"] for one in answer] == ["refused"] + ["stored"] * 12
    assert answer[0]["field"] == "result_sha256" and "reload" in answer[0]["error"]
    again = client.post(f"/api/audits/{number}/judgements", json={"judgements": judgements}).json()
    assert {one["status"] for one in again} == {"duplicate"}
    report = client.get(f"/api/audits/{number}/report").json()
    assert report["is_complete"] and report["object_left"] == 1
    assert report["upper"] == pytest.approx(upper_bound(1, 12)) and report["purity_at_least"] == 1 - report["upper"]
    assert client.get("/api/audits/of-build/bg").json()["statement"] == report["statement"]
    (listed,) = client.get("/api/audits").json()
    assert (listed["judged"], listed["is_complete"], listed["strata_by"]) == (12, True, "none")
    assert client.get("/api/audits/sample-size", params={"bound": 0.01}).json() == {"size": 299}


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"size": 5}, 422, "exactly one"),
        ({"preset": "bg", "build": "bg"}, 422, "exactly one"),
        ({"preset": "best"}, 422, "bg_s"),
        ({"build": "bg"}, 404, "no build"),
        ({"rule": {"drop_above": "high"}}, 422, "drop_above"),
        ({"rule": {"colour": 1}}, 422, "colour"),
        ({"preset": "bg", "strata": "colour"}, 422, "strata"),
        ({"preset": "bg", "size": "5"}, 422, "size"),
        ({"rule": {"drop_above": 1000.0}}, 422, "nothing"),
    ],
)
def test_wrong_draws_are_answered_with_sentences(client, body, status, words):
    answer = client.post("/api/audits", json=body)
    assert answer.status_code == status and words in answer.json()["error"]


def test_unknown_audits_and_annotators_are_refused(workspace, client, material):
    for way in ("next", "report"):
        assert client.get(f"/api/audits/9/{way}").status_code == 404
    assert client.post("/api/audits/9/judgements", json={"judgements": []}).status_code == 404
    with workspace.write() as session:
        annotator = User(name="ann", role=Role.ANNOTATOR, password_hash="x")
        session.add(annotator)
    app = FastAPI()
    app.include_router(audit_router(workspace, lambda: annotator.id))
    answer = TestClient(app).get("/api/audits")
    assert answer.status_code == 403 and "adjudicator" in answer.json()["error"]


def test_by_commands(workspace, material):
    run = CliRunner().invoke
    folder = ["-w", str(workspace.root)]
    drawn = run(command_line, ["audit", "draw", *folder, "--preset", "bg", "--size", "8", "--strata", "none"])
    assert drawn.exit_code == 0 and "8 of 60 candidates" in drawn.output
    judge_all(workspace, draw_all(workspace, material, size=7, strata="none"), user_id_of(workspace))
    listed = run(command_line, ["audit", "list", *folder]).output
    assert "not finished: 0 of 8" in listed and "0 of 7 judged at random" in listed
    shown = run(command_line, ["audit", "report", "2", *folder]).output
    assert "Object left in <= 34.9 % (95 %)" in shown and "auditor-1 (7)" in shown
    assert run(command_line, ["audit", "draw", *folder]).exit_code != 0
