"""The order in which candidates are worth a person's look: uncertain ones, some sure ones, and surprising verdicts."""

from __future__ import annotations

import numpy as np

SURE_BELOW = 0.2
CHECK_EVERY = 5
SURPRISE = 0.85


def uncertainty(p_accept: np.ndarray) -> np.ndarray:
    """1 where P(accept) is one half, 0 where it is 0 or 1, linear between."""
    return 1 - np.abs(2 * p_accept - 1)


def review_priority(p_accept: np.ndarray, is_open: np.ndarray, seed: int) -> np.ndarray:
    """``float64 [n]``, 0 to 1: review the highest first. The uncertainty, but for a check sample.

    Every fifth place goes to an open candidate drawn at random among those the model is sure of (uncertainty under
    0.2): it takes the priority of the one before it. Without them nobody would ever look where a band is proposed,
    and the band's error could not be estimated.
    """
    priority = uncertainty(p_accept)
    doubtful = np.flatnonzero(is_open & (priority >= SURE_BELOW))
    doubtful = doubtful[np.argsort(-priority[doubtful], kind="stable")]
    sure = np.random.default_rng([seed, 3]).permutation(np.flatnonzero(is_open & (priority < SURE_BELOW)))
    places = doubtful[CHECK_EVERY - 2 :: CHECK_EVERY - 1]
    checks = min(len(places), len(sure))
    priority[sure[:checks]] = priority[places[:checks]]
    return priority


def is_surprising(verdicts: np.ndarray, p_accept: np.ndarray) -> np.ndarray:
    """``bool [n]``: judged (1 accept, 0 reject, -1 not) far from what a model that did not see the verdict thinks.

    Slips of the hand are among these, and so are the model's worst errors: both deserve a second look.
    """
    return (verdicts >= 0) & (np.abs(verdicts - p_accept) >= SURPRISE)
