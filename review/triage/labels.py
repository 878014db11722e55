"""What people decided on each candidate, as it stood at a moment that can be named again later."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import exists, func, select
from sqlalchemy.orm import Session, aliased

from db.models import Adjudication, Candidate, Decision, GoldItem, Kind, Verdict, utcnow


@dataclass(frozen=True)
class Cutoff:
    """Up to where judgements count: the last decision, the last adjudication (both inclusive), and the moment
    until which gold items were named."""

    decision_id: int
    adjudication_id: int
    gold_until: dt.datetime

    @classmethod
    def now(cls, session: Session) -> Cutoff:
        return cls(
            decision_id=session.scalar(select(func.max(Decision.id))) or 0,
            adjudication_id=session.scalar(select(func.max(Adjudication.id))) or 0,
            gold_until=utcnow(),
        )

    @classmethod
    def from_json(cls, values: dict) -> Cutoff:
        gold_until = dt.datetime.fromisoformat(values["gold_until"])
        return cls(int(values["decision_id"]), int(values["adjudication_id"]), gold_until)

    def to_json(self) -> dict[str, int | str]:
        return {
            "decision_id": self.decision_id,
            "adjudication_id": self.adjudication_id,
            "gold_until": self.gold_until.isoformat(),
        }


def labels_at(session: Session, recipe_id: int, cutoff: Cutoff) -> dict[int, bool]:
    """Candidate id -> True (accept) or False (reject), for background candidates that were decided by then.

    An adjudicator's word goes first, then a gold item's known verdict, then the majority of the annotators'
    standing verdicts. A skip is no vote; where votes are tied there is no label.
    """
    of_recipe = (Candidate.recipe_id == recipe_id, Candidate.kind == Kind.BACKGROUND)
    labels = _majorities(session, of_recipe, cutoff)
    gold = select(GoldItem.candidate_id, GoldItem.verdict).join(Candidate, Candidate.id == GoldItem.candidate_id)
    for candidate_id, verdict in session.execute(gold.where(*of_recipe, GoldItem.created_at <= cutoff.gold_until)):
        labels[candidate_id] = verdict == Verdict.ACCEPT
    final = (
        select(Adjudication.candidate_id, Adjudication.verdict)
        .join(Candidate, Candidate.id == Adjudication.candidate_id)
        .where(*of_recipe, Adjudication.id <= cutoff.adjudication_id)
        .order_by(Adjudication.id)
    )
    latest = dict(session.execute(final).all())
    labels |= {key: verdict == Verdict.ACCEPT for key, verdict in latest.items() if verdict != Verdict.UNDO}
    return labels


def _majorities(session: Session, of_recipe: tuple, cutoff: Cutoff) -> dict[int, bool]:
    undo = aliased(Decision)
    undone = exists().where(undo.undoes_id == Decision.id, undo.id <= cutoff.decision_id)
    standing = (
        select(Decision.candidate_id, Decision.user_id, Decision.verdict)
        .join(Candidate, Candidate.id == Decision.candidate_id)
        .where(*of_recipe, Decision.id <= cutoff.decision_id, Decision.verdict != Verdict.UNDO, ~undone)
        .order_by(Decision.id)
    )
    by_annotator = {(candidate, user): verdict for candidate, user, verdict in session.execute(standing)}
    lead: dict[int, int] = {}
    for (candidate_id, _), verdict in by_annotator.items():
        if verdict != Verdict.SKIP:
            lead[candidate_id] = lead.get(candidate_id, 0) + (1 if verdict == Verdict.ACCEPT else -1)
    return {candidate_id: votes > 0 for candidate_id, votes in lead.items() if votes != 0}
