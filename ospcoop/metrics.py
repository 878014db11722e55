"""How well a score parts in-distribution (ID) from out-of-distribution (OOD) images.

Every function takes ``id_scores [N]`` and ``ood_scores [M]``, any real dtype, **higher = more OOD**, and returns
a fraction 0..1. All are exact under ties and take O(n log n). ValueError when a side is empty or a score is
not a number. numpy only.

Two false positive rates carry the same name in the literature; both are reported here:

* ``fpr95_id_pos`` (MCM, LoCoOp, OSPCoOp, NegRefine): ID is the positive class; the share of OOD images that
  pass for ID. The published code does not take the first threshold that keeps 95 % of the ID images but the
  one whose recall is *nearest* to 0.95, so the recall may be lower; on small sets the two differ visibly.
* ``fpr95_ood_pos`` (OpenOOD, pytorch-ood): OOD is the positive class; the share of ID images called OOD at
  the first threshold that finds at least 95 % of the OOD images.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

RECALL = 0.95


def _scores(id_scores: ArrayLike, ood_scores: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    inside = np.asarray(id_scores, dtype=np.float64).ravel()
    outside = np.asarray(ood_scores, dtype=np.float64).ravel()
    for name, scores in (("ID", inside), ("OOD", outside)):
        if not len(scores):
            raise ValueError(f"There is no {name} score: a metric needs both ID and OOD images.")
        if np.isnan(scores).any():
            raise ValueError(f"{np.isnan(scores).sum()} of the {len(scores)} {name} scores are not numbers.")
    return inside, outside


def auroc(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """The chance that an OOD image scores above an ID image, ties counting half. The same for both directions."""
    inside, outside = _scores(id_scores, ood_scores)
    inside = np.sort(inside)
    below = np.searchsorted(inside, outside, "left").sum(dtype=np.float64)
    up_to = np.searchsorted(inside, outside, "right").sum(dtype=np.float64)
    return float((below + up_to) / 2 / (len(inside) * len(outside)))


def share_below(others: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """float64 [S]: which share of ``others`` [O] each of ``scores`` [S] is above, a tie counting half."""
    others = np.sort(others)
    return (np.searchsorted(others, scores, "left") + np.searchsorted(others, scores, "right")) / (2 * len(others))


def _average_precision(positive: np.ndarray, negative: np.ndarray) -> float:
    """Area under the step-wise precision-recall curve, higher = positive; equal scores are one threshold."""
    thresholds, counts = np.unique(positive, return_counts=True)
    true = np.cumsum(counts[::-1])[::-1]
    false = len(negative) - np.searchsorted(np.sort(negative), thresholds, "left")
    return float(np.sum(counts / len(positive) * (true / (true + false))))


def aupr_in(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Average precision with ID as the positive class."""
    inside, outside = _scores(id_scores, ood_scores)
    return _average_precision(-inside, -outside)


def aupr_out(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Average precision with OOD as the positive class."""
    inside, outside = _scores(id_scores, ood_scores)
    return _average_precision(outside, inside)


def fpr95_id_pos(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """The published FPR95: share of OOD images at or above the ID threshold of recall nearest to 0.95.

    In ID-positive orientation (``s = -score``) the thresholds are all distinct scores of both sides from the
    lowest ID score up, ``recall(t)`` the share of ID images with ``s >= t``; of those nearest to 0.95 in double
    arithmetic the lowest ``t`` is taken, so OOD images between two neighbouring ID scores count as passed.
    """
    inside, outside = _scores(id_scores, ood_scores)
    inside, outside = np.sort(-inside), np.sort(-outside)
    thresholds = np.unique(np.concatenate([inside, outside]))
    thresholds = thresholds[thresholds >= inside[0]]
    recall = (len(inside) - np.searchsorted(inside, thresholds, "left")) / len(inside)
    threshold = thresholds[np.argmin(np.abs(recall - RECALL))]
    return float((len(outside) - np.searchsorted(outside, threshold, "left")) / len(outside))


def fpr95_ood_pos(id_scores: ArrayLike, ood_scores: ArrayLike) -> float:
    """Share of ID images with a score at or above the highest threshold that finds at least 95 % of the OOD images.

    pytorch-ood's ``fpr_at_tpr``. OpenOOD reads it off ``sklearn.metrics.roc_curve`` with intermediate points
    dropped, which can only differ (upwards) where runs of tied ID and OOD scores lie on one line.
    """
    inside, outside = _scores(id_scores, ood_scores)
    outside = np.sort(outside)
    found = np.arange(len(outside), 0, -1) / len(outside)
    threshold = outside[np.flatnonzero(found >= RECALL)[-1]]
    return float(np.mean(inside >= threshold))


METRICS: dict[str, Callable[[ArrayLike, ArrayLike], float]] = {
    "auroc": auroc,
    "aupr_in": aupr_in,
    "aupr_out": aupr_out,
    "fpr95_id_pos": fpr95_id_pos,
    "fpr95_ood_pos": fpr95_ood_pos,
}


def evaluate(id_scores: ArrayLike, ood_scores: ArrayLike) -> dict[str, float]:
    """Every metric of :data:`METRICS` by name."""
    return {name: metric(id_scores, ood_scores) for name, metric in METRICS.items()}


@dataclass(frozen=True)
class Interval:
    """A metric's value on all images and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


def bootstrap_interval(
    metric: Callable[[ArrayLike, ArrayLike], float],
    id_scores: ArrayLike,
    ood_scores: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap: ID and OOD images are drawn with replacement, each side at its own size.

    Says how far the number would move with other images of the same kind; not with another training seed. The
    same ``seed`` gives the same interval. ValueError for a ``level`` outside 0..1 or no resample.
    """
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"Expected a level between 0 and 1 and at least one resample, got {level} and {resamples}.")
    inside, outside = _scores(id_scores, ood_scores)
    rng = np.random.default_rng(seed)
    draws = [metric(rng.choice(inside, len(inside)), rng.choice(outside, len(outside))) for _ in range(resamples)]
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(metric(inside, outside), float(low), float(high))
