"""What an annotator sees next: filters, orders and keyset pages over the candidates.

A page is found from where the last one ended, never by counting rows past, so the ten-thousandth
page costs what the first does.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, func, select, tuple_
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, ImageClass, Kind, SourceImage, Verdict

MAX_LIMIT = 200


class InvalidCursor(ValueError):
    """The cursor was not made by the same order of the queue."""


class QueueState(enum.StrEnum):
    """Which candidates, by the annotator's own standing verdict."""

    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    ALL = "all"


VERDICT_OF = {
    QueueState.ACCEPTED: Verdict.ACCEPT,
    QueueState.REJECTED: Verdict.REJECT,
    QueueState.SKIPPED: Verdict.SKIP,
}


class Order(enum.StrEnum):
    """``drop``: lowest first. ``residual``: highest first. Both bring what is probably bad to the front."""

    ID = "id"
    DROP = "drop"
    RESIDUAL = "residual"
    CLASS = "class"


@dataclass(frozen=True)
class QueueFilter:
    """Which candidates are asked for; a value of None does not restrict. The drop range includes its ends."""

    state: QueueState = QueueState.UNREVIEWED
    class_index: int | None = None
    drop_min: float | None = None
    drop_max: float | None = None
    kind: Kind | None = None
    recipe_id: int | None = None


@dataclass(frozen=True)
class QueueItem:
    """A candidate as the page shows it, with the annotator's own standing verdict."""

    id: int
    sha256: str
    class_index: int
    class_name: str
    source_name: str
    kind: Kind
    drop: float
    residual: float
    rank: int
    area: float
    width: int
    height: int
    verdict: Verdict | None
    reasons: list[str]


@dataclass(frozen=True)
class QueuePage:
    """Some items, and the cursor for those after them (None at the end)."""

    items: list[QueueItem]
    cursor: str | None


def _conditions(wanted: QueueFilter) -> list[ColumnElement[bool]]:
    conditions = []
    if wanted.recipe_id is not None:
        conditions.append(Candidate.recipe_id == wanted.recipe_id)
    if wanted.class_index is not None:
        conditions.append(Candidate.class_index == wanted.class_index)
    if wanted.drop_min is not None:
        conditions.append(Candidate.drop >= wanted.drop_min)
    if wanted.drop_max is not None:
        conditions.append(Candidate.drop <= wanted.drop_max)
    if wanted.kind is not None:
        conditions.append(Candidate.kind == wanted.kind)
    return conditions


def _own(user_id: int) -> ColumnElement[bool]:
    return and_(CurrentVerdict.candidate_id == Candidate.id, CurrentVerdict.user_id == user_id)


def _in_state(query: Select, state: QueueState) -> Select:
    """Restrict a query that is outer-joined with the annotator's own verdicts."""
    if state is QueueState.ALL:
        return query
    if state is QueueState.UNREVIEWED:
        return query.where(CurrentVerdict.candidate_id.is_(None))
    return query.where(CurrentVerdict.verdict == VERDICT_OF[state])


def _item_query(user_id: int) -> Select:
    return (
        select(
            Candidate.id,
            Candidate.result_sha256,
            Candidate.class_index,
            ImageClass.name,
            SourceImage.name,
            Candidate.kind,
            Candidate.drop,
            Candidate.residual,
            Candidate.rank,
            Candidate.area,
            Candidate.width,
            Candidate.height,
            CurrentVerdict.verdict,
            CurrentVerdict.reasons,
        )
        .join(ImageClass, ImageClass.class_index == Candidate.class_index)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .outerjoin(CurrentVerdict, _own(user_id))
    )


def _item(row: tuple) -> QueueItem:
    return QueueItem(*row[:-1], reasons=list(row[-1] or []))


def _sort_key(order: Order) -> tuple[list[ColumnElement], bool]:
    """The columns that order the queue, and whether they go down. The id last makes every key unique."""
    match order:
        case Order.ID:
            return [Candidate.id], False
        case Order.DROP:
            return [Candidate.drop, Candidate.id], False
        case Order.RESIDUAL:
            return [Candidate.residual, Candidate.id], True
        case Order.CLASS:
            return [Candidate.class_index, Candidate.id], False


