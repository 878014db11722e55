"""Verdicts: recorded once, never changed, taken back by another record.

A client makes the uuid of every event, so posting the same event twice stores it once. Decisions are
append-only; what stands is derived: for an annotator and a candidate, the latest decision that has not
been undone. ``current_verdicts`` holds exactly that and is kept in the same transaction.
"""

from __future__ import annotations

import datetime as dt
import enum
import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import JSON, delete, exists, func, insert, select, type_coerce
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, Decision, Reason, User, Verdict
from db.workspace import Workspace

MAX_ELAPSED_MS = 24 * 3600 * 1000


class DecisionRefused(ValueError):
    """An event that cannot be recorded. ``field`` is what is wrong with it; the message says what to do."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class MalformedEvent(DecisionRefused):
    """A value that no client of ours would send."""


class UuidTaken(DecisionRefused):
    """The uuid belongs to a different decision."""


class UnknownCandidate(DecisionRefused):
    """There is no such candidate."""


class StaleResult(DecisionRefused):
    """The image that was judged is not the candidate's image."""


class UnknownReason(DecisionRefused):
    """A reason that is not on the list."""


class ReasonMissing(DecisionRefused):
    """A reject without a reason."""


class ReasonNotAllowed(DecisionRefused):
    """A reason with a verdict that takes none."""


class NothingToUndo(DecisionRefused):
    """No standing decision to take back, or not the one named."""


@dataclass(frozen=True)
class DecisionEvent:
    """What a client reports. For ``undo``, ``undoes`` is the uuid of the decision to take back; left out, the
    annotator's latest standing one is meant. An undo may leave out the candidate and its sha256."""

    uuid: str
    verdict: str
    candidate_id: int | None = None
    result_sha256: str | None = None
    reasons: Sequence[str] = ()
    undoes: str | None = None
    elapsed_ms: int | None = None


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


@dataclass(frozen=True)
class HistoryEntry:
    """One decision as it happened, and whether it has been taken back."""

    uuid: str
    user_id: int
    user_name: str
    verdict: Verdict
    reasons: list[str]
    undone: bool
    created_at: dt.datetime


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
    identifier = _canonical_uuid(event.uuid)
    try:
        verdict = Verdict(event.verdict)
    except ValueError:
        raise MalformedEvent("verdict", f"A verdict is one of {', '.join(Verdict)}.") from None
    known = session.scalar(select(Decision).where(Decision.uuid == identifier))
    if known is not None:
        same_candidate = event.candidate_id in (known.candidate_id, None)
        if known.user_id != user_id or known.verdict != verdict or not same_candidate:
            raise UuidTaken("uuid", "This uuid belongs to another decision; give every event a new one.")
        return Status.DUPLICATE, known
    decision = _undo(session, event, user_id) if verdict is Verdict.UNDO else _judge(session, event, verdict, user_id)
    decision.uuid = identifier
    decision.elapsed_ms = None if event.elapsed_ms is None else max(0, min(event.elapsed_ms, MAX_ELAPSED_MS))
    session.add(decision)
    session.flush()
    _refresh_current(session, decision.candidate_id, user_id)
    return Status.STORED, decision


def _canonical_uuid(text: str) -> str:
    try:
        return str(uuid_module.UUID(text))
    except ValueError:
        raise MalformedEvent("uuid", "The uuid must be 32 hexadecimal digits, with or without dashes.") from None


def _judge(session: Session, event: DecisionEvent, verdict: Verdict, user_id: int) -> Decision:
    if event.undoes is not None:
        raise MalformedEvent("undoes", "Only an undo names the decision it takes back.")
    reasons = _reasons(event, verdict)
    candidate = None if event.candidate_id is None else session.get(Candidate, event.candidate_id)
    if candidate is None:
        raise UnknownCandidate("candidate_id", f"There is no candidate {event.candidate_id}; reload the review page.")
    if event.result_sha256 != candidate.result_sha256:
        raise StaleResult(
            "result_sha256",
            f"Candidate {candidate.id} has another image than the one that was judged; reload the page and judge it.",
        )
    return Decision(
        candidate_id=candidate.id,
        user_id=user_id,
        verdict=verdict,
        reasons=reasons,
        result_sha256=candidate.result_sha256,
    )


def _reasons(event: DecisionEvent, verdict: Verdict) -> list[str]:
    reasons = list(dict.fromkeys(event.reasons))
    for reason in reasons:
        if reason not in list(Reason):
            raise UnknownReason("reasons", f"{reason!r} is not a reason; choose among {', '.join(Reason)}.")
    if verdict is Verdict.REJECT and not reasons:
        raise ReasonMissing("reasons", "A reject needs at least one reason; press R and then 1 to 7.")
    if verdict is not Verdict.REJECT and reasons:
        raise ReasonNotAllowed("reasons", f"Only a reject has reasons; send this {verdict.value} without.")
    return reasons


def _undo(session: Session, event: DecisionEvent, user_id: int) -> Decision:
    if event.reasons:
        raise ReasonNotAllowed("reasons", "Only a reject has reasons; send this undo without.")
    if event.undoes is None:
        target = last_standing(session, user_id)
        if target is None:
            raise NothingToUndo("undoes", "You have no verdict to undo.")
    else:
        named = _canonical_uuid(event.undoes)
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


def _standing():
    """Decisions that are verdicts and have not been taken back."""
    undo = aliased(Decision)
    return select(Decision).where(Decision.verdict != Verdict.UNDO, ~exists().where(undo.undoes_id == Decision.id))


def _refresh_current(session: Session, candidate_id: int, user_id: int) -> None:
    standing = session.scalar(
        _standing()
        .where(Decision.candidate_id == candidate_id, Decision.user_id == user_id)
        .order_by(Decision.id.desc())
        .limit(1)
    )
    current = session.get(CurrentVerdict, (candidate_id, user_id))
    if standing is None:
        if current is not None:
            session.delete(current)
    else:
        if current is None:
            current = CurrentVerdict(candidate_id=candidate_id, user_id=user_id)
            session.add(current)
        current.verdict = standing.verdict
        current.reasons = standing.reasons
        current.decision_id = standing.id
    session.flush()


def last_standing(session: Session, user_id: int) -> Decision | None:
    """The annotator's latest decision that has not been undone: what an undo takes back."""
    return session.scalar(_standing().where(Decision.user_id == user_id).order_by(Decision.id.desc()).limit(1))


def history(session: Session, candidate_id: int, user_id: int | None = None) -> list[HistoryEntry]:
    """The decisions on a candidate, oldest first; of one annotator, or of all when ``user_id`` is None."""
    undo = aliased(Decision)
    query = (
        select(Decision, User.name, exists().where(undo.undoes_id == Decision.id))
        .join(User, User.id == Decision.user_id)
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
            bool(undone),
            decision.created_at,
        )
        for decision, name, undone in session.execute(query)
    ]


def verdict_counts(session: Session, recipe_id: int | None = None, user_id: int | None = None) -> dict[Verdict, int]:
    """How many standing verdicts of each sort there are, of one annotator or of all, for one recipe or for all."""
    query = select(CurrentVerdict.verdict, func.count()).group_by(CurrentVerdict.verdict)
    if user_id is not None:
        query = query.where(CurrentVerdict.user_id == user_id)
    if recipe_id is not None:
        query = query.join(Candidate, Candidate.id == CurrentVerdict.candidate_id)
        query = query.where(Candidate.recipe_id == recipe_id)
    counts = dict.fromkeys((Verdict.ACCEPT, Verdict.REJECT, Verdict.SKIP), 0)
    return counts | dict(session.execute(query).all())


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
