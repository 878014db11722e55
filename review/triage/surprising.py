"""Verdicts that the model finds hard to believe, for a second look: slips of the hand, and what it has yet to learn."""

from __future__ import annotations

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, Decision, TriageModel, TriagePrediction, Verdict
from db.queries import is_superseded
from review.overlap import is_gold
from review.triage.bands import is_adjudicated
from review.triage.order import SURPRISE

MAX_LISTED = 200


def surprising_verdicts(session: Session, model: TriageModel, user_id: int | None = None, limit: int = 50) -> list[int]:
    """Candidates whose standing verdict lies at least :data:`~review.triage.order.SURPRISE` from P(accept).

    The most surprising first; of one annotator, or of all. The predictions did not see these verdicts. Left out is
    what was judged again since, by anybody, adjudicated, named a gold item, or replaced by a newer version.
    """
    p_accept = TriagePrediction.p_accept
    other = aliased(Decision)
    looks = (
        select(func.count())
        .where(other.candidate_id == CurrentVerdict.candidate_id, other.verdict != Verdict.UNDO)
        .scalar_subquery()
    )
    is_accept = CurrentVerdict.verdict == Verdict.ACCEPT
    is_reject = CurrentVerdict.verdict == Verdict.REJECT
    query = (
        select(Candidate.id)
        .join(CurrentVerdict, CurrentVerdict.candidate_id == Candidate.id)
        .join(TriagePrediction, TriagePrediction.candidate_id == Candidate.id)
        .where(TriagePrediction.model_id == model.id)
        .where(or_(is_accept & (p_accept <= 1 - SURPRISE), is_reject & (p_accept >= SURPRISE)))
        .where(looks == 1, ~is_gold(), ~is_superseded(), ~is_adjudicated())
        .order_by(func.abs(p_accept - 0.5).desc(), Candidate.id)
        .limit(max(1, min(limit, MAX_LISTED)))
    )
    if user_id is not None:
        query = query.where(CurrentVerdict.user_id == user_id)
    return list(session.scalars(query))
