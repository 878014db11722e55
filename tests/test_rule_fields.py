"""Expressions over the real tables, auto verdicts, what-if, and whose verdict a frozen item carries."""

from __future__ import annotations

import json
import uuid

import pytest
from sqlalchemy import select

from db.models import (
    Adjudication,
    AutoVerdict,
    BuildItem,
    Candidate,
    DuplicateMember,
    GoldItem,
    TriageBand,
    TriageModel,
    TriagePrediction,
    Verdict,
    utcnow,
)
from db.queries import ensure_user, set_meta
from exports.builds import freeze
from exports.fields import CLASS_KAPPA, FIELDS
from exports.rules import Rule, RuleError
from exports.what_if import preview, what_if
from tests.test_builds import CLASSES, Small, make_small


@pytest.fixture
def small(workspace) -> Small:
    """``accepted`` and ``skipped`` among others; the model accepts ``undecided`` ones in a confirmed band."""
    return make_small(workspace)


def members(small: Small, expression: str, **options: object) -> set[str]:
    rule = Rule(verdicts="any", expression=expression, **options)
    with small.workspace.read() as session:
        found = preview(session, small.recipe, rule, sample_size=99).sample
    names = {candidate.id: name for name, candidate in small.candidates.items()}
    return {names[identifier] for identifier in found}


@pytest.fixture
def everyone(small) -> set[str]:
    return members(small, "")


def add_band(small: Small, verdicts: dict[str, Verdict]) -> None:
    with small.workspace.write() as session:
        model = TriageModel(recipe_id=small.recipe.id, last_decision_id=0, trained_on=9, features=[], metrics={})
        session.add(model)
        session.flush()
        band = TriageBand(model_id=model.id, accept_above=0.9, reject_below=0.1, estimate={}, confirmed_by="Ada")
        session.add(band)
        session.flush()
        for name, verdict in verdicts.items():
            p = 0.95 if verdict is Verdict.ACCEPT else 0.05
            identifier = small.candidates[name].id
            session.add(AutoVerdict(candidate_id=identifier, band_id=band.id, verdict=verdict, p_accept=p))
            session.add(TriagePrediction(candidate_id=identifier, model_id=model.id, p_accept=p, uncertainty=0.45))


def test_every_field_can_be_used(small, everyone):
    for name, field in FIELDS.items():
        if field.type == "number":
            expression = f"{name} > -1000 or {name} <= 1000"
        elif field.type == "yes_no":
            expression = f"{name} or not {name}"
        else:
            expression = f'{name} != "{field.values[0] if field.values else "no such"}"'
        assert members(small, expression) <= everyone, name
        if field.type == "yes_no":
            assert members(small, expression) == everyone, name


def test_a_class_by_wnid_name_or_index(small):
    index = small.candidates["accepted"].class_index
    wnid, name = CLASSES[index]
    by_wnid = members(small, f'class == "{wnid}"')
    assert "accepted" in by_wnid
    assert members(small, f"class == '{name}'") == members(small, f'class == "{index}"') == by_wnid


def test_recipe_prefix_kappa_gold_and_duplicates(small, everyone):
    accepted = small.candidates["accepted"]
    other = small.candidates[next(name for name in sorted(everyone) if name != "accepted")]
    with small.workspace.write() as session:
        set_meta(session, CLASS_KAPPA, json.dumps({str(accepted.class_index): 0.8}))
        session.add(GoldItem(candidate_id=accepted.id, verdict=Verdict.ACCEPT))
        for candidate in (accepted, other):
            session.add(DuplicateMember(candidate_id=candidate.id, group_id=1, distance=2))
    assert members(small, f'recipe == "{small.recipe.hash[:6]}"') == everyone
    assert members(small, 'recipe == "%"') == set()
    assert "accepted" in members(small, "kappa > 0.7")
    assert members(small, "kappa > 0.9") == set()
    assert members(small, "gold") == {"accepted"}
    assert len(members(small, "duplicates == 1")) == 2
    assert members(small, "duplicates == 0") == everyone - members(small, "duplicates == 1")


