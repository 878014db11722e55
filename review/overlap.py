"""How many annotators a candidate wants: one, or ``k`` for a sampled share of them, so that agreement can be measured.

A candidate has enough once that many annotators have a standing accept or reject on it; a skip is no answer. The
sample is drawn by arithmetic on the candidate's id and a seed, so that a query can ask for it and any database gives
the same answer. Gold items are shown to everybody, whatever the others said. What a confirmed band of the triage
model has decided is asked of nobody.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, func, literal, not_, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import AutoVerdict, Candidate, CurrentVerdict, GoldItem, Verdict
from db.queries import get_meta, is_superseded, set_meta

OVERLAP = "overlap"
PRIME = 2**31 - 1
MAX_ANNOTATORS = 20
ANSWERS = (Verdict.ACCEPT, Verdict.REJECT)
_MULTIPLIER = 1_103_515_245
_SEED_MULTIPLIER = 69_621
_SHIFT = 12_345
# Aliases and conditions are made once: making them costs more than most of the queries they are in.
_OWN = aliased(CurrentVerdict)
_COUNTED = aliased(CurrentVerdict)


class OverlapError(ValueError):
    """A setting outside its range; the message names it and the range."""


@dataclass(frozen=True)
class Overlap:
    """``share`` (0 to 1) of the candidates wants ``k`` annotators, the others one; ``seed`` says which."""

    share: float = 0.0
    k: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.share <= 1:
            raise OverlapError(f"share: the overlapping share lies between 0 and 1, not {self.share:g}.")
        if not 2 <= self.k <= MAX_ANNOTATORS:
            raise OverlapError(f"k: an overlapping candidate wants 2 to {MAX_ANNOTATORS} annotators, not {self.k}.")
        if not 0 <= self.seed < PRIME:
            raise OverlapError(f"seed: give a whole number from 0 to {PRIME - 1}, not {self.seed}.")


def load_overlap(session: Session) -> Overlap:
    """The workspace's setting; no overlap where none was stored."""
    stored = get_meta(session, OVERLAP)
    return Overlap() if stored is None else Overlap(**json.loads(stored))


def save_overlap(session: Session, overlap: Overlap) -> None:
    """Store the setting; needs a write session. Who is asked for what changes at once, verdicts stay."""
    set_meta(session, OVERLAP, json.dumps(asdict(overlap), sort_keys=True))


def scrambled(number: ColumnElement[int], prime: int, multiplier: int, shift: int) -> ColumnElement[int]:
    """``(multiplier * number + shift) ** 5 modulo prime``: numbers 0 to prime - 1 in an order that looks random.

    A permutation of them when 5 does not divide prime - 1 and prime does not divide the multiplier. Integer
    arithmetic below 2**63 for a prime below 2**31, so that SQLite and PostgreSQL agree.
    """
    first = (cast(number, BigInteger) * multiplier + shift) % prime
    squared = (first * first) % prime
    return ((squared * squared) % prime * first) % prime


def is_sampled(candidate_id: ColumnElement[int], overlap: Overlap) -> ColumnElement[bool]:
    """True for the candidates that want ``k`` annotators."""
    shift = overlap.seed * _SEED_MULTIPLIER % PRIME + _SHIFT
    return scrambled(candidate_id, PRIME, _MULTIPLIER, shift) < round(overlap.share * PRIME)


def wants(candidate_id: ColumnElement[int], overlap: Overlap) -> ColumnElement[int]:
    """How many annotators a candidate wants."""
    if overlap.share == 0:
        return literal(1)
    return case((is_sampled(candidate_id, overlap), overlap.k), else_=1)


def answer_count(candidate_id: ColumnElement[int]) -> ColumnElement[int]:
    """How many annotators have a standing accept or reject on a candidate."""
    query = select(func.count()).where(_COUNTED.candidate_id == candidate_id, _COUNTED.verdict.in_(ANSWERS))
    return query.scalar_subquery()


@cache
def has_answer(verdict: Verdict) -> ColumnElement[bool]:
    """True where at least one annotator's standing verdict on the candidate is ``verdict``."""
    row = aliased(CurrentVerdict)
    return select(1).where(row.candidate_id == Candidate.id, row.verdict == verdict).exists()


@cache
def is_answered() -> ColumnElement[bool]:
    """True where at least one annotator has answered."""
    # Two look-ups in an index instead of a count: most candidates want one annotator.
    return or_(*(has_answer(verdict) for verdict in ANSWERS))


def has_enough(overlap: Overlap) -> ColumnElement[bool]:
    """True where as many annotators have answered as the candidate wants."""
    if overlap.share == 0:
        return is_answered()
    wants_more = and_(is_sampled(Candidate.id, overlap), answer_count(Candidate.id) < overlap.k)
    return and_(is_answered(), not_(wants_more))


@cache
def is_left_to_model() -> ColumnElement[bool]:
    """True where a confirmed band of the triage model has decided (review/triage/confirmed.py) and no annotator has."""
    automatic = select(1).where(AutoVerdict.candidate_id == Candidate.id).exists()
    return and_(automatic, not_(is_answered()))


@cache
def is_gold() -> ColumnElement[bool]:
    """True for candidates that everybody is asked about."""
    return Candidate.id.in_(select(GoldItem.candidate_id))


def is_judged_by(user_id: int) -> ColumnElement[bool]:
    """True where the annotator has a standing verdict, a skip included."""
    return select(1).where(_OWN.candidate_id == Candidate.id, _OWN.user_id == user_id).exists()


@cache
def _is_newest() -> ColumnElement[bool]:
    return not_(is_superseded())


def is_asked_of(user_id: int, overlap: Overlap) -> list[ColumnElement[bool]]:
    """The conditions under which an annotator is to judge a candidate; what most candidates fail comes first."""
    wanted = and_(not_(has_enough(overlap)), not_(is_left_to_model()))
    return [or_(wanted, is_gold()), not_(is_judged_by(user_id)), _is_newest()]


def is_auto_for(user_id: int) -> list[ColumnElement[bool]]:
    """The conditions under which an annotator is not asked for a candidate because the model has decided it."""
    return [is_left_to_model(), not_(is_gold()), not_(is_judged_by(user_id)), _is_newest()]
