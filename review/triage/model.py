"""The model itself: learners cross-validated, the best one calibrated by cross-fitting, everything measured.

Every figure and every prediction of a judged candidate is out of fold: made by a model and a calibration that
did not see its verdict. The same table, verdicts and seed give the same numbers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from db.progress import NoProgress, Progress
from review.triage.agreeing import AGREEING_NAMES, FOLDS, UNJUDGED, count_folds, deal_folds
from review.triage.features import FeatureTable
from review.triage.learners import CALIBRATIONS, LEARNERS, log_odds
from review.triage.quality import quality, reliability

MIN_EACH = 20
ISOTONIC_FROM = 300
LEARNING_SHARES = (0.1, 0.2, 0.5)
IMPORTANCE_ROWS = 1000
IMPORTANCE_REPEATS = 3


class TooFewVerdicts(ValueError):
    """There is too little to learn from; the message says what is missing."""


@dataclass(frozen=True)
class Fit:
    """What a training gave. ``p_accept`` is ``float64 [n]``, 0 to 1: out of fold where judged, else of the final
    model; ``is_unjudged`` is ``bool [n]``. ``metrics`` is JSON-able; :func:`fit` says what it holds."""

    p_accept: np.ndarray
    is_unjudged: np.ndarray
    feature_names: tuple[str, ...]
    metrics: dict


def check_enough(accepted: int, rejected: int) -> None:
    """Raises :class:`TooFewVerdicts` below :data:`MIN_EACH` candidates of either verdict."""
    if min(accepted, rejected) < MIN_EACH:
        raise TooFewVerdicts(
            f"Triage learns from at least {MIN_EACH} accepted and {MIN_EACH} rejected candidates; so far there are "
            f"{accepted} and {rejected}. Review some more."
        )


def fit(
    table: FeatureTable,
    verdicts: np.ndarray,
    *,
    seed: int = 0,
    diagnostics: bool = True,
    progress: Progress | None = None,
) -> Fit:
    """Learn P(accept) from ``verdicts`` (``int8 [n]``: 1 accept, 0 reject, -1 unjudged) and predict every row.

    ``metrics``: ``accepted``, ``rejected``, ``seed``, ``algorithm`` (the learner with the lowest out-of-fold log
    loss; all in ``algorithms``), ``calibration`` (sigmoid, or from 300 verdicts isotonic if better), ``auroc``,
    ``log_loss``, ``brier``, ``ece``, ``reliability``; with ``diagnostics`` also ``learning_curve`` (the same learner
    from a seeded part of the verdicts, tested on all of them, by which its scores are calibrated) and
    ``importances`` (how much the log loss on unseen folds grows when a feature is shuffled). Raises
    :class:`TooFewVerdicts`.
    """
    progress = progress or NoProgress()
    check_enough(int((verdicts == 1).sum()), int((verdicts == 0).sum()))
    folds = deal_folds(verdicts, seed)
    designs = _Designs(table, verdicts, folds)
    rows = np.flatnonzero(verdicts != UNJUDGED)
    truth, fold_of = verdicts[rows].astype(np.int64), folds[rows]
    fits: dict[str, _CrossFit] = {}
    for number, name in enumerate(LEARNERS):
        progress.update(number, len(LEARNERS) + 3, f"Cross-validating: {name.replace('_', ' ')}")
        fits[name] = _cross_fit(name, seed, designs, rows, truth, fold_of)
    losses = {
        name: quality(truth, _calibrated(fit.scores, truth, fold_of, "sigmoid"))["log_loss"]
        for name, fit in fits.items()
    }
    best = min(losses, key=losses.__getitem__)
    scores = fits[best].scores
    calibration, out_of_fold = _best_calibration(scores, truth, fold_of)
    metrics = {
        "seed": seed,
        "accepted": int(truth.sum()),
        "rejected": int(len(truth) - truth.sum()),
        "algorithm": best,
        "algorithms": losses,
        "calibration": calibration,
        **quality(truth, out_of_fold),
        "reliability": reliability(truth, out_of_fold),
    }
    p_accept = np.empty(len(verdicts))
    p_accept[rows] = out_of_fold
    others = np.flatnonzero(verdicts == UNJUDGED)
    progress.update(len(LEARNERS), len(LEARNERS) + 3, "Predicting")
    if len(others):
        learner = LEARNERS[best](seed).fit(*designs.training(None))
        final = log_odds(learner.predict_proba(designs.unseen(others, None))[:, 1])
        p_accept[others] = CALIBRATIONS[calibration](scores, truth)(final)
    if diagnostics:
        progress.update(len(LEARNERS) + 1, len(LEARNERS) + 3, "Drawing the learning curve")
        full = {"share": 1.0, "judged": len(rows), **quality(truth, out_of_fold)}
        metrics["learning_curve"] = [*_learning_curve(table, verdicts, folds, best, seed), full]
        progress.update(len(LEARNERS) + 2, len(LEARNERS) + 3, "Weighing the features")
        names = (*table.names, *AGREEING_NAMES)
        metrics["importances"] = _importances(fits[best], designs, rows, truth, fold_of, names, seed)
    return Fit(p_accept, verdicts == UNJUDGED, (*table.names, *AGREEING_NAMES), metrics)


class _Designs:
    """The features of rows as each use may see them: what verdicts add comes from the folds that may be used."""

    def __init__(self, table: FeatureTable, verdicts: np.ndarray, folds: np.ndarray) -> None:
        self._values = table.values
        self._verdicts = verdicts
        self._folds = folds
        self._counts = count_folds(table.class_indices, table.hashes, verdicts, folds)

    def training(self, without: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Features and verdicts of the judged rows outside fold ``without``; no row sees its own fold."""
        judged = self._verdicts != UNJUDGED
        rows = np.flatnonzero(judged if without is None else judged & (self._folds != without))
        use = (self._folds[rows][:, None] != np.arange(FOLDS)) & self._outside(without)
        return np.hstack([self._values[rows], self._counts.columns(rows, use)]), self._verdicts[rows]

    def unseen(self, rows: np.ndarray, without: int | None) -> np.ndarray:
        """Features of rows whose verdicts, if any, all lie in fold ``without``."""
        use = np.tile(self._outside(without), (len(rows), 1))
        return np.hstack([self._values[rows], self._counts.columns(rows, use)])

    def _outside(self, without: int | None) -> np.ndarray:
        return np.ones(FOLDS, bool) if without is None else np.arange(FOLDS) != without


