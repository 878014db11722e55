"""Verdicts: recorded once, never changed, taken back by another record.

A client makes the uuid of every event, so posting the same event twice stores it once. Decisions are
append-only; what stands is derived: for an annotator and a candidate, the latest decision that has not
been undone. ``current_verdicts`` holds exactly that and is kept in the same transaction. A standing verdict
ends the annotator's lease on the candidate.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import JSON, delete, exists, func, insert, select, type_coerce
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, Decision, Lease, Verdict
from db.workspace import Workspace
from review.events import (
    REDO,
    DecisionEvent,
    DecisionRefused,
    MalformedEvent,
    StaleResult,
    UnknownCandidate,
    UuidTaken,
    canonical_uuid,
    checked_reasons,
    checked_via,
)
from review.undo import make_redo, make_undo, standing_decisions

MAX_ELAPSED_MS = 24 * 3600 * 1000


class Status(enum.StrEnum):
    """What became of an event."""

    STORED = "stored"
    DUPLICATE = "duplicate"
    REFUSED = "refused"


@dataclass(frozen=True)
class DecisionResult:
    """The answer to one event; ``standing`` is the annotator's verdict on the candidate after it."""

    uuid: str
    status: Status
    candidate_id: int | None = None
    standing: Verdict | None = None
    refusal: DecisionRefused | None = None


def record(workspace: Workspace, events: Sequence[DecisionEvent], user_id: int) -> list[DecisionResult]:
    """Record the events in order in one transaction; one answer an event, in the same order.

    A refused event leaves no trace and does not stop those after it.
    """
    with workspace.write() as session:
        return [_answer(session, event, user_id) for event in events]


def _answer(session: Session, event: DecisionEvent, user_id: int) -> DecisionResult:
    try:
        status, decision = _apply(session, event, user_id)
    except DecisionRefused as refusal:
        return DecisionResult(event.uuid, Status.REFUSED, event.candidate_id, refusal=refusal)
    current = session.get(CurrentVerdict, (decision.candidate_id, user_id))
    return DecisionResult(event.uuid, status, decision.candidate_id, current.verdict if current else None)


def _apply(session: Session, event: DecisionEvent, user_id: int) -> tuple[Status, Decision]:
    identifier = canonical_uuid(event.uuid)
    if event.verdict not in (*Verdict, REDO):
        raise MalformedEvent("verdict", f"A verdict is one of {', '.join((*Verdict, REDO))}.")
    known = session.scalar(select(Decision).where(Decision.uuid == identifier))
    if known is not None:
        if known.user_id != user_id or not _says(known, event):
            raise UuidTaken("uuid", "This uuid belongs to another decision; give every event a new one.")
        return Status.DUPLICATE, known
    decision = _made(session, event, user_id)
    decision.uuid = identifier
    decision.elapsed_ms = None if event.elapsed_ms is None else max(0, min(event.elapsed_ms, MAX_ELAPSED_MS))
    session.add(decision)
    session.flush()
    _refresh_current(session, decision)
    return Status.STORED, decision


def _says(known: Decision, event: DecisionEvent) -> bool:
    """Whether a stored decision is what the event reports."""
    verdict = REDO if known.redoes_id is not None else known.verdict
    return event.verdict == verdict and event.candidate_id in (known.candidate_id, None)


def _made(session: Session, event: DecisionEvent, user_id: int) -> Decision:
    via = checked_via(event)
    for name, verdict in (("undoes", Verdict.UNDO), ("redoes", REDO)):
        if getattr(event, name) is not None and event.verdict != verdict:
            raise MalformedEvent(name, f"Only {verdict} has {name}; leave it out here.")
    if event.verdict == REDO:
        return make_redo(session, event, user_id)
    decision = make_undo(session, event, user_id) if event.verdict == Verdict.UNDO else _judged(session, event, user_id)
    decision.via = via
    return decision


def _judged(session: Session, event: DecisionEvent, user_id: int) -> Decision:
    verdict = Verdict(event.verdict)
    reasons = checked_reasons(event.reasons, verdict)
    image = session.scalar(select(Candidate.result_sha256).where(Candidate.id == event.candidate_id))
    if image is None:
        raise UnknownCandidate("candidate_id", f"There is no candidate {event.candidate_id}; reload the review page.")
    if event.result_sha256 != image:
        raise StaleResult(
            "result_sha256",
            f"Candidate {event.candidate_id} has another image than the one that was judged; reload and judge it.",
        )
    return Decision(
        candidate_id=event.candidate_id, user_id=user_id, verdict=verdict, reasons=reasons, result_sha256=image
    )


def _refresh_current(session: Session, made: Decision) -> None:
    """Let stand what stands after the decision just made: itself, or after an undo what was there before."""
    pair = (made.candidate_id, made.user_id)
    standing = made if made.verdict is not Verdict.UNDO else _last_on(session, *pair)
    current = session.get(CurrentVerdict, pair)
    if standing is None:
        session.delete(current)
    else:
        if current is None:
            current = CurrentVerdict(candidate_id=made.candidate_id, user_id=made.user_id)
            session.add(current)
        current.verdict = standing.verdict
        current.reasons = standing.reasons
        current.decision_id = standing.id
        # The table, not the mapping: no lease is ever loaded here, and this is in every verdict's way.
        own_lease = (Lease.candidate_id == made.candidate_id, Lease.user_id == made.user_id)
        session.execute(delete(Lease.__table__).where(*own_lease))
    session.flush()


def _last_on(session: Session, candidate_id: int, user_id: int) -> Decision | None:
    on_it = (Decision.candidate_id == candidate_id, Decision.user_id == user_id)
    return session.scalar(standing_decisions().where(*on_it).order_by(Decision.id.desc()).limit(1))


def rebuild_current_verdicts(session: Session) -> int:
    """Make ``current_verdicts`` anew from the decisions; returns how many verdicts stand. Needs a write session."""
    session.execute(delete(CurrentVerdict))
    undo = aliased(Decision)
    latest = (
        select(func.max(Decision.id))
        .where(Decision.verdict != Verdict.UNDO, ~exists().where(undo.undoes_id == Decision.id))
        .group_by(Decision.candidate_id, Decision.user_id)
    )
    columns = ["candidate_id", "user_id", "verdict", "reasons", "decision_id"]
    rows = select(
        Decision.candidate_id,
        Decision.user_id,
        Decision.verdict,
        type_coerce(Decision.reasons, JSON),
        Decision.id,
    ).where(Decision.id.in_(latest))
    return session.execute(insert(CurrentVerdict).from_select(columns, rows)).rowcount
