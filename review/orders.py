"""The orders of the queue: each finds the next candidates from where the last page ended, never by counting past rows.

``uncertain`` and ``p_accept`` follow the triage model's predictions; candidates that have none come after those that
do, lowest drop first. ``random`` is in review/random_order.py.
"""

from __future__ import annotations

import base64
import binascii
import enum
import json
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, select, tuple_
from sqlalchemy.orm import Session

from db.models import Candidate, TriagePrediction
from review.filters import QueueFilter, conditions
from review.random_order import Permutation, are_few, find_by_step, permutation_of_ids


class InvalidCursor(ValueError):
    """The cursor was not made by the same order of the queue."""


class Order(enum.StrEnum):
    """``drop`` and ``p_accept``: lowest first. ``residual``: highest first. These bring what is probably bad to the
    front. ``uncertain``: P(accept) nearest to one half first."""

    ID = "id"
    DROP = "drop"
    RESIDUAL = "residual"
    CLASS = "class"
    RANDOM = "random"
    UNCERTAIN = "uncertain"
    P_ACCEPT = "p_accept"


@dataclass(frozen=True)
class Place:
    """A candidate and where it is in the order: ``key`` is what the cursor of the next page is made of."""

    id: int
    key: tuple[float, ...]


Conditions = Sequence[ColumnElement[bool]]

_CANDIDATES = select(Candidate.id)
_COLUMNS = {
    Order.ID: (Candidate.id,),
    Order.DROP: (Candidate.drop, Candidate.id),
    Order.RESIDUAL: (Candidate.residual, Candidate.id),
    Order.CLASS: (Candidate.class_index, Candidate.id),
}
_PREDICTED = {Order.UNCERTAIN: TriagePrediction.uncertainty, Order.P_ACCEPT: TriagePrediction.p_accept}
_KEY_LENGTH = {Order.ID: 1, Order.UNCERTAIN: 3, Order.P_ACCEPT: 3, Order.RANDOM: 4}


def search(
    session: Session,
    wanted: QueueFilter,
    besides: Conditions,
    order: Order,
    seed: int,
    cursor: str | None,
    count: int,
    *,
    few: bool = False,
) -> list[Place]:
    """The next ``count`` candidates after ``cursor`` that ``besides`` and the filter, its state left out, let through.

    ``few`` says that hardly any do, if that is known. Raises :class:`InvalidCursor`.
    """
    after = None if cursor is None else _decode(order, cursor)
    asked = [*conditions(wanted), *besides]
    # In the order of the ids a search through all is hardly dearer than finding out.
    if not few and (order is not Order.ID or wanted.needs_prediction):
        few = wanted.class_index is not None or are_few(session, asked)
    if few:
        asked = [*conditions(wanted, few=True), *besides]
    if order is Order.RANDOM:
        return _at_random(session, asked, seed, after, count, few=few)
    if order in _PREDICTED:
        return _by_prediction(session, wanted, besides, order, after, count, few=few)
    return _by_key(session, asked, _COLUMNS[order], after, count, few=few, descending=order is Order.RESIDUAL)


def cursor_of(order: Order, place: Place) -> str:
    """What asks for the candidates after that place."""
    return base64.urlsafe_b64encode(json.dumps([order.value, *place.key]).encode()).decode().rstrip("=")


def _decode(order: Order, cursor: str) -> tuple[float, ...]:
    try:
        made_by, *values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, UnicodeError, ValueError, TypeError):
        raise InvalidCursor("The cursor is damaged; start again without one.") from None
    numbers = all(type(value) in (int, float) and math.isfinite(value) and abs(value) < 2**63 for value in values)
    if made_by != order.value or len(values) != _KEY_LENGTH.get(order, 2) or not numbers:
        raise InvalidCursor("The cursor belongs to another order; start again without one.")
    return tuple(values)


def _by_key(
    session: Session,
    asked: Conditions,
    key: tuple[ColumnElement, ...],
    after: tuple[float, ...] | None,
    count: int,
    *,
    few: bool,
    descending: bool = False,
    query: Select = _CANDIDATES,
) -> list[Place]:
    """A page by columns; the id last makes every key unique."""
    query = query.add_columns(*key).where(*asked)
    if few:
        # In the order of the ids, which costs least; then sorted here.
        found = [Place(row[0], tuple(row[1:])) for row in session.execute(query.order_by(Candidate.id))]
        return _page_of(found, after, count, descending=descending)
    if after is not None:
        query = query.where(tuple_(*key) < tuple_(*after) if descending else tuple_(*key) > tuple_(*after))
    in_order = [part.desc() if descending else part for part in key]
    return [Place(row[0], tuple(row[1:])) for row in session.execute(query.order_by(*in_order).limit(count))]


