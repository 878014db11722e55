"""Each background against the photo it was made from: what removing the object changed, image by image.

A score's rise is ``score(background) - score(photo)``; higher = more OOD, so a detector that sees the object's
absence raises every one. Intervals draw *source photos* with replacement, for their candidates are alike.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import ArrayLike

from ospcoop.evaluation.bootstrap import LEVEL
from ospcoop.metrics import Interval


@dataclass(frozen=True)
class Paired:
    """``lower`` is the share of pairs whose background scores *below* its photo, which no detector should do.

    ``mean`` and ``median`` are of the rise, in the score's unit; ``kept_class`` the share of backgrounds that are still
    predicted as their photo's class.
    """

    pairs: int
    sources: int
    lower: Interval
    mean: Interval
    median: Interval
    kept_class: Interval

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict) -> Paired:
        parts = {name: Interval(**value) if isinstance(value, dict) else value for name, value in values.items()}
        return cls(**parts)


def analyse_pairs(
    background: ArrayLike,
    photo: ArrayLike,
    kept_class: ArrayLike,
    source: ArrayLike,
    *,
    resamples: int = 1000,
    level: float = LEVEL,
    seed: int = 0,
) -> Paired:
    """Of ``background [N]`` and ``photo [N]`` scores, ``kept_class [N]`` bool and ``source [N]`` ids.

    ValueError when there is no pair.
    """
    rise = np.asarray(background, np.float64) - np.asarray(photo, np.float64)
    if not len(rise):
        raise ValueError("There is no pair of a background and its photo.")
    kept = np.asarray(kept_class, bool)
    _, place, counts = np.unique(np.asarray(source), return_inverse=True, return_counts=True)
    order = np.argsort(place, kind="stable")
    starts = np.concatenate([[0], np.cumsum(counts)])
    rng = np.random.default_rng(seed)

    def of(pairs: np.ndarray | slice) -> tuple[float, float, float, float]:
        chosen = rise[pairs]
        return np.mean(chosen < 0), np.mean(chosen), np.median(chosen), np.mean(kept[pairs])

    def resample() -> np.ndarray:
        drawn = rng.integers(0, len(counts), len(counts))
        lengths = counts[drawn]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        return order[np.repeat(starts[drawn], lengths) + within]

    draws = np.array([of(resample()) for _ in range(resamples)])
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2], axis=0)
    ends = zip(of(slice(None)), low, high, strict=True)
    return Paired(len(rise), len(counts), *(Interval(*(float(one) for one in interval)) for interval in ends))
