"""Adjudication: one person's final word on a candidate that annotators disagree on.

Append-only like the decisions; of a candidate the latest adjudication stands, and an undo opens it again. What the
annotators said stays as it is: membership rules let the adjudication go before it, agreement is measured without it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, func, not_, select
from sqlalchemy.orm import Session, aliased

from db.models import Adjudication, Candidate, CurrentVerdict, Role, User, Verdict
from db.queries import is_superseded
from db.workspace import Workspace
from review.decisions import Status
from review.events import (
    MalformedEvent,
    NothingToUndo,
    StaleResult,
    UnknownCandidate,
    UuidTaken,
    canonical_uuid,
    checked_reasons,
)
from review.overlap import has_answer
from review.queue import QueueItem, items_by_id
from review.roles import require, role_of

MAX_LIMIT = 100
MAX_NOTE = 2000


@dataclass(frozen=True)
class Opinion:
    """What one annotator says. ``annotator`` is a pseudonym that means nothing on another candidate."""

    annotator: str
    verdict: Verdict
    reasons: list[str]


@dataclass(frozen=True)
class Disagreement:
    """A candidate with what its annotators say of it; ``item`` holds the adjudicator's own verdict, if any."""

    item: QueueItem
    opinions: list[Opinion]


@dataclass(frozen=True)
class DisagreementPage:
    """Some disagreements in the order of the candidates, and the id to go on after (None at the end)."""

    disagreements: list[Disagreement]
    cursor: int | None


@dataclass(frozen=True)
class AdjudicationResult:
    """``standing`` is the verdict that the adjudications of the candidate come to: None when it is open again."""

    uuid: str
    status: Status
    candidate_id: int
    standing: Verdict | None


def standing_adjudication(candidate_id: ColumnElement[int]) -> ColumnElement[Verdict | None]:
    """The latest adjudication's verdict on a candidate: accept, reject, undo, or NULL when there is none."""
    row = aliased(Adjudication)
    query = select(row.verdict).where(row.candidate_id == candidate_id).order_by(row.id.desc()).limit(1)
    return query.scalar_subquery()