def _page_of(
    found: list[Place], after: tuple[float, ...] | None, count: int, *, descending: bool = False
) -> list[Place]:
    comes_later = operator.lt if descending else operator.gt
    found.sort(key=lambda place: place.key, reverse=descending)
    return [place for place in found if after is None or comes_later(place.key, after)][:count]


def _by_prediction(
    session: Session,
    wanted: QueueFilter,
    besides: Conditions,
    order: Order,
    after: tuple[float, ...] | None,
    count: int,
    *,
    few: bool,
) -> list[Place]:
    """First those with a prediction (part 0 of the key), then those without (part 1)."""
    part, rest = (0, None) if after is None else (after[0], after[1:])
    descending = order is Order.UNCERTAIN
    if few:
        predicted, others = _few_by_prediction(session, wanted, besides, order)
        places = _page_of(predicted, rest, count, descending=descending) if part == 0 else []
        others = _page_of(others, rest if part else None, count - len(places))
        return [_in_part(0, place) for place in places] + [_in_part(1, place) for place in others]
    same = TriagePrediction.candidate_id == Candidate.id
    places = []
    if part == 0:
        key = (_PREDICTED[order], TriagePrediction.candidate_id)
        # By "+ 0" the range is tested along the order's own index; found by its own it would have to be sorted.
        p_accept = TriagePrediction.p_accept + 0 if descending else TriagePrediction.p_accept
        leading = [*conditions(wanted, by_recipe=False, p_accept=p_accept), *besides]
        query = _CANDIDATES.join(TriagePrediction, same)
        found = _by_key(session, leading, key, rest, count, few=False, query=query, descending=descending)
        places = [_in_part(0, place) for place in found]
        rest = None
    if len(places) < count and not wanted.needs_prediction:
        asked = [~select(1).where(same).exists(), *conditions(wanted), *besides]
        found = _by_key(session, asked, _COLUMNS[Order.DROP], rest, count - len(places), few=False)
        places += [_in_part(1, place) for place in found]
    return places


def _few_by_prediction(
    session: Session, wanted: QueueFilter, besides: Conditions, order: Order
) -> tuple[list[Place], list[Place]]:
    """All that the conditions let through, with a prediction and without, in one pass; the keys are without a part."""
    same = TriagePrediction.candidate_id == Candidate.id
    columns = select(Candidate.id, _PREDICTED[order], Candidate.drop)
    if wanted.needs_prediction:
        query = columns.join(TriagePrediction, same)
        asked = conditions(wanted, by_recipe=False, p_accept=TriagePrediction.p_accept)
    else:
        query, asked = columns.outerjoin(TriagePrediction, same), conditions(wanted)
    predicted, others = [], []
    for candidate_id, value, drop in session.execute(query.where(*asked, *besides)):
        if value is None:
            others.append(Place(candidate_id, (drop, candidate_id)))
        else:
            predicted.append(Place(candidate_id, (value, candidate_id)))
    return predicted, others


def _in_part(part: int, place: Place) -> Place:
    return Place(place.id, (part, *place.key))


def _at_random(
    session: Session, asked: Conditions, seed: int, after: tuple[float, ...] | None, count: int, *, few: bool
) -> list[Place]:
    """A page by the steps of a permutation that the first page chose; the key names it."""
    if after is None:
        permutation, start = permutation_of_ids(session, seed), 0
    else:
        step, *named = after
        if not all(isinstance(value, int) for value in after) or named[2] != seed or step < 0:
            raise InvalidCursor("The cursor belongs to another seed; start again without one.")
        try:
            permutation, start = Permutation(*named), step + 1
        except ValueError:
            raise InvalidCursor("The cursor is damaged; start again without one.") from None
    found = find_by_step(session, permutation, asked, start, count, few=few)
    return [Place(candidate_id, (step, *permutation.key)) for step, candidate_id in found]
