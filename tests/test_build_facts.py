"""What review knows, in a build's summary and on its card."""

from __future__ import annotations

import uuid

import pytest

from app.build_facts import audit_facts, freeze_reviewed, keep_class_kappas
from app.jobs import find_handler
from db.models import GoldItem, Verdict
from db.progress import NoProgress
from db.queries import ensure_user
from exports.datacard import data_card
from exports.rules import Rule
from exports.what_if import preview
from review.audit import build_members, draw_audit, judge, next_to_judge
from tests.test_builds import Small, make_small


@pytest.fixture
def small(workspace) -> Small:
    made = make_small(workspace)
    with workspace.write() as session:
        session.add(GoldItem(candidate_id=made.candidates["accepted"].id, verdict=Verdict.ACCEPT))
    return made


def test_agreement_and_gold_stand_on_the_card(small):
    build = freeze_reviewed(small.workspace, "bg", Rule(verdicts="any")).build
    review = build.summary["review"]
    assert review["agreement"]["overall"]["items"] == 1  # annotators disagree on one candidate
    assert [row["correct"] for row in review["gold"]] == [1]
    card = data_card(build, small.recipe)
    assert "Agreement of the annotators" in card
    assert "| 1 | 1 | 1.000" in card
    assert "Not audited" in card


def test_a_judged_audit_stands_on_the_card_and_in_the_archive(small, tmp_path):
    build = freeze_reviewed(small.workspace, "bg", Rule(verdicts="any")).build
    with small.workspace.read() as session:
        assert audit_facts(session, build) is None
        members = build_members(session, build.id)
    with small.workspace.write() as session:
        auditor = ensure_user(session, "Cleo")
    audit = draw_audit(
        small.workspace, members, recipe_id=small.recipe.id, rule=build.rule, size=len(members), build_id=build.id
    )
    with small.workspace.read() as session:
        waiting = next_to_judge(session, audit.id, limit=99)
    for number, item in enumerate(waiting):
        judge(
            small.workspace,
            uuid=str(uuid.uuid4()),
            audit_id=audit.id,
            candidate_id=item.candidate_id,
            result_sha256=item.result_sha256,
            user_id=auditor.id,
            object_left=number == 0,
            reasons=["object_left"] if number == 0 else [],
        )
    with small.workspace.read() as session:
        facts = audit_facts(session, build)
    assert (facts["judged"], facts["object_left"]) == (len(members), 1)
    card = data_card(build, small.recipe, audit=facts)
    assert "**Audited:** object left in" in card
    assert "Not audited" not in card
    assert not {"Cleo", "Ada"} & set(card.split())
    params = {"build": "bg", "format": "imagefolder", "out": str(tmp_path)}
    find_handler("export")(small.workspace, params, NoProgress())
    assert b"**Audited:**" in (tmp_path / "imagenet-bg-v1.zip").read_bytes()


def test_class_kappas_are_kept_for_expressions(small):
    with small.workspace.write() as session:
        keep_class_kappas(session, small.recipe)
    with small.workspace.read() as session:
        assert preview(session, small.recipe, Rule(verdicts="any", expression="kappa > 0")).members == 0