def disagreements(
    session: Session,
    recipe_id: int | None,
    user_id: int,
    cursor: int | None = None,
    limit: int = 50,
    *,
    with_skips: bool = False,
) -> DisagreementPage:
    """The candidates with both a standing accept and a standing reject that nobody has adjudicated.

    ``with_skips`` also gives those where some skip and others do not. Replaced versions are left out.
    ``cursor`` is that of the page before.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    query = select(Candidate.id).where(*_open_disagreement(recipe_id, with_skips))
    if cursor is not None:
        query = query.where(Candidate.id > cursor)
    ids = list(session.scalars(query.order_by(Candidate.id).limit(limit + 1)))
    shown = ids[:limit]
    opinions = _opinions(session, shown)
    items = items_by_id(session, shown, user_id)
    page = [Disagreement(item, opinions[item.id]) for item in items]
    return DisagreementPage(page, shown[-1] if len(ids) > limit else None)


def disagreement_count(session: Session, recipe_id: int | None, *, with_skips: bool = False) -> int:
    """How many candidates :func:`disagreements` would give in all."""
    query = select(func.count()).select_from(Candidate).where(*_open_disagreement(recipe_id, with_skips))
    return session.scalar(query) or 0


def adjudicate(
    workspace: Workspace,
    uuid: str,
    candidate_id: int,
    user_id: int,
    verdict: str,
    reasons: Sequence[str] = (),
    note: str = "",
    result_sha256: str | None = None,
) -> AdjudicationResult:
    """Record accept, reject or undo as the adjudicator ``user_id``; the same uuid twice is stored once.

    ``result_sha256`` is the image that was judged; an undo may leave it out. Raises
    :class:`review.roles.NotAllowed` for an annotator, and a :class:`review.events.DecisionRefused`.
    """
    identifier = canonical_uuid(uuid)
    if verdict not in (Verdict.ACCEPT, Verdict.REJECT, Verdict.UNDO):
        raise MalformedEvent("verdict", "An adjudication is accept, reject or undo.")
    verdict = Verdict(verdict)
    if len(note) > MAX_NOTE:
        raise MalformedEvent("note", f"A note has at most {MAX_NOTE} characters.")
    checked = checked_reasons(reasons, verdict)
    with workspace.write() as session:
        require(role_of(session.get_one(User, user_id)), Role.ADJUDICATOR, "Adjudication")
        known = session.scalar(select(Adjudication).where(Adjudication.uuid == identifier))
        if known is not None:
            if (known.user_id, known.candidate_id, known.verdict) != (user_id, candidate_id, verdict):
                raise UuidTaken("uuid", "This uuid belongs to another adjudication; give every one a new one.")
            return AdjudicationResult(identifier, Status.DUPLICATE, candidate_id, _standing(session, candidate_id))
        candidate = session.get(Candidate, candidate_id)
        if candidate is None:
            raise UnknownCandidate("candidate_id", f"There is no candidate {candidate_id}; reload the page.")
        undoing = verdict is Verdict.UNDO
        if undoing and _standing(session, candidate_id) is None:
            raise NothingToUndo("verdict", f"No adjudication of candidate {candidate_id} stands; reload the page.")
        if result_sha256 != candidate.result_sha256 and not (undoing and result_sha256 is None):
            raise StaleResult(
                "result_sha256", f"Candidate {candidate_id} has another image than the one judged; reload the page."
            )
        session.add(
            Adjudication(
                uuid=identifier,
                candidate_id=candidate_id,
                user_id=user_id,
                verdict=verdict,
                reasons=checked,
                note=note,
                result_sha256=candidate.result_sha256,
            )
        )
        session.flush()
        return AdjudicationResult(identifier, Status.STORED, candidate_id, _standing(session, candidate_id))


def _standing(session: Session, candidate_id: int) -> Verdict | None:
    row = select(Adjudication.verdict).where(Adjudication.candidate_id == candidate_id)
    verdict = session.scalar(row.order_by(Adjudication.id.desc()).limit(1))
    return None if verdict is Verdict.UNDO else verdict


def _open_disagreement(recipe_id: int | None, with_skips: bool) -> list[ColumnElement[bool]]:
    disagree = has_answer(Verdict.ACCEPT) & has_answer(Verdict.REJECT)
    if with_skips:
        disagree = (
            disagree
            | (has_answer(Verdict.ACCEPT) & has_answer(Verdict.SKIP))
            | (has_answer(Verdict.REJECT) & has_answer(Verdict.SKIP))
        )
    is_open = func.coalesce(standing_adjudication(Candidate.id), Verdict.UNDO) == Verdict.UNDO
    conditions = [disagree, is_open, not_(is_superseded())]
    return conditions if recipe_id is None else [Candidate.recipe_id == recipe_id, *conditions]


def _opinions(session: Session, ids: Sequence[int]) -> dict[int, list[Opinion]]:
    rows = session.execute(
        select(
            CurrentVerdict.candidate_id, CurrentVerdict.user_id, CurrentVerdict.verdict, CurrentVerdict.reasons
        ).where(CurrentVerdict.candidate_id.in_(ids))
    )
    by_candidate: dict[int, list] = {candidate_id: [] for candidate_id in ids}
    for row in rows:
        by_candidate[row.candidate_id].append(row)
    return {
        candidate_id: [
            Opinion(f"annotator {number}", row.verdict, list(row.reasons))
            for number, row in enumerate(sorted(given, key=_shuffled), 1)
        ]
        for candidate_id, given in by_candidate.items()
    }


def _shuffled(row) -> bytes:
    """Sorts the annotators of each candidate differently, so that a number does not follow a person."""
    return hashlib.sha256(f"{row.candidate_id} {row.user_id}".encode()).digest()
