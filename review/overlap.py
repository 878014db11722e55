"""How many annotators a candidate wants: one, or ``k`` for a sampled share of them, so that agreement can be measured.

A candidate has enough once that many annotators have a standing accept or reject on it; a skip is no answer. The
sample is drawn by arithmetic on the candidate's id and a seed, so that a query can ask for it and any database gives
the same answer. Gold items are shown to everybody, whatever the others said.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from sqlalchemy import BigInteger, ColumnElement, and_, case, cast, func, literal, not_, or_, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, CurrentVerdict, GoldItem, Verdict
from db.queries import get_meta, set_meta

OVERLAP = "overlap"
PRIME = 2**31 - 1
MAX_ANNOTATORS = 20
ANSWERS = (Verdict.ACCEPT, Verdict.REJECT)
_MULTIPLIER = 1_103_515_245
_SEED_MULTIPLIER = 69_621
_SHIFT = 12_345


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
    row = aliased(CurrentVerdict)
    query = select(func.count()).where(row.candidate_id == candidate_id, row.verdict.in_(ANSWERS))
    return query.scalar_subquery()


def has_answer(verdict: Verdict) -> ColumnElement[bool]:
    """True where at least one annotator's standing verdict on the candidate is ``verdict``."""
    row = aliased(CurrentVerdict)
    return select(1).where(row.candidate_id == Candidate.id, row.verdict == verdict).exists()


def has_enough(overlap: Overlap) -> ColumnElement[bool]:
    """True where as many annotators have answered as the candidate wants."""
    # Two look-ups in an index instead of a count: most candidates want one annotator.
    answered = or_(*(has_answer(verdict) for verdict in ANSWERS))
    if overlap.share == 0:
        return answered
    wants_more = and_(is_sampled(Candidate.id, overlap), answer_count(Candidate.id) < overlap.k)
    return and_(answered, not_(wants_more))


def is_gold() -> ColumnElement[bool]:
    """True for candidates that everybody is asked about."""
    return Candidate.id.in_(select(GoldItem.candidate_id))


def is_judged_by(user_id: int) -> ColumnElement[bool]:
    """True where the annotator has a standing verdict, a skip included."""
    row = aliased(CurrentVerdict)
    return select(1).where(row.candidate_id == Candidate.id, row.user_id == user_id).exists()


def is_superseded() -> ColumnElement[bool]:
    """True where the candidate has been made again with a corrected mask."""
    newer = aliased(Candidate)
    return select(1).where(_same_lineage(newer, Candidate), newer.version > Candidate.version).exists()


def superseded_ids():
    """A query for the ids of which :func:`is_superseded` is true; quicker when all candidates are asked about."""
    older, newer = aliased(Candidate), aliased(Candidate)
    return (
        select(older.id)
        .join(newer, and_(_same_lineage(newer, older), newer.version > older.version))
        .where(newer.version > 1)
    )


def _same_lineage(one, other) -> ColumnElement[bool]:
    return and_(
        one.source_id == other.source_id,
        one.recipe_id == other.recipe_id,
        one.kind == other.kind,
        one.variant == other.variant,
    )


def is_asked_of(user_id: int, overlap: Overlap) -> list[ColumnElement[bool]]:
    """The conditions under which an annotator is to judge a candidate; what most candidates fail comes first."""
    return [or_(not_(has_enough(overlap)), is_gold()), not_(is_judged_by(user_id)), not_(is_superseded())]