def test_what_is_not_known_leaves_out(small, everyone):
    assert members(small, "p_accept > 0.5") == members(small, "not p_accept > 0.5") == set()
    add_band(small, {"skipped": Verdict.ACCEPT})
    assert members(small, "p_accept > 0.5") == {"skipped"}


def test_auto_verdicts_count_where_nobody_judged_and_can_be_left_out(small):
    before = members_of(small, "accepted", auto=True)
    assert "skipped" not in before
    add_band(small, {"skipped": Verdict.ACCEPT, "accepted": Verdict.REJECT})
    after = members_of(small, "accepted", auto=True)
    assert after == before | {"skipped"}  # a person accepted the other one, whatever the model says
    assert members_of(small, "accepted", auto=False) == before
    with small.workspace.write() as session:
        session.scalar(select(TriageBand)).revoked_at = utcnow()
    assert members_of(small, "accepted", auto=True) == before


def members_of(small: Small, verdicts: str, *, auto: bool) -> set[str]:
    with small.workspace.read() as session:
        found = preview(session, small.recipe, Rule(verdicts=verdicts, auto=auto), sample_size=99).sample
    return {name for name, candidate in small.candidates.items() if candidate.id in found}


def test_a_frozen_item_says_who_decided(small):
    add_band(small, {"skipped": Verdict.ACCEPT})
    adjudicated = small.candidates["shallow"]
    with small.workspace.write() as session:
        session.add(
            Adjudication(
                uuid=str(uuid.uuid4()),
                candidate_id=adjudicated.id,
                user_id=ensure_user(session).id,
                verdict=Verdict.ACCEPT,
                result_sha256=adjudicated.result_sha256,
            )
        )
    build = freeze(small.workspace, "all", Rule(verdicts="any")).build
    with small.workspace.read() as session:
        said = dict(session.execute(select(BuildItem.candidate_id, BuildItem.decided_by)).all())
        parts = set(session.scalars(select(BuildItem.part)))
    assert said[small.candidates["accepted"].id] == "human"
    assert said[small.candidates["skipped"].id] == "auto"
    assert said[adjudicated.id] == "adjudicator"
    assert sum(build.summary["decided_by"].values()) == build.item_count
    assert parts <= {"val", "test"}


def test_what_if_names_who_enters_and_who_leaves(small):
    all_drops = {candidate.id: candidate.drop for candidate in small.candidates.values()}
    with small.workspace.read() as session:
        newest = set(session.scalars(select(Candidate.id)))
        change = what_if(
            session, small.recipe, Rule(verdicts="any"), Rule(verdicts="any", drop_above=5), sample_size=99
        )
        back = what_if(session, small.recipe, Rule(verdicts="any", drop_above=5), Rule(verdicts="any"), sample_size=99)
    assert change.entered == 0
    assert change.left == len(change.left_sample) > 0
    assert set(change.left_sample) <= newest
    assert all(all_drops[identifier] <= 5 for identifier in change.left_sample if identifier in all_drops)
    assert (back.entered, back.entered_sample) == (change.left, change.left_sample)
    assert sum(change.classes.values()) == -change.left


def test_a_wrong_expression_is_the_rules_error():
    with pytest.raises(RuleError, match="expression: Character 1: there is no field 'dorp'"):
        Rule(expression="dorp > 5")


def test_a_rule_of_before_reads_as_the_same_rule():
    old = {name: value for name, value in Rule(drop_above=5.0).to_json().items() if name not in ("expression", "auto")}
    assert Rule.from_json(old) == Rule(drop_above=5.0)
    rule = Rule(expression="drop > 5   and not rejected")
    assert rule.expression == "drop > 5 and not rejected"
    assert Rule.from_json(rule.to_json()) == rule
    assert "`drop > 5 and not rejected`" in rule.describe()
