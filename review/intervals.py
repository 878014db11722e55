"""Exact bounds for a share of which a sample was judged, from one simple random sample or from several strata.

Shares are 0 to 1. ``confidence`` is 0.95 unless said otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

MAX_SAMPLE = 10_000_000


class IntervalError(ValueError):
    """Counts or shares that no sample has; the message names them."""


@dataclass(frozen=True)
class Interval:
    """A closed range of shares."""

    lower: float
    upper: float


@dataclass(frozen=True)
class Stratum:
    """``found`` of ``judged`` candidates drawn at random among ``population`` have the property."""

    population: int
    judged: int
    found: int


@dataclass(frozen=True)
class ShareEstimate:
    """A share with its two-sided ``interval`` and the one-sided ``upper`` bound, all at ``confidence``.

    ``method`` is ``census`` (everything was judged), ``clopper_pearson`` or ``stratified``.
    """

    share: float
    interval: Interval
    upper: float
    confidence: float
    method: str


def clopper_pearson(found: int, judged: int, confidence: float = 0.95) -> Interval:
    """The exact two-sided interval of a binomial share (Clopper and Pearson 1934); equal tails."""
    tail = (1 - _checked(found, judged, confidence)) / 2
    return Interval(_lower(found, judged, tail), _upper(found, judged, tail))


def upper_bound(found: int, judged: int, confidence: float = 0.95) -> float:
    """The exact one-sided upper bound: a larger share would give so few ``found`` with less than 1 - confidence."""
    return _upper(found, judged, 1 - _checked(found, judged, confidence))


def estimate_share(strata: Sequence[Stratum], confidence: float = 0.95) -> ShareEstimate:
    """The share in the whole population from a stratified sample without replacement.

    The estimate weights each stratum by its population: sum of W_h found_h / judged_h. Its bounds are exact but
    conservative. With n_h judged of n in all, the pooled count is a sum of independent counts whose mean share
    is q = sum of (n_h / n) p_h; Clopper-Pearson holds for q, as such a sum varies less than the binomial of that
    mean (Hoeffding 1956), and so does drawing without replacement. And q min(W_h n / n_h) <= sum of W_h p_h <=
    q max(W_h n / n_h), a factor of 1 for one stratum and next to 1 for proportional allocation.
    Raises :class:`IntervalError` for a stratum of which nothing was judged.
    """
    population = sum(stratum.population for stratum in strata)
    judged = sum(stratum.judged for stratum in strata)
    found = sum(stratum.found for stratum in strata)
    _checked(found, judged, confidence)
    for stratum in strata:
        if not 0 < stratum.judged <= stratum.population or not 0 <= stratum.found <= stratum.judged:
            raise IntervalError(f"{stratum} is no sample: judge at least one candidate of every stratum.")
    share = sum(stratum.population / population * stratum.found / stratum.judged for stratum in strata)
    if judged == population:
        return ShareEstimate(share, Interval(share, share), share, confidence, "census")
    factors = [stratum.population / population * judged / stratum.judged for stratum in strata]
    pooled = clopper_pearson(found, judged, confidence)
    return ShareEstimate(
        share=share,
        interval=Interval(pooled.lower * min(factors), min(1.0, pooled.upper * max(factors))),
        upper=min(1.0, upper_bound(found, judged, confidence) * max(factors)),
        confidence=confidence,
        method="clopper_pearson" if len(strata) == 1 else "stratified",
    )


def sample_size_for(bound: float, expected: float = 0.0, confidence: float = 0.95) -> int:
    """How many to judge so that the one-sided upper bound is at most ``bound`` if a share ``expected`` is found.

    For a bound of 1 % and nothing found: 299. Raises :class:`IntervalError` unless 0 <= expected < bound < 1, or
    when more than ten million would be needed.
    """
    if not 0 <= expected < bound < 1:
        raise IntervalError(f"Need 0 <= expected < bound < 1, got expected {expected:g} and bound {bound:g}.")
    _checked(0, 1, confidence)
    # The least n at which `found` still passes grows with `found`; the first such n that expects no more is it.
    found, low = 0, 1
    while True:
        low = _least_sample(found, bound, 1 - confidence, low)
        if expected * low <= found:
            return low
        found = max(found + 1, int(expected * low))


def _least_sample(found: int, bound: float, tail: float, low: int) -> int:
    """The smallest n, from ``low`` up, for which the upper bound of ``found`` in n is at most ``bound``."""
    low = max(low, found + 1)
    high = low
    while _upper(found, high, tail) > bound:
        low, high = high + 1, high * 2
        if high > MAX_SAMPLE:
            raise IntervalError(f"More than {MAX_SAMPLE} would have to be judged; give a looser bound.")
    while low < high:
        middle = (low + high) // 2
        if _upper(found, middle, tail) <= bound:
            high = middle
        else:
            low = middle + 1
    return low


def _checked(found: int, judged: int, confidence: float) -> float:
    if judged < 1 or not 0 <= found <= judged:
        raise IntervalError(f"{found} found of {judged} judged is no sample; judge at least one.")
    if not 0 < confidence < 1:
        raise IntervalError(f"The confidence lies between 0 and 1, not {confidence:g}.")
    return confidence


def _upper(found: int, judged: int, tail: float) -> float:
    from scipy.special import betaincinv

    return 1.0 if found == judged else float(betaincinv(found + 1, judged - found, 1 - tail))


def _lower(found: int, judged: int, tail: float) -> float:
    from scipy.special import betaincinv

    return 0.0 if found == 0 else float(betaincinv(found, judged - found + 1, tail))
