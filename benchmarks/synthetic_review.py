"""A labelled set made up for replays: candidates with features, look-alikes, a truth and one annotator's verdicts.

How it is made, so that a figure got from it can be judged:

- 200 classes of equal size; a class is easier or harder by a normal effect (deviation 0.8) on the log-odds of a
  good candidate. About 75 % of the candidates are good.
- A bad candidate fails in one of three ways: the object is left (45 %), a part of it is left (30 %), or the
  picture is spoilt (25 %: ragged mask, artefacts). Each way shows in its own features and hides in the others, so no
  single number tells good from bad.
- Every feature is normal noise around a mean that depends on the way of failing; ``signal`` scales how far the
  means lie apart (1 is the default; 0 leaves no information but class and look-alikes).
- A tenth of the candidates are look-alikes in groups of 2 to 4: their hashes differ by at most 4 of 64 bits, and
  each shares its group's truth with probability 0.9.
- The annotator's verdict is the truth, but for slips: 2 % of all verdicts are wrong, at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from review.triage.features import FEATURE_NAMES, FeatureTable

CLASSES = 200
PREVALENCE_LOG_ODDS = 1.3
CLASS_DEVIATION = 0.8
WAYS = ("good", "object left", "part left", "spoilt")
WAY_SHARES = (0.45, 0.30, 0.25)
ALIKE_SHARE = 0.1
ALIKE_AGREE = 0.9
SLIPS = 0.02

# Mean of each feature by way of failing, in units of the feature's own noise.
_MEANS = {
    "drop": (0.0, -2.5, -1.4, -0.3),
    "logit_source": (0.0, 0.0, 0.0, 0.0),
    "residual": (0.0, 2.7, 1.5, 0.3),
    "log_rank": (0.0, -2.5, -1.3, -0.2),
    "probability_logit": (0.0, 2.5, 1.3, 0.2),
    "area": (0.0, -0.5, -0.3, 0.8),
    "dilated_area": (0.0, -0.5, -0.3, 0.8),
    "boxes": (0.0, 0.3, 0.7, 0.2),
    "best_box": (0.0, -1.0, -0.4, -0.5),
    "residual_boxes": (0.0, 1.7, 1.2, 0.0),
    "best_residual_box": (0.0, 2.0, 1.4, 0.1),
    "solidity": (0.0, -0.3, -1.0, -2.2),
    "components": (0.0, 0.2, 1.0, 2.0),
    "edge_contact": (0.0, 0.1, 0.8, 1.5),
}


@dataclass(frozen=True)
class LabelledSet:
    """``truth`` and ``verdicts`` are ``int8 [n]``, 1 good / accept, 0 bad / reject; ``slips`` the share of verdicts
    that are wrong."""

    table: FeatureTable
    truth: np.ndarray
    verdicts: np.ndarray
    slips: float


def make_labelled_set(count: int = 10_000, *, seed: int = 0, signal: float = 1.0, slips: float = SLIPS) -> LabelledSet:
    """The set described above; the same arguments give the same set."""
    draw = np.random.default_rng(seed)
    class_indices = draw.permutation(np.arange(count) % CLASSES)
    effects = draw.normal(0, CLASS_DEVIATION, CLASSES)
    good = draw.random(count) < 1 / (1 + np.exp(-(PREVALENCE_LOG_ODDS + effects[class_indices])))
    hashes = draw.integers(0, 2**64, count, dtype=np.uint64)
    _make_look_alikes(draw, good, hashes)
    way = np.where(good, 0, 1 + draw.choice(len(WAY_SHARES), count, p=WAY_SHARES))
    means = np.array([_MEANS[name] for name in FEATURE_NAMES])
    values = signal * means.T[way] + draw.normal(size=(count, len(FEATURE_NAMES)))
    verdicts = np.where(draw.random(count) < slips, ~good, good)
    table = FeatureTable(np.arange(1, count + 1), FEATURE_NAMES, values, class_indices, hashes)
    return LabelledSet(table, good.astype(np.int8), verdicts.astype(np.int8), slips)


def _make_look_alikes(draw: np.random.Generator, good: np.ndarray, hashes: np.ndarray) -> None:
    """Turn a tenth of the candidates, in place, into groups that look alike."""
    chosen = draw.permutation(len(good))[: round(ALIKE_SHARE * len(good))]
    start = 0
    while start + 1 < len(chosen):
        leader, *others = chosen[start : start + draw.integers(2, 5)]
        for other in others:
            flips = draw.choice(64, draw.integers(0, 5), replace=False).astype(np.uint64)
            hashes[other] = hashes[leader] ^ np.bitwise_or.reduce(np.uint64(1) << flips, initial=np.uint64(0))
            if draw.random() < ALIKE_AGREE:
                good[other] = good[leader]
        start += 1 + len(others)
