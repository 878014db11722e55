"""Undo and redo: both are decisions of their own, so both survive a restart, and the history keeps everything.

An undo takes back a standing decision. A redo takes back an undo by giving the undone verdict again. As in an
editor, undos are redone last one first, and a new verdict ends what could be redone.
"""

from __future__ import annotations

from sqlalchemy import Select, exists, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, Decision, Verdict, Via
from review.events import (
    DecisionEvent,
    NothingToRedo,
    NothingToUndo,
    ReasonNotAllowed,
    StaleResult,
    canonical_uuid,
)


def standing_decisions() -> Select[tuple[Decision]]:
    """A query for the decisions that are verdicts and have not been taken back."""
    undo = aliased(Decision)
    return select(Decision).where(Decision.verdict != Verdict.UNDO, ~exists().where(undo.undoes_id == Decision.id))


def last_standing(session: Session, user_id: int) -> Decision | None:
    """The annotator's latest decision that has not been undone: what an undo takes back."""
    return session.scalar(standing_decisions().where(Decision.user_id == user_id).order_by(Decision.id.desc()).limit(1))


def last_undone(session: Session, user_id: int) -> tuple[Decision, Decision] | None:
    """The undo that a redo takes back, and the decision it undid; None when there is nothing to redo."""
    undo = session.scalar(_open_undos(session, user_id).order_by(Decision.id.desc()).limit(1))
    return None if undo is None else (undo, session.get_one(Decision, undo.undoes_id))


def make_undo(session: Session, event: DecisionEvent, user_id: int) -> Decision:
    """The decision that takes back what ``event`` names. Raises :class:`NothingToUndo` and the like."""
    _refuse_reasons(event)
    if event.undoes is None:
        target = last_standing(session, user_id)
        if target is None:
            raise NothingToUndo("undoes", "You have no verdict to undo.")
    else:
        named = canonical_uuid(event.undoes)
        target = session.scalar(select(Decision).where(Decision.uuid == named, Decision.user_id == user_id))
        current = None if target is None else session.get(CurrentVerdict, (target.candidate_id, user_id))
        if target is None or current is None or current.decision_id != target.id:
            raise NothingToUndo("undoes", "That verdict does not stand any more; reload the page to see what does.")
    if event.candidate_id not in (None, target.candidate_id):
        raise NothingToUndo("candidate_id", "The verdict to undo is on another candidate; reload the page.")
    if event.result_sha256 not in (None, target.result_sha256):
        raise StaleResult("result_sha256", "The verdict to undo was on another image; reload the page.")
    return Decision(
        candidate_id=target.candidate_id,
        user_id=user_id,
        verdict=Verdict.UNDO,
        reasons=[],
        undoes_id=target.id,
        result_sha256=target.result_sha256,
    )


def make_redo(session: Session, event: DecisionEvent, user_id: int) -> Decision:
    """The decision that gives an undone verdict again. Raises :class:`NothingToRedo` and the like."""
    _refuse_reasons(event)
    undo = None if event.redoes is None else _named_undo(session, event.redoes, user_id)
    if undo is None:
        found = last_undone(session, user_id)
        if found is None:
            raise NothingToRedo("redoes", "You have no undo to take back.")
        undo = found[0]
    if event.candidate_id not in (None, undo.candidate_id):
        raise NothingToRedo("candidate_id", "The undo to take back is on another candidate; reload the page.")
    undone = session.get_one(Decision, undo.undoes_id)
    image = session.scalar(select(Candidate.result_sha256).where(Candidate.id == undone.candidate_id))
    if undone.result_sha256 != image or event.result_sha256 not in (None, image):
        raise StaleResult("result_sha256", "The undone verdict was on another image; judge the one that is shown.")
    return Decision(
        candidate_id=undone.candidate_id,
        user_id=user_id,
        verdict=undone.verdict,
        reasons=list(undone.reasons),
        redoes_id=undo.id,
        via=Via.REDO,
        result_sha256=undone.result_sha256,
    )


def _named_undo(session: Session, named: str, user_id: int) -> Decision:
    """The undo of that uuid, if it may be taken back."""
    undo = session.scalar(
        select(Decision).where(
            Decision.uuid == canonical_uuid(named), Decision.user_id == user_id, Decision.verdict == Verdict.UNDO
        )
    )
    if undo is None:
        raise NothingToRedo("redoes", "That undo is not yours or does not exist; reload the page.")
    still_open = _open_undos(session, user_id).where(Decision.candidate_id == undo.candidate_id)
    newest = session.scalar(still_open.order_by(Decision.id.desc()).limit(1))
    if newest is not undo:
        raise NothingToRedo(
            "redoes", "That undo cannot be taken back any more: it was redone, or a later verdict came after it."
        )
    return undo


def _open_undos(session: Session, user_id: int) -> Select[tuple[Decision]]:
    """A query for the annotator's undos since their last new verdict that have not been redone."""
    redo = aliased(Decision)
    last_new = session.scalar(
        select(Decision.id)
        .where(Decision.user_id == user_id, Decision.verdict != Verdict.UNDO, Decision.redoes_id.is_(None))
        .order_by(Decision.id.desc())
        .limit(1)
    )
    return select(Decision).where(
        Decision.user_id == user_id,
        Decision.verdict == Verdict.UNDO,
        Decision.id > (last_new or 0),
        ~exists().where(redo.redoes_id == Decision.id),
    )


def _refuse_reasons(event: DecisionEvent) -> None:
    if event.reasons:
        raise ReasonNotAllowed("reasons", f"Only a reject has reasons; send this {event.verdict} without.")
