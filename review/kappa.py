"""How far annotators agree beyond chance: Cohen's and Fleiss' kappa, with percentile bootstrap intervals over items.

Cohen 1960, "A coefficient of agreement for nominal scales": kappa = (p_o - p_e) / (1 - p_e) of two annotators.
Fleiss 1971, "Measuring nominal scale agreement among many raters": the same for items with r ratings each, whoever
gave them. Items with another number of ratings are left out, not padded.

An interval takes no item-by-item resampling: items with the same ratings are exchangeable, so drawing n of n items
with replacement is one draw from a multinomial distribution over the patterns that occur.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

CONFIDENCE = 0.95
RESAMPLES = 1000


@dataclass(frozen=True)
class Agreement:
    """Agreement on ``items`` items. ``observed`` is the share of agreeing pairs of ratings, 0 to 1.

    ``kappa`` is None when chance alone would agree always, as when everybody says the same of everything; ``low`` and
    ``high`` are None with it. Resamples in which kappa is undefined do not enter the interval.
    """

    items: int
    observed: float | None
    kappa: float | None
    low: float | None
    high: float | None


NO_ITEMS = Agreement(0, None, None, None, None)


def cohen_kappa(first: np.ndarray, second: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """Cohen's kappa of two annotators' categories of the same items, two integer arrays of shape (n,)."""
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"Give two arrays of one length, not of shapes {first.shape} and {second.shape}.")
    patterns, numbers = np.unique(np.stack([first, second], axis=1), axis=0, return_counts=True)
    categories, places = np.unique(patterns, return_inverse=True)
    marks = np.eye(len(categories))[places.reshape(patterns.shape)]  # (patterns, 2, categories)
    agreeing = (patterns[:, 0] == patterns[:, 1]).astype(float)

    def kappa(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = weights / weights.sum(axis=-1, keepdims=True)
        margins = np.tensordot(shares, marks, axes=1)  # (..., 2, categories)
        expected = (margins[..., 0, :] * margins[..., 1, :]).sum(axis=-1)
        return _beyond_chance(shares @ agreeing, expected)

    return _with_interval(kappa, numbers, resamples, seed)


def fleiss_kappa(counts: np.ndarray, *, resamples: int = RESAMPLES, seed: int = 0) -> Agreement:
    """Fleiss' kappa of ``counts`` (n, categories): how many ratings of an item are of a category.

    Every item has the same number of ratings, at least two; else ValueError.
    """
    if not len(counts):
        return NO_ITEMS
    ratings = counts.sum(axis=1)
    if ratings[0] < 2 or (ratings != ratings[0]).any():
        raise ValueError("Every item must have the same number of ratings, at least two.")
    patterns, numbers = np.unique(counts, axis=0, return_counts=True)
    raters = int(ratings[0])
    agreeing = (patterns * (patterns - 1)).sum(axis=1) / (raters * (raters - 1))

    def kappa(weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        shares = weights / weights.sum(axis=-1, keepdims=True)
        categories = shares @ (patterns / raters)
        return _beyond_chance(shares @ agreeing, (categories**2).sum(axis=-1))

    return _with_interval(kappa, numbers, resamples, seed)


def _beyond_chance(observed: np.ndarray, expected: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Observed agreement and kappa; kappa is NaN where chance alone agrees always."""
    certain = expected > 1 - 1e-12
    with np.errstate(invalid="ignore", divide="ignore"):
        return observed, np.where(certain, np.nan, (observed - expected) / (1 - expected))


def _with_interval(kappa, numbers: np.ndarray, resamples: int, seed: int) -> Agreement:
    """The agreement of patterns that occur ``numbers`` times each, with its interval."""
    items = int(numbers.sum())
    if not items:
        return NO_ITEMS
    observed, value = kappa(numbers.astype(float))
    if np.isnan(value):
        return Agreement(items, float(observed), None, None, None)
    draws = np.random.default_rng(seed).multinomial(items, numbers / items, size=resamples)
    _, drawn = kappa(draws.astype(float))
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(drawn, (tail, 1 - tail))
    return Agreement(items, float(observed), float(value), float(low), float(high))
