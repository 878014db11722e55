"""The bootstrap intervals of :func:`ospcoop.metrics.bootstrap_interval`, for all metrics at once and without sorting.

All scores are sorted once; a resample is then how often each distinct score was drawn on either side, and every
metric a few sums over those counts. Same draws, same definition, same numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import ArrayLike

from ospcoop.metrics import METRICS, RECALL, Interval, evaluate

LEVEL = 0.95


class _Counts:
    """How many ID and OOD images have each distinct score, ascending, and how many have at most that; float64."""

    def __init__(self, inside: np.ndarray, outside: np.ndarray) -> None:
        # Whole numbers far below 2**53, so nothing is rounded, and products of float64 go through BLAS.
        self.inside, self.outside = inside.astype(np.float64), outside.astype(np.float64)
        self.inside_up_to, self.outside_up_to = np.cumsum(self.inside), np.cumsum(self.outside)
        self.up_to = self.inside_up_to + self.outside_up_to
        self.id_images, self.ood_images = self.inside_up_to[-1], self.outside_up_to[-1]

    def auroc(self) -> float:
        below_and_up_to = 2 * self.inside_up_to - self.inside
        return (self.outside @ below_and_up_to) / 2 / (self.id_images * self.ood_images)

    def aupr_in(self) -> float:
        # Where nothing was drawn yet, 0 / 1 stands for 0 / 0; it counts for no image.
        precision = self.inside_up_to / np.maximum(self.up_to, 1)
        return (self.inside @ precision) / self.id_images

    def aupr_out(self) -> float:
        true = self.ood_images - self.outside_up_to + self.outside
        at_least = self.up_to[-1] - self.up_to + self.inside + self.outside
        return (self.outside @ (true / np.maximum(at_least, 1))) / self.ood_images

    def fpr95_id_pos(self) -> float:
        """The recall at or above 0.95 or the one below, whichever is nearer; then the highest score that gives it.

        Thresholds above the highest ID score are none.
        """
        above = int(np.searchsorted(self.inside_up_to / self.id_images, RECALL, "left"))
        levels = self.inside_up_to[[above, max(above - 1, 0)]]
        recall = levels[np.argmin(np.abs(levels / self.id_images - RECALL))]
        highest = int(np.searchsorted(self.inside_up_to, self.id_images, "left"))
        threshold = min(int(np.searchsorted(self.inside_up_to, recall, "right")) - 1, highest)
        return self.outside_up_to[threshold] / self.ood_images

    def fpr95_ood_pos(self) -> float:
        found = np.arange(self.ood_images, 0, -1) / self.ood_images
        missed = np.flatnonzero(found >= RECALL)[-1]
        threshold = int(np.searchsorted(self.outside_up_to, missed, "right"))
        passed = self.inside_up_to[threshold - 1] if threshold else 0
        return (self.id_images - passed) / self.id_images


def bootstrap_intervals(
    id_scores: ArrayLike, ood_scores: ArrayLike, *, resamples: int = 1000, level: float = LEVEL, seed: int = 0
) -> dict[str, Interval]:
    """Every metric of :data:`ospcoop.metrics.METRICS` with its percentile interval, by name.

    As :func:`ospcoop.metrics.bootstrap_interval` of each with the same ``seed``. Raises what it raises.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"Expected a level between 0 and 1 and at least one resample, got {level} and {resamples}.")
    values = evaluate(id_scores, ood_scores)
    inside, outside = (np.asarray(side, np.float64).ravel() for side in (id_scores, ood_scores))
    distinct, place = np.unique(np.concatenate([inside, outside]), return_inverse=True)
    id_place, ood_place = place[: len(inside)], place[len(inside) :]
    rng = np.random.default_rng(seed)

    def draw(side: np.ndarray) -> np.ndarray:
        drawn = side[rng.integers(0, len(side), len(side))]
        return np.bincount(drawn, minlength=len(distinct))

    metrics: dict[str, Callable[[_Counts], float]] = {name: getattr(_Counts, name) for name in METRICS}
    draws = {name: np.empty(resamples) for name in metrics}
    for number in range(resamples):
        counts = _Counts(draw(id_place), draw(ood_place))
        for name, metric in metrics.items():
            draws[name][number] = metric(counts)
    return {name: _interval(values[name], draws[name], level) for name in metrics}


def share_interval(hits: int, of: int, *, resamples: int = 1000, level: float = LEVEL, seed: int = 0) -> Interval:
    """A share's percentile interval: of ``of`` drawn with replacement, the hits are binomial. ValueError for none."""
    if of < 1:
        raise ValueError("There is no share of no image.")
    draws = np.random.default_rng(seed).binomial(of, hits / of, resamples) / of
    return _interval(hits / of, draws, level)


def _interval(value: float, draws: np.ndarray, level: float) -> Interval:
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))
