"""What an audit is drawn from: the members of a frozen build, or those a rule would take in now."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Candidate, Recipe, SourceImage
from exports.builds import find_build
from exports.rules import Rule
from exports.verdicts import decided_by
from review.audit import Member, build_members


@dataclass(frozen=True)
class Membership:
    """The members with the recipe and rule behind them; ``build_id`` is None for a rule that is not frozen."""

    recipe_id: int
    rule: dict
    members: list[Member]
    build_id: int | None = None


def members_of_build(session: Session, reference: str) -> Membership:
    """Of a frozen build, named as in ``exports.builds.find_build``, which raises ``UnknownBuild``."""
    build = find_build(session, reference)
    return Membership(build.recipe_id, build.rule, build_members(session, build.id), build.id)


def members_of_rule(session: Session, recipe: Recipe, rule: Rule) -> Membership:
    """Of a build that the rule would give now."""
    query = (
        select(
            Candidate.id,
            Candidate.result_sha256,
            Candidate.class_index,
            Candidate.drop,
            decided_by(auto=rule.auto),
        )
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(rule.where(recipe.id))
        .order_by(Candidate.id)
    )
    return Membership(recipe.id, rule.to_json(), [Member(*row) for row in session.execute(query)])
