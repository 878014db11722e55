"""Histograms, ROC and reliability diagram of per-image scores, **higher = more OOD**. numpy only.

Scores are ``[N]`` of any real dtype. ValueError where a side is empty or a score is not finite.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

HISTOGRAM_BINS = (10, 40)
ROC_POINTS = 400
RELIABILITY_BINS = 15


@dataclass(frozen=True)
class ScoreHistogram:
    """Shares of the ID and of the OOD images by score: ``edges [B + 1]`` ascending, ``id``, ``ood [B]``, each of sum 1.

    A bin holds its lower edge, the last one its upper edge too.
    """

    edges: np.ndarray
    id: np.ndarray
    ood: np.ndarray


@dataclass(frozen=True)
class RocCurve:
    """From (0, 0) to (1, 1): ``fpr [K]``, the share of ID images called OOD, and ``tpr [K]``, of OOD images found."""

    fpr: np.ndarray
    tpr: np.ndarray

    @property
    def area(self) -> float:
        """Under the straight lines between the points: the AUROC, ties counting half, when no point was dropped."""
        return float(np.sum(np.diff(self.fpr) * (self.tpr[1:] + self.tpr[:-1]) / 2))


@dataclass(frozen=True)
class ReliabilityBin:
    """Images whose confidence is above ``lower`` and at most ``upper``; means of confidence and of correctness."""

    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


@dataclass(frozen=True)
class Reliability:
    """The bins that hold images, and the expected calibration error, 0 to 1."""

    bins: tuple[ReliabilityBin, ...]
    ece: float


def score_histogram(id_scores: ArrayLike, ood_scores: ArrayLike, bins: int | None = None) -> ScoreHistogram:
    """Both sides over the same equal bins, from the lowest score of either to the highest.

    ``bins`` None is Rice's rule on the smaller side, twice the cube root of its images, from 10 to 40.
    """
    inside, outside = _finite(id_scores, "ID"), _finite(ood_scores, "OOD")
    if bins is None:
        bins = int(np.clip(np.ceil(2 * np.cbrt(min(len(inside), len(outside)))), *HISTOGRAM_BINS))
    both = np.concatenate([inside, outside])
    edges = np.histogram_bin_edges(both, bins)
    shares = [np.histogram(scores, edges)[0] / len(scores) for scores in (inside, outside)]
    return ScoreHistogram(edges, *shares)


def roc_curve(id_scores: ArrayLike, ood_scores: ArrayLike, points: int | None = ROC_POINTS) -> RocCurve:
    """OOD is the positive class; a threshold calls all scores at or above it OOD, so ties are slanted lines.

    Points on a straight line between their neighbours are dropped, which changes nothing; where more than ``points``
    are left, as many are kept as lie evenly along the curve, which only a drawing may do. None keeps all.
    """
    inside, outside = np.sort(_finite(id_scores, "ID")), np.sort(_finite(ood_scores, "OOD"))
    thresholds = np.unique(np.concatenate([inside, outside]))[::-1]
    called = [np.r_[0, len(side) - np.searchsorted(side, thresholds, "left")] for side in (inside, outside)]
    steps = [np.diff(counts) for counts in called]
    # Integer cross products: exact where a comparison of slopes would round.
    turns = steps[0][:-1] * steps[1][1:] != steps[0][1:] * steps[1][:-1]
    kept = np.flatnonzero(np.r_[True, turns, True])
    if points is not None and len(kept) > points:
        along = (called[0][kept] / len(inside) + called[1][kept] / len(outside)) / 2
        kept = kept[np.unique(np.searchsorted(along, np.linspace(0, 1, points)).clip(max=len(kept) - 1))]
    return RocCurve(called[0][kept] / len(inside), called[1][kept] / len(outside))


def reliability(confidence: ArrayLike, correct: ArrayLike, bins: int = RELIABILITY_BINS) -> Reliability:
    """How often the predicted class is right, by how sure the prompts are; ``confidence [N]`` 0 to 1, ``correct [N]``.

    Equal bins ``((b - 1) / B, b / B]``, the first with 0, and ECE = sum over bins of n_b / N |accuracy - confidence|:
    Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural Networks", ICML 2017.
    ValueError for a confidence outside 0 to 1 or lists of two lengths.
    """
    sure = _finite(confidence, "confidence")
    right = np.asarray(correct, dtype=np.float64).ravel()
    if len(sure) != len(right) or sure.min() < 0 or sure.max() > 1:
        raise ValueError(f"Expected as many confidences from 0 to 1 as answers, got {len(sure)} and {len(right)}.")
    edges = np.arange(bins + 1) / bins
    places = np.clip(np.searchsorted(edges, sure, "left") - 1, 0, bins - 1)
    found = []
    for place in np.unique(places):
        mine = places == place
        found.append(
            ReliabilityBin(
                float(edges[place]),
                float(edges[place + 1]),
                int(mine.sum()),
                float(sure[mine].mean()),
                float(right[mine].mean()),
            )
        )
    ece = sum(one.count * abs(one.accuracy - one.confidence) for one in found) / len(sure)
    return Reliability(tuple(found), float(ece))


def _finite(scores: ArrayLike, what: str) -> np.ndarray:
    found = np.asarray(scores, dtype=np.float64).ravel()
    if not len(found):
        raise ValueError(f"There is no {what} score to draw.")
    if not np.isfinite(found).all():
        raise ValueError(f"{np.count_nonzero(~np.isfinite(found))} of the {len(found)} {what} scores are not finite.")
    return found