def _encode(order: Order, values: list[float]) -> str:
    return base64.urlsafe_b64encode(json.dumps([order.value, *values]).encode()).decode().rstrip("=")


def _decode(order: Order, cursor: str, length: int) -> list[float]:
    try:
        made_by, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        raise InvalidCursor("The cursor is damaged; start again without one.") from None
    numbers = all(type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**63 for value in values)
    if made_by != order.value or len(values) != length or not numbers:
        raise InvalidCursor("The cursor belongs to another order; start again without one.")
    return values


def next_items(
    session: Session,
    wanted: QueueFilter,
    user_id: int,
    cursor: str | None = None,
    limit: int = 50,
    order: Order = Order.ID,
) -> QueuePage:
    """The next ``limit`` candidates after ``cursor`` in that order."""
    limit = max(1, min(limit, MAX_LIMIT))
    key, descending = _sort_key(order)
    # Found first, dressed after: the search then runs inside an index, however many are already judged.
    found = select(Candidate.id).outerjoin(CurrentVerdict, _own(user_id)).where(*_conditions(wanted))
    found = _in_state(found, wanted.state)
    if cursor is not None:
        after = tuple_(*_decode(order, cursor, len(key)))
        found = found.where(tuple_(*key) < after if descending else tuple_(*key) > after)
    in_order = [column.desc() if descending else column for column in key]
    ids = found.order_by(*in_order).limit(limit + 1).subquery()
    query = _item_query(user_id).where(Candidate.id.in_(select(ids.c.id))).order_by(*in_order)
    rows = session.execute(query).all()
    items = [_item(tuple(row)) for row in rows[:limit]]
    if len(rows) <= limit:
        return QueuePage(items, None)
    return QueuePage(items, _encode(order, [_value(items[-1], column.key) for column in key]))


def _value(item: QueueItem, column: str) -> float:
    return getattr(item, column)


def one_item(session: Session, candidate_id: int, user_id: int) -> QueueItem | None:
    """One candidate as the queue would show it."""
    row = session.execute(_item_query(user_id).where(Candidate.id == candidate_id)).first()
    return None if row is None else _item(tuple(row))


def counts_by_state(session: Session, wanted: QueueFilter, user_id: int) -> dict[QueueState, int]:
    """How many candidates of the filter are in each state for this annotator, whatever state the filter names."""
    conditions = _conditions(wanted)
    total = session.scalar(select(func.count()).select_from(Candidate).where(*conditions)) or 0
    judged = select(CurrentVerdict.verdict, func.count()).where(CurrentVerdict.user_id == user_id)
    if conditions:
        judged = judged.join(Candidate, Candidate.id == CurrentVerdict.candidate_id).where(*conditions)
    verdicts = dict(session.execute(judged.group_by(CurrentVerdict.verdict)).all())
    counts = {state: verdicts.get(verdict, 0) for state, verdict in VERDICT_OF.items()}
    return counts | {QueueState.UNREVIEWED: total - sum(counts.values()), QueueState.ALL: total}


def count(session: Session, wanted: QueueFilter, user_id: int) -> int:
    """How many candidates the filter lets through."""
    return counts_by_state(session, wanted, user_id)[wanted.state]


def classes_with_candidates(session: Session, recipe_id: int | None = None) -> list[tuple[int, str, int]]:
    """Class index, name and number of candidates, for the classes that have any."""
    counted = select(Candidate.class_index, func.count().label("n")).group_by(Candidate.class_index)
    if recipe_id is not None:
        counted = counted.where(Candidate.recipe_id == recipe_id)
    per_class = counted.subquery()
    query = (
        select(ImageClass.class_index, ImageClass.name, per_class.c.n)
        .join(per_class, per_class.c.class_index == ImageClass.class_index)
        .order_by(ImageClass.class_index)
    )
    return [tuple(row) for row in session.execute(query)]
