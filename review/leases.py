"""Leases: a candidate put in front of one annotator is not offered to another, unless it wants several.

A lease belongs to an annotator and a browser tab, and ends by itself after :data:`LEASE_SECONDS` unless the tab
renews it, when the tab gives it back, and when the annotator has judged the candidate. Only candidates that the
annotator is asked for are leased. A verdict needs no lease: one that arrives late is never lost.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import ColumnElement, delete, func, insert, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, Lease, utcnow
from db.workspace import Workspace
from review.filters import QueueFilter, QueueState
from review.orders import Order
from review.overlap import Overlap, answer_count, is_asked_of, is_gold, load_overlap, wants
from review.queue import QueuePage, next_items

LEASE_SECONDS = 120
MAX_TAB_LENGTH = 40
_OTHERS, _OWN = aliased(Lease), aliased(Lease)


@dataclass(frozen=True)
class Renewal:
    """``leased`` are the tab's until ``until``; ``lost`` went to somebody else or are not asked for any more."""

    leased: list[int]
    lost: list[int]
    until: dt.datetime


@dataclass(frozen=True)
class LeasedPage:
    """A page of the queue and until when its candidates are the tab's; None when they were not leased."""

    page: QueuePage
    until: dt.datetime | None


def take_page(
    workspace: Workspace,
    wanted: QueueFilter,
    user_id: int,
    tab: str,
    cursor: str | None = None,
    limit: int = 50,
    order: Order = Order.ID,
    *,
    seed: int = 0,
    now: dt.datetime | None = None,
) -> LeasedPage:
    """The next page of unreviewed candidates, leased to the annotator's tab; those leased elsewhere are left out.

    In any other state than ``unreviewed`` nothing is leased: the annotator looks at what is theirs already.
    """
    now = now or utcnow()
    until = now + dt.timedelta(seconds=LEASE_SECONDS)
    if wanted.state is not QueueState.UNREVIEWED:
        with workspace.read() as session:
            return LeasedPage(next_items(session, wanted, user_id, cursor, limit, order, seed=seed), None)
    while True:
        with workspace.read() as session:
            free = free_for(user_id, tab, load_overlap(session), now)
            page = next_items(session, wanted, user_id, cursor, limit, order, seed=seed, besides=free)
        if not page.items:
            return LeasedPage(page, until)
        # Found without holding up anybody's verdicts; what somebody else took meanwhile is left out here.
        with workspace.write() as session:
            taken = set(_take(session, [item.id for item in page.items], user_id, tab, now, until))
        items = [item for item in page.items if item.id in taken]
        if items or page.cursor is None:
            return LeasedPage(replace(page, items=items), until)
        cursor = page.cursor


def renew(
    workspace: Workspace, ids: Sequence[int], user_id: int, tab: str, *, now: dt.datetime | None = None
) -> Renewal:
    """Lease those candidates to the tab for another :data:`LEASE_SECONDS`, as far as nobody else has them.

    Candidates that the annotator has judged meanwhile are in neither list of the answer.
    """
    now = now or utcnow()
    until = now + dt.timedelta(seconds=LEASE_SECONDS)
    with workspace.write() as session:
        leased = _take(session, ids, user_id, tab, now, until)
        own = select(CurrentVerdict.candidate_id).where(CurrentVerdict.user_id == user_id)
        judged = set(session.scalars(own.where(CurrentVerdict.candidate_id.in_(ids))))
    return Renewal(leased, sorted(set(ids) - set(leased) - judged), until)


def release(workspace: Workspace, user_id: int, tab: str, ids: Sequence[int] | None = None) -> int:
    """Give back the tab's leases, all or those of some candidates; returns how many it had."""
    query = delete(Lease).where(Lease.user_id == user_id, Lease.tab == tab)
    if ids is not None:
        query = query.where(Lease.candidate_id.in_(ids))
    with workspace.write() as session:
        return session.execute(query).rowcount


def free_for(user_id: int, tab: str, overlap: Overlap, now: dt.datetime) -> list[ColumnElement[bool]]:
    """The conditions, over ``Candidate``, under which leases leave a candidate to the annotator's tab."""
    others = select(_OTHERS.candidate_id).where(_OTHERS.until > now, _OTHERS.user_id != user_id)
    full = others.group_by(_OTHERS.candidate_id).having(
        func.count() + answer_count(_OTHERS.candidate_id) >= wants(_OTHERS.candidate_id, overlap)
    )
    elsewhere = select(_OWN.candidate_id).where(_OWN.until > now, _OWN.user_id == user_id, _OWN.tab != tab)
    return [or_(Candidate.id.not_in(full), is_gold()), Candidate.id.not_in(elsewhere)]


def _take(
    session: Session, ids: Sequence[int], user_id: int, tab: str, now: dt.datetime, until: dt.datetime
) -> list[int]:
    """Lease what may be leased among ``ids``, in their order; needs a write session."""
    overlap = load_overlap(session)
    session.execute(delete(Lease).where(Lease.until <= now))
    asked = [*is_asked_of(user_id, overlap), *free_for(user_id, tab, overlap, now)]
    free = set(session.scalars(select(Candidate.id).where(Candidate.id.in_(ids), *asked)))
    taken = [candidate_id for candidate_id in dict.fromkeys(ids) if candidate_id in free]
    session.execute(delete(Lease).where(Lease.user_id == user_id, Lease.candidate_id.in_(taken)))
    rows = [{"candidate_id": candidate_id, "user_id": user_id, "tab": tab, "until": until} for candidate_id in taken]
    if rows:
        session.execute(insert(Lease), rows)
    return taken
