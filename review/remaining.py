"""The last candidates that an annotator is asked for, remembered, so that the end of a queue costs what it holds.

Asked for anew, every search would go through all candidates to find the few that nobody has judged. What is remembered
is only where to look: the ids that were left at a moment, and what has been decided or made since, which may be left
again. Every search still tests all its conditions, so an id too many does no harm. Kept in the process's memory.
"""

from __future__ import annotations

import threading
from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from sqlalchemy import Pool, func, select
from sqlalchemy.orm import Session

from db.models import Candidate, Decision, GoldItem, TriageBand
from review.overlap import Overlap, is_asked_of
from review.random_order import are_few

MOST = 1_000
LOOK_AGAIN = 200


@dataclass(frozen=True)
class _Remembered:
    """``ids`` were left at that moment; None when they were many. ``settings`` is what else decides who is asked."""

    ids: frozenset[int] | None
    settings: Hashable
    decision_id: int
    candidate_id: int


_remembered: WeakKeyDictionary[Pool, dict[tuple[int, int | None], _Remembered]] = WeakKeyDictionary()
_lock = threading.Lock()


def few_asked_of(session: Session, user_id: int, overlap: Overlap, recipe_id: int | None) -> list[int] | None:
    """Ids among which are all of the recipe's candidates that the annotator is asked for; None while they are many."""
    with _lock:
        of_users = _remembered.setdefault(session.get_bind().engine.pool, {})
    settings = (overlap, *_bands(session))
    known = of_users.get((user_id, recipe_id))
    last = session.scalar(select(func.max(Decision.id))) or 0
    if known is not None and known.settings == settings:
        if known.ids is None and last - known.decision_id < LOOK_AGAIN:
            return None
        ids = None if known.ids is None else known.ids | _changed_since(session, known)
        if ids is not None and len(ids) <= MOST:
            return sorted(ids.union(session.scalars(select(GoldItem.candidate_id))))
    newest = session.scalar(select(func.max(Candidate.id))) or 0
    found = _left(session, user_id, overlap, recipe_id)
    of_users[user_id, recipe_id] = _Remembered(found, settings, last, newest)
    return None if found is None else sorted(found)


def _bands(session: Session) -> tuple[int, int]:
    """Confirming or revoking a band changes what is asked for, without a decision."""
    row = session.execute(select(func.count(TriageBand.id), func.count(TriageBand.revoked_at))).one()
    return row[0], row[1]


def _changed_since(session: Session, known: _Remembered) -> set[int]:
    decided = select(Decision.candidate_id).where(Decision.id > known.decision_id).distinct().limit(MOST + 1)
    made = select(Candidate.id).where(Candidate.id > known.candidate_id).limit(MOST + 1)
    return {*session.scalars(decided), *session.scalars(made)}


def _left(session: Session, user_id: int, overlap: Overlap, recipe_id: int | None) -> frozenset[int] | None:
    asked = is_asked_of(user_id, overlap)
    if recipe_id is not None:
        asked.insert(0, Candidate.recipe_id == recipe_id)
    if not are_few(session, asked):
        return None
    ids = session.scalars(select(Candidate.id).where(*asked).limit(MOST + 1)).all()
    return frozenset(ids) if len(ids) <= MOST else None
