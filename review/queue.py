"""What an annotator sees next: keyset pages over the candidates that a filter lets through, in an order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, and_, case, func, select, true
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, ImageClass, Kind, Recipe, SourceImage, Verdict
from review.filters import QueueFilter, QueueState, in_state
from review.orders import Order, cursor_of, search
from review.overlap import load_overlap
from review.remaining import few_asked_of

MAX_LIMIT = 200


@dataclass(frozen=True)
class QueueItem:
    """A candidate as the page shows it, with the annotator's own standing verdict.

    ``masked`` is False for one that came in an archive without its mask; ``area`` is None where nothing told it.
    """

    id: int
    sha256: str
    class_index: int
    class_name: str
    source_name: str
    kind: Kind
    version: int
    drop: float
    residual: float
    rank: int
    area: float | None
    width: int
    height: int
    masked: bool
    verdict: Verdict | None
    reasons: list[str]


@dataclass(frozen=True)
class QueuePage:
    """Some items, and the cursor for those after them (None at the end)."""

    items: list[QueueItem]
    cursor: str | None


def next_items(
    session: Session,
    wanted: QueueFilter,
    user_id: int,
    cursor: str | None = None,
    limit: int = 50,
    order: Order = Order.ID,
    *,
    seed: int = 0,
    besides: Sequence[ColumnElement[bool]] = (),
) -> QueuePage:
    """The next ``limit`` candidates after ``cursor`` in that order, ``seed`` being that of the random one.

    ``besides`` are further conditions over ``Candidate``. Raises :class:`review.orders.InvalidCursor`.
    """
    limit = max(1, min(limit, MAX_LIMIT))
    overlap = load_overlap(session)
    asked = in_state(wanted.state, user_id, overlap)
    left = None
    if wanted.state is QueueState.UNREVIEWED:
        left = few_asked_of(session, user_id, overlap, wanted.recipe_id)
    if left is not None:
        asked = [Candidate.id.in_(left), *asked]
    # Found first, dressed after: the search then runs inside an index, however many are already judged.
    places = search(session, wanted, [*asked, *besides], order, seed, cursor, limit + 1, few=left is not None)
    items = items_by_id(session, [place.id for place in places[:limit]], user_id)
    return QueuePage(items, cursor_of(order, places[limit - 1]) if len(places) > limit else None)


def one_item(session: Session, candidate_id: int, user_id: int) -> QueueItem | None:
    """One candidate as the queue would show it; None when there is none."""
    return next(iter(items_by_id(session, [candidate_id], user_id)), None)


def recipes_with_candidates(session: Session) -> list[tuple[Recipe, int]]:
    """The recipes that have candidates and how many, newest first."""
    counted = select(Candidate.recipe_id, func.count().label("n")).group_by(Candidate.recipe_id).subquery()
    query = select(Recipe, counted.c.n).join(counted, counted.c.recipe_id == Recipe.id).order_by(Recipe.id.desc())
    return [tuple(row) for row in session.execute(query)]


def items_by_id(session: Session, ids: list[int], user_id: int) -> list[QueueItem]:
    """The candidates of those ids as the queue would show them, in that order; unknown ones are left out."""
    rows = {row.id: row for row in session.execute(_item_query(user_id).where(Candidate.id.in_(ids)))}
    return [_item(tuple(rows[candidate_id])) for candidate_id in ids if candidate_id in rows]


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


def _item_query(user_id: int) -> Select:
    own = and_(CurrentVerdict.candidate_id == Candidate.id, CurrentVerdict.user_id == user_id)
    return (
        select(
            Candidate.id,
            Candidate.result_sha256,
            Candidate.class_index,
            ImageClass.name,
            SourceImage.name,
            Candidate.kind,
            Candidate.version,
            Candidate.drop,
            Candidate.residual,
            Candidate.rank,
            case((_unknown().contains('"area"'), None), else_=Candidate.area),
            Candidate.width,
            Candidate.height,
            func.coalesce(Candidate.details["imported"]["masked"].as_boolean(), true()),
            CurrentVerdict.verdict,
            CurrentVerdict.reasons,
        )
        .join(ImageClass, ImageClass.class_index == Candidate.class_index)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .outerjoin(CurrentVerdict, own)
    )


def _unknown() -> ColumnElement[str | None]:
    """What no archive told of an imported candidate, as the text of a JSON list; NULL for those made here."""
    return Candidate.details["imported"]["unknown"].as_string()


def _item(row: tuple) -> QueueItem:
    return QueueItem(*row[:-1], reasons=list(row[-1] or []))