@dataclass(frozen=True)
class _CrossFit:
    """A learner fitted without each fold in turn, and the log-odds it gave that fold's rows."""

    learners: list
    scores: np.ndarray


def _cross_fit(
    name: str, seed: int, designs: _Designs, rows: np.ndarray, truth: np.ndarray, fold_of: np.ndarray
) -> _CrossFit:
    learners, scores = [], np.empty(len(rows))
    for fold in range(FOLDS):
        learner = LEARNERS[name](seed).fit(*designs.training(fold))
        test = fold_of == fold
        scores[test] = log_odds(learner.predict_proba(designs.unseen(rows[test], fold))[:, 1])
        learners.append(learner)
    return _CrossFit(learners, scores)


def _calibrated(scores: np.ndarray, truth: np.ndarray, fold_of: np.ndarray, calibration: str) -> np.ndarray:
    """P(accept) from out-of-fold log-odds, each fold mapped by what the other folds say."""
    calibrated = np.empty(len(scores))
    for fold in range(FOLDS):
        test = fold_of == fold
        calibrated[test] = CALIBRATIONS[calibration](scores[~test], truth[~test])(scores[test])
    return calibrated


def _best_calibration(scores: np.ndarray, truth: np.ndarray, fold_of: np.ndarray) -> tuple[str, np.ndarray]:
    names = ["sigmoid", "isotonic"] if len(scores) >= ISOTONIC_FROM else ["sigmoid"]
    tried = {name: _calibrated(scores, truth, fold_of, name) for name in names}
    best = min(tried, key=lambda name: quality(truth, tried[name])["log_loss"])
    return best, tried[best]


def _learning_curve(table: FeatureTable, verdicts: np.ndarray, folds: np.ndarray, name: str, seed: int) -> list[dict]:
    """Quality of the same learner when only a part of each fold is known; the parts grow from one another."""
    rows = np.flatnonzero(verdicts != UNJUDGED)
    truth, fold_of = verdicts[rows].astype(np.int64), folds[rows]
    order = np.random.default_rng([seed, 1]).permutation(rows)
    groups = [order[(folds[order] == fold) & (verdicts[order] == side)] for fold in range(FOLDS) for side in (0, 1)]
    curve = []
    for share in LEARNING_SHARES:
        some = np.concatenate([group[: math.ceil(share * len(group))] for group in groups])
        known = np.full_like(verdicts, UNJUDGED)
        known[some] = verdicts[some]
        designs = _Designs(table, known, np.where(known == UNJUDGED, UNJUDGED, folds))
        scores = _cross_fit(name, seed, designs, rows, truth, fold_of).scores
        values = quality(truth, _calibrated(scores, truth, fold_of, "sigmoid"))
        curve.append({"share": share, "judged": len(some), **values})
    return curve


def _importances(
    cross_fit: _CrossFit,
    designs: _Designs,
    rows: np.ndarray,
    truth: np.ndarray,
    fold_of: np.ndarray,
    names: tuple[str, ...],
    seed: int,
) -> list[dict]:
    """Mean growth of the log loss on unseen folds when one column is shuffled; the largest first."""
    from sklearn.metrics import log_loss

    draw = np.random.default_rng([seed, 2])
    growth = np.zeros(len(names))
    for fold, learner in enumerate(cross_fit.learners):
        some = draw.permutation(np.flatnonzero(fold_of == fold))[:IMPORTANCE_ROWS]
        design = designs.unseen(rows[some], fold)

        def loss(features: np.ndarray, some=some, learner=learner) -> float:
            return log_loss(truth[some], learner.predict_proba(features)[:, 1], labels=[0, 1])

        usual = loss(design)
        for _ in range(IMPORTANCE_REPEATS):
            for column in range(len(names)):
                shuffled = design.copy()
                shuffled[:, column] = draw.permutation(shuffled[:, column])
                growth[column] += loss(shuffled) - usual
    growth /= FOLDS * IMPORTANCE_REPEATS
    return [{"feature": names[i], "log_loss_growth": float(growth[i])} for i in np.argsort(-growth, kind="stable")]
