"""Which candidates a queue, a count or a saved view is about."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import cache

from sqlalchemy import ColumnElement, and_, not_, select
from sqlalchemy.orm import aliased

from db.models import Candidate, CurrentVerdict, DuplicateMember, Kind, TriagePrediction, Verdict
from review.overlap import Overlap, is_asked_of, is_auto_for, is_judged_by


class QueueState(enum.StrEnum):
    """Which candidates, by the annotator's own standing verdict; each is in exactly one state besides ``all``.

    Without an own verdict, ``unreviewed`` are those the annotator is asked for (review/overlap.py) and ``not_asked``
    those that others have judged enough or that a newer version has replaced; ``auto`` are those that a confirmed band
    of the triage model has decided instead of people.
    """

    UNREVIEWED = "unreviewed"
    ACCEPTED = "accepted"
    REJECTED = "rejected"
    SKIPPED = "skipped"
    NOT_ASKED = "not_asked"
    AUTO = "auto"
    ALL = "all"


_PREDICTION = aliased(TriagePrediction)
_VERDICT = aliased(CurrentVerdict)

VERDICT_OF = {
    QueueState.ACCEPTED: Verdict.ACCEPT,
    QueueState.REJECTED: Verdict.REJECT,
    QueueState.SKIPPED: Verdict.SKIP,
}


@dataclass(frozen=True)
class QueueFilter:
    """Which candidates are asked for; a value of None does not restrict. All ranges include their ends.

    ``verdict``, ``annotator_id`` and ``disagreement`` look at what anybody has said: only somebody who does not judge
    blind may ask for them (``looks_at_others``). ``verdict`` and ``annotator_id`` together mean that annotator's
    verdict. ``disagreement`` lets through candidates with a standing accept and a standing reject, ``duplicates``
    those in a group of near-duplicates. The P(accept) range lets through only candidates with a prediction.
    """

    state: QueueState = QueueState.UNREVIEWED
    class_index: int | None = None
    drop_min: float | None = None
    drop_max: float | None = None
    kind: Kind | None = None
    recipe_id: int | None = None
    area_min: float | None = None
    area_max: float | None = None
    residual_min: float | None = None
    residual_max: float | None = None
    verdict: Verdict | None = None
    annotator_id: int | None = None
    disagreement: bool = False
    p_accept_min: float | None = None
    p_accept_max: float | None = None
    duplicates: bool = False

    @property
    def looks_at_others(self) -> bool:
        """Whether the filter tells what other annotators have said."""
        return self.verdict is not None or self.annotator_id is not None or self.disagreement

    @property
    def needs_prediction(self) -> bool:
        """Whether a candidate without a prediction is left out."""
        return self.p_accept_min is not None or self.p_accept_max is not None


def conditions(
    wanted: QueueFilter,
    *,
    by_recipe: bool = True,
    p_accept: ColumnElement[float] | None = None,
    few: bool = False,
) -> list[ColumnElement[bool]]:
    """The filter without its state, over ``Candidate``.

    Without ``by_recipe`` SQLite cannot find candidates by their recipe: for a query that another table leads.
    ``p_accept`` is the column of a joined prediction, where the query has one. ``few`` says that hardly any candidates
    are let through: a range of P(accept) then finds them by its index, instead of being tested on each.
    """
    by_recipe = by_recipe and not (few and wanted.needs_prediction)
    equal = (
        (Candidate.recipe_id if by_recipe else Candidate.recipe_id + 0, wanted.recipe_id),
        (Candidate.class_index, wanted.class_index),
        (Candidate.kind, wanted.kind),
    )
    ranges = (
        (Candidate.drop, wanted.drop_min, wanted.drop_max),
        (Candidate.area, wanted.area_min, wanted.area_max),
        (Candidate.residual, wanted.residual_min, wanted.residual_max),
    )
    found = [column == value for column, value in equal if value is not None]
    for column, low, high in ranges:
        found += _within(column, low, high)
    found += _predicted(wanted, p_accept, few=few)
    if wanted.duplicates:
        found.append(Candidate.id.in_(select(DuplicateMember.candidate_id)))
    if wanted.disagreement:
        found.append(_is_disagreed_on())
    if wanted.verdict is not None or wanted.annotator_id is not None:
        found.append(_was_judged(wanted.verdict, wanted.annotator_id))
    return found


def in_state(state: QueueState, user_id: int, overlap: Overlap) -> list[ColumnElement[bool]]:
    """The state as conditions over ``Candidate``."""
    match state:
        case QueueState.ALL:
            return []
        case QueueState.UNREVIEWED:
            return is_asked_of(user_id, overlap)
        case QueueState.NOT_ASKED:
            otherwise = (is_asked_of(user_id, overlap), is_auto_for(user_id))
            return [not_(is_judged_by(user_id)), *(not_(and_(*conditions)) for conditions in otherwise)]
        case QueueState.AUTO:
            return is_auto_for(user_id)
        case _:
            return [_was_judged(VERDICT_OF[state], user_id)]


def _predicted(wanted: QueueFilter, joined: ColumnElement[float] | None, *, few: bool) -> list[ColumnElement[bool]]:
    column = _PREDICTION.p_accept if joined is None else joined
    within = _within(column, wanted.p_accept_min, wanted.p_accept_max)
    if joined is not None or not within:
        return within
    if few:
        return [Candidate.id.in_(select(_PREDICTION.candidate_id).where(*within))]
    return [select(1).where(_PREDICTION.candidate_id == Candidate.id, *within).exists()]


def _within(column, low: float | None, high: float | None) -> list[ColumnElement[bool]]:
    bounds = []
    if low is not None:
        bounds.append(column >= low)
    if high is not None:
        bounds.append(column <= high)
    return bounds


@cache
def _is_disagreed_on() -> ColumnElement[bool]:
    # From the rejects, which are fewer than the candidates and mostly fewer than the accepts.
    rejected, accepted = aliased(CurrentVerdict), aliased(CurrentVerdict)
    also = select(1).where(accepted.candidate_id == rejected.candidate_id, accepted.verdict == Verdict.ACCEPT)
    return Candidate.id.in_(select(rejected.candidate_id).where(rejected.verdict == Verdict.REJECT, also.exists()))


def _was_judged(verdict: Verdict | None, user_id: int | None) -> ColumnElement[bool]:
    found = select(1).where(_VERDICT.candidate_id == Candidate.id)
    if user_id is not None:
        found = found.where(_VERDICT.user_id == user_id)
    if verdict is not None:
        found = found.where(_VERDICT.verdict == verdict)
    return found.exists()
