"""A random order that nobody has to sort: a seed names a permutation of the ids, and a page walks on through it.

Step 0, 1, 2, ... of the permutation names an id each, by the same arithmetic in Python and in SQL. So a page costs
what it holds, and everybody who gives the same seed gets the same order. New candidates make a new permutation; a
page's cursor goes on in the one it was begun with.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Select, func, literal, select
from sqlalchemy.orm import Session

from db.models import Candidate
from review.overlap import scrambled

MAX_SEED = 2**31 - 1
FIRST_BLOCK = 512
SAMPLE = 256
SAMPLE_SEED = 20_260_101
FEW = 3
_MULTIPLIER = 1_103_515_245
_SHIFT = 69_621


@dataclass(frozen=True)
class Permutation:
    """A permutation of the ids from ``first`` to ``first + prime - 1``, not all of which need exist.

    ``prime``, 3 to 2**31 - 1, is one of which 5 does not divide one less, else ValueError. The same three numbers give
    the same permutation.
    """

    first: int
    prime: int
    seed: int

    def __post_init__(self) -> None:
        if not 3 <= self.prime <= MAX_SEED or prime_from(self.prime) != self.prime:
            raise ValueError(f"{self.prime} is not a prime of a permutation.")

    @property
    def key(self) -> tuple[int, int, int]:
        return self.first, self.prime, self.seed

    @property
    def _affine(self) -> tuple[int, int]:
        return 1 + (self.seed * _MULTIPLIER + _SHIFT) % (self.prime - 1), self.seed % self.prime

    def id_at(self, step: ColumnElement[int]) -> ColumnElement[int]:
        """The id at a step, in SQL."""
        return self.first + scrambled(step, self.prime, *self._affine)

    def step_of(self, candidate_id: int) -> int | None:
        """The step at which an id comes; None for one outside the permutation."""
        offset = candidate_id - self.first
        if not 0 <= offset < self.prime:
            return None
        multiplier, shift = self._affine
        fifth_root = pow(offset, pow(5, -1, self.prime - 1), self.prime)
        return (fifth_root - shift) * pow(multiplier, -1, self.prime) % self.prime


def permutation_of_ids(session: Session, seed: int) -> Permutation:
    """The permutation of all candidates' ids that the seed names."""
    # One look into the table each; asked for together, SQLite would read all of it.
    first = session.scalar(select(func.min(Candidate.id))) or 0
    last = session.scalar(select(func.max(Candidate.id))) or 0
    return Permutation(first, prime_from(last - first + 1), seed)


def are_few(session: Session, asked: Sequence[ColumnElement[bool]]) -> bool:
    """Whether hardly any candidates meet the conditions, judged by a small sample of them.

    SQLite keeps no statistics here. Knowing this, a search finds the few first and sorts them; else it goes through
    the candidates in order and stops when it has enough.
    """
    permutation = permutation_of_ids(session, SAMPLE_SEED)
    hits = _hits(permutation, asked, 0, min(SAMPLE, permutation.prime))
    return len(session.execute(hits.limit(FEW)).all()) < FEW


def find_by_step(
    session: Session,
    permutation: Permutation,
    asked: Sequence[ColumnElement[bool]],
    start: int,
    count: int,
    *,
    few: bool,
) -> list[tuple[int, int]]:
    """Step and id of the next ``count`` candidates from step ``start`` on that meet the conditions."""
    if few:
        ids = session.scalars(select(Candidate.id).where(*asked))
        steps = ((permutation.step_of(candidate_id), candidate_id) for candidate_id in ids)
        return sorted(pair for pair in steps if pair[0] is not None and pair[0] >= start)[:count]
    found: list[tuple[int, int]] = []
    step, block = start, FIRST_BLOCK
    while len(found) < count and step < permutation.prime:
        end = min(step + block, permutation.prime)
        hits = _hits(permutation, asked, step, end)
        found += [tuple(row) for row in session.execute(hits.order_by("step").limit(count - len(found)))]
        step, block = end, 4 * block
    return found


def _hits(permutation: Permutation, asked: Sequence[ColumnElement[bool]], start: int, end: int) -> Select:
    """A query for the hits among the steps from ``start`` up to, not including, ``end``: step and id."""
    steps = select(literal(start).label("step")).cte("steps", recursive=True)
    steps = steps.union_all(select(steps.c.step + 1).where(steps.c.step + 1 < end))
    at_step = Candidate.id == permutation.id_at(steps.c.step)
    return select(steps.c.step, Candidate.id).select_from(steps).join(Candidate, at_step).where(*asked)


def prime_from(least: int) -> int:
    """The smallest prime, at least ``least`` and 3, of which 5 does not divide one less."""
    number = max(least, 3)
    while number % 5 == 1 or any(number % divisor == 0 for divisor in range(2, math.isqrt(number) + 1)):
        number += 1
    return number
