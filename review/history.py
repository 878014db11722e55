"""Everything that was ever decided on a candidate, and the versions it was made in."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import exists, select
from sqlalchemy.orm import Session, aliased

from db.models import Adjudication, Candidate, Decision, User, Verdict, Via


@dataclass(frozen=True)
class HistoryEntry:
    """One decision as it happened. ``undone``: it has been taken back; ``redone``: it is an undo that has been.

    ``undoes`` and ``redoes`` are the uuids of the decisions that an undo or a redo refers to.
    """

    uuid: str
    user_id: int
    user_name: str
    verdict: Verdict
    reasons: list[str]
    via: Via
    undoes: str | None
    redoes: str | None
    undone: bool
    redone: bool
    elapsed_ms: int | None
    created_at: dt.datetime


@dataclass(frozen=True)
class AdjudicationEntry:
    """One adjudication; ``stands`` for the latest, unless that is an undo."""

    uuid: str
    user_id: int
    user_name: str
    verdict: Verdict
    reasons: list[str]
    note: str
    stands: bool
    created_at: dt.datetime


@dataclass(frozen=True)
class Version:
    """One of the candidates that replace each other when a mask is corrected; ``id`` is its candidate's."""

    id: int
    version: int
    parent_id: int | None
    sha256: str
    created_at: dt.datetime


def history(session: Session, candidate_id: int, user_id: int | None = None) -> list[HistoryEntry]:
    """The decisions on a candidate, oldest first; of one annotator, or of all when ``user_id`` is None."""
    taking_back, giving_again = aliased(Decision), aliased(Decision)
    undone, redone = aliased(Decision), aliased(Decision)
    query = (
        select(
            Decision,
            User.name,
            undone.uuid,
            redone.uuid,
            exists().where(taking_back.undoes_id == Decision.id),
            exists().where(giving_again.redoes_id == Decision.id),
        )
        .join(User, User.id == Decision.user_id)
        .outerjoin(undone, undone.id == Decision.undoes_id)
        .outerjoin(redone, redone.id == Decision.redoes_id)
        .where(Decision.candidate_id == candidate_id)
        .order_by(Decision.id)
    )
    if user_id is not None:
        query = query.where(Decision.user_id == user_id)
    return [
        HistoryEntry(
            decision.uuid,
            decision.user_id,
            name,
            decision.verdict,
            decision.reasons,
            decision.via,
            undoes,
            redoes,
            bool(is_undone),
            bool(is_redone),
            decision.elapsed_ms,
            decision.created_at,
        )
        for decision, name, undoes, redoes, is_undone, is_redone in session.execute(query)
    ]


def adjudications(session: Session, candidate_id: int) -> list[AdjudicationEntry]:
    """The adjudications of a candidate, oldest first."""
    query = (
        select(Adjudication, User.name)
        .join(User, User.id == Adjudication.user_id)
        .where(Adjudication.candidate_id == candidate_id)
        .order_by(Adjudication.id)
    )
    rows = session.execute(query).all()
    return [
        AdjudicationEntry(
            row.uuid,
            row.user_id,
            name,
            row.verdict,
            row.reasons,
            row.note,
            number == len(rows) and row.verdict is not Verdict.UNDO,
            row.created_at,
        )
        for number, (row, name) in enumerate(rows, 1)
    ]


def versions(session: Session, candidate_id: int) -> list[Version]:
    """The candidate and those it was made anew from or as, first version first. Empty for an unknown one."""
    named = aliased(Candidate)
    query = (
        select(Candidate.id, Candidate.version, Candidate.parent_id, Candidate.result_sha256, Candidate.created_at)
        .join(named, named.source_id == Candidate.source_id)
        .where(
            named.id == candidate_id,
            Candidate.recipe_id == named.recipe_id,
            Candidate.kind == named.kind,
            Candidate.variant == named.variant,
        )
        .order_by(Candidate.version)
    )
    return [Version(*row) for row in session.execute(query)]
