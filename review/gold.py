"""Gold items: candidates whose right verdict is known, shown to every annotator like any other.

Nothing that annotators see says which candidates are gold.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, GoldItem, User, Verdict
from review.events import MalformedEvent, UnknownCandidate, checked_reasons
from review.intervals import clopper_pearson
from review.overlap import ANSWERS


@dataclass(frozen=True)
class GoldEntry:
    """A gold item as a list shows it."""

    candidate_id: int
    sha256: str
    verdict: Verdict
    reasons: list[str]
    note: str
    created_by: str
    created_at: dt.datetime


@dataclass(frozen=True)
class GoldScore:
    """How one annotator did on the gold items they answered, skips apart.

    ``accuracy`` is correct / judged, 0 to 1, with its exact 95 % interval; None before the first answer.
    ``wrong_accepts`` are accepts where reject is right, ``wrong_rejects`` the other way round.
    """

    user_id: int
    name: str
    judged: int
    correct: int
    wrong_accepts: int
    wrong_rejects: int
    skipped: int
    accuracy: float | None
    low: float | None
    high: float | None


def set_gold(
    session: Session,
    candidate_id: int,
    verdict: str,
    reasons: Sequence[str] = (),
    note: str = "",
    created_by: str = "",
) -> None:
    """Make a candidate a gold item, or change what is right for it. Needs a write session.

    Raises :class:`review.events.DecisionRefused`.
    """
    if verdict not in ANSWERS:
        raise MalformedEvent("verdict", "What is right for a gold item is accept or reject.")
    checked = checked_reasons(reasons, Verdict(verdict))
    if session.get(Candidate, candidate_id) is None:
        raise UnknownCandidate("candidate_id", f"There is no candidate {candidate_id}; reload the page.")
    session.merge(
        GoldItem(candidate_id=candidate_id, verdict=Verdict(verdict), reasons=checked, note=note, created_by=created_by)
    )


def remove_gold(session: Session, candidate_id: int) -> bool:
    """Make it an ordinary candidate again; False when it was one. Needs a write session."""
    return session.execute(delete(GoldItem).where(GoldItem.candidate_id == candidate_id)).rowcount > 0


def list_gold(session: Session) -> list[GoldEntry]:
    """All gold items in the order of the candidates."""
    query = (
        select(
            GoldItem.candidate_id,
            Candidate.result_sha256,
            GoldItem.verdict,
            GoldItem.reasons,
            GoldItem.note,
            GoldItem.created_by,
            GoldItem.created_at,
        )
        .join(Candidate, Candidate.id == GoldItem.candidate_id)
        .order_by(GoldItem.candidate_id)
    )
    return [GoldEntry(*row) for row in session.execute(query)]


def gold_report(session: Session) -> list[GoldScore]:
    """How each annotator with a standing verdict on a gold item did, by name."""
    query = (
        select(User.id, User.name, CurrentVerdict.verdict, GoldItem.verdict.label("right"))
        .join(CurrentVerdict, CurrentVerdict.user_id == User.id)
        .join(GoldItem, GoldItem.candidate_id == CurrentVerdict.candidate_id)
        .order_by(User.name)
    )
    given: dict[tuple[int, str], list[tuple[Verdict, Verdict]]] = {}
    for row in session.execute(query):
        given.setdefault((row.id, row.name), []).append((row.verdict, row.right))
    return [_score(user_id, name, answers) for (user_id, name), answers in given.items()]


def _score(user_id: int, name: str, answers: list[tuple[Verdict, Verdict]]) -> GoldScore:
    judged = [answer for answer in answers if answer[0] in ANSWERS]
    correct = sum(verdict is right for verdict, right in judged)
    interval = clopper_pearson(correct, len(judged)) if judged else None
    return GoldScore(
        user_id=user_id,
        name=name,
        judged=len(judged),
        correct=correct,
        wrong_accepts=judged.count((Verdict.ACCEPT, Verdict.REJECT)),
        wrong_rejects=judged.count((Verdict.REJECT, Verdict.ACCEPT)),
        skipped=len(answers) - len(judged),
        accuracy=correct / len(judged) if judged else None,
        low=interval.lower if interval else None,
        high=interval.upper if interval else None,
    )
