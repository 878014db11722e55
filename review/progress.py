"""How far the review is: each annotator's counts, what is still wanted of all together, and how long that may take."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from sqlalchemy import Row, case, func, literal, select
from sqlalchemy.orm import Session

from db.models import AutoVerdict, Candidate, CurrentVerdict, Decision, User, Verdict, utcnow
from db.queries import superseded_ids
from review.filters import VERDICT_OF, QueueFilter, QueueState, conditions
from review.overlap import (
    answer_count,
    has_enough,
    is_gold,
    is_judged_by,
    is_left_to_model,
    is_sampled,
    load_overlap,
)

RECENT = 200
ACTIVE = dt.timedelta(minutes=15)


@dataclass(frozen=True)
class Together:
    """All annotators together. ``wanted`` counts the verdicts that the candidates want in all, ``decided`` those of
    them that have been given, ``left`` the others. What the triage model has decided wants none.

    ``active`` annotators have decided something in the last quarter of an hour. ``median_seconds`` is what one of
    their last decisions took, ``seconds_left`` is left x median_seconds / active; None when nobody is active or no
    times were measured.
    """

    wanted: int
    decided: int
    left: int
    active: int
    median_seconds: float | None
    seconds_left: float | None


@dataclass(frozen=True)
class AnnotatorProgress:
    """One annotator's standing verdicts and what one of their last decisions took, in seconds."""

    user_id: int
    name: str
    accepted: int
    rejected: int
    skipped: int
    median_seconds: float | None
    last_decision_at: dt.datetime | None


@dataclass(frozen=True)
class Progress:
    """``counts`` by state are the annotator's own; without ``all`` they add up to ``all``."""

    counts: dict[QueueState, int]
    together: Together


def progress(session: Session, wanted: QueueFilter, user_id: int, *, now: dt.datetime | None = None) -> Progress:
    """Counts over the filter's candidates, whatever state it names, and the estimate of the time left."""
    now = now or utcnow()
    counts, verdicts_wanted, left = _counted(session, wanted, user_id)
    active = _active_annotators(session, now)
    seconds = median_seconds(session, active)
    estimate = left * seconds / len(active) if active and seconds is not None else None
    together = Together(verdicts_wanted, verdicts_wanted - left, left, len(active), seconds, estimate)
    return Progress(counts, together)


def counts_by_state(session: Session, wanted: QueueFilter, user_id: int) -> dict[QueueState, int]:
    """How many candidates of the filter are in each state for this annotator, whatever state the filter names."""
    return _counted(session, wanted, user_id)[0]


def count(session: Session, wanted: QueueFilter, user_id: int) -> int:
    """How many candidates the filter lets through."""
    return counts_by_state(session, wanted, user_id)[wanted.state]


def annotators(session: Session, wanted: QueueFilter) -> list[AnnotatorProgress]:
    """Everybody with a standing verdict on the filter's candidates, by name; not for those who judge blind."""
    query = select(CurrentVerdict.user_id, CurrentVerdict.verdict, func.count())
    query = query.join(Candidate, Candidate.id == CurrentVerdict.candidate_id).where(*conditions(wanted))
    tally: dict[int, dict[Verdict, int]] = {}
    for user_id, verdict, number in session.execute(query.group_by(CurrentVerdict.user_id, CurrentVerdict.verdict)):
        tally.setdefault(user_id, {})[verdict] = number
    names = session.execute(select(User.id, User.name).where(User.id.in_(tally)).order_by(User.name)).all()
    return [
        AnnotatorProgress(
            user_id,
            name,
            *(tally[user_id].get(verdict, 0) for verdict in (Verdict.ACCEPT, Verdict.REJECT, Verdict.SKIP)),
            median_seconds(session, [user_id]),
            _last_decision_at(session, user_id),
        )
        for user_id, name in names
    ]


def median_seconds(session: Session, user_ids: Sequence[int]) -> float | None:
    """The median time a decision took, over the last :data:`RECENT` timed ones of each annotator."""
    times: list[int] = []
    for user_id in user_ids:
        recent = select(Decision.elapsed_ms).where(
            Decision.user_id == user_id, Decision.verdict != Verdict.UNDO, Decision.elapsed_ms.is_not(None)
        )
        times += session.scalars(recent.order_by(Decision.id.desc()).limit(RECENT))
    return median(times) / 1000 if times else None


def _counted(session: Session, wanted: QueueFilter, user_id: int) -> tuple[dict[QueueState, int], int, int]:
    """Counts by state, verdicts wanted, and verdicts of those still to be given, in one pass over the candidates."""
    overlap = load_overlap(session)
    enough, judged = has_enough(overlap).label("enough"), is_judged_by(user_id).label("judged")
    wants, answers = literal(1).label("wants"), literal(0).label("answers")
    if overlap.share > 0:
        sampled = is_sampled(Candidate.id, overlap)
        wants = case((sampled, overlap.k), else_=1).label("wants")
        answers = case((sampled, answer_count(Candidate.id)), else_=0).label("answers")
    replaced = Candidate.id.in_(superseded_ids()).label("replaced")
    auto = literal(False).label("auto")
    if session.scalar(select(AutoVerdict.candidate_id).limit(1)) is not None:
        auto = is_left_to_model().label("auto")
    columns = (wants, answers, enough, judged, is_gold().label("gold"), replaced, auto)
    names = [column.name for column in columns]
    rows = select(*columns, func.count().label("n")).where(*conditions(wanted)).group_by(*names)
    counts = dict.fromkeys(QueueState, 0) | _own_counts(session, wanted, user_id)
    total_wanted = left = 0
    for row in session.execute(rows):
        counts[QueueState.ALL] += row.n
        if not row.replaced and (row.gold or not row.auto):
            total_wanted += row.n * row.wants
            left += 0 if row.enough else row.n * (row.wants - row.answers)
        if not row.judged:
            counts[_state_without_verdict(row)] += row.n
    return counts, total_wanted, left


def _state_without_verdict(row: Row) -> QueueState:
    if not row.replaced and row.auto and not row.gold:
        return QueueState.AUTO
    asked = not row.replaced and (row.gold or not row.enough)
    return QueueState.UNREVIEWED if asked else QueueState.NOT_ASKED


def _own_counts(session: Session, wanted: QueueFilter, user_id: int) -> dict[QueueState, int]:
    judged = select(CurrentVerdict.verdict, func.count()).where(CurrentVerdict.user_id == user_id)
    asked = conditions(wanted)
    if asked:
        judged = judged.join(Candidate, Candidate.id == CurrentVerdict.candidate_id).where(*asked)
    verdicts = dict(session.execute(judged.group_by(CurrentVerdict.verdict)).all())
    return {state: verdicts.get(verdict, 0) for state, verdict in VERDICT_OF.items()}


def _active_annotators(session: Session, now: dt.datetime) -> list[int]:
    """Who has decided something lately: one look into an index for each user."""
    active = []
    for user_id in session.scalars(select(User.id)):
        last = _last_decision_at(session, user_id)
        if last is not None and last > now - ACTIVE:
            active.append(user_id)
    return active


def _last_decision_at(session: Session, user_id: int) -> dt.datetime | None:
    query = select(Decision.created_at).where(Decision.user_id == user_id).order_by(Decision.id.desc()).limit(1)
    return session.scalar(query)
