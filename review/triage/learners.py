"""The learners to choose from and the maps that calibrate them. scikit-learn is imported when one is used.

To add a learner: a function of the seed that gives an estimator with ``fit`` and ``predict_proba`` and takes NaN,
and a line in :data:`LEARNERS`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

PROBABILITY_EDGE = 1e-6


def log_odds(probability: np.ndarray) -> np.ndarray:
    """Natural log-odds, kept finite for probabilities of 0 and 1."""
    clipped = np.clip(probability, PROBABILITY_EDGE, 1 - PROBABILITY_EDGE)
    return np.log(clipped / (1 - clipped))


def _logistic(seed: int):
    from sklearn.impute import SimpleImputer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # A column that nobody measured (no residual boxes) is kept, as a constant.
    imputer = SimpleImputer(strategy="median", keep_empty_features=True)
    return make_pipeline(imputer, StandardScaler(), LogisticRegression(max_iter=1000, random_state=seed))


class _GradientBoosting:
    """Boosted trees over histograms. They take NaN as it is, but fail on a column that nobody measured."""

    def __init__(self, seed: int) -> None:
        from sklearn.ensemble import HistGradientBoostingClassifier

        self._trees = HistGradientBoostingClassifier(
            max_iter=150,
            learning_rate=0.06,
            max_leaf_nodes=15,
            l2_regularization=1.0,
            early_stopping=False,
            random_state=seed,
        )

    def fit(self, features: np.ndarray, truth: np.ndarray) -> _GradientBoosting:
        self._measured = ~np.isnan(features).all(axis=0)
        self._trees.fit(features[:, self._measured], truth)
        return self

    def predict_proba(self, features: np.ndarray) -> np.ndarray:
        return self._trees.predict_proba(features[:, self._measured])


LEARNERS: dict[str, Callable] = {"logistic": _logistic, "gradient_boosting": _GradientBoosting}


def _sigmoid(scores: np.ndarray, truth: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.linear_model import LogisticRegression

    curve = LogisticRegression(C=1e6).fit(scores[:, None], truth)
    if curve.coef_[0, 0] <= 0:
        # Scores worth nothing can come out upside down; turning them over would make chance look like knowledge.
        return lambda new: np.full(len(new), truth.mean())
    return lambda new: curve.predict_proba(new[:, None])[:, 1]


def _isotonic(scores: np.ndarray, truth: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    from sklearn.isotonic import IsotonicRegression

    edge = 1 / (len(scores) + 2)
    return IsotonicRegression(y_min=edge, y_max=1 - edge, out_of_bounds="clip").fit(scores, truth).predict


CALIBRATIONS: dict[str, Callable[[np.ndarray, np.ndarray], Callable[[np.ndarray], np.ndarray]]] = {
    "sigmoid": _sigmoid,
    "isotonic": _isotonic,
}
"""From (log-odds, verdicts) to a map of log-odds to P(accept): Platt's logistic curve, or the best non-decreasing
step function, kept off 0 and 1 by one part in the number of verdicts."""
