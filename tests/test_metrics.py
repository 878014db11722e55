"""Metrics against answers worked out by hand, a brute-force reading of their definitions, and scikit-learn."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ospcoop.metrics import (
    METRICS,
    aupr_in,
    aupr_out,
    auroc,
    bootstrap_interval,
    evaluate,
    fpr95_id_pos,
    fpr95_ood_pos,
)

# Few distinct values, so that ties are the rule.
scores = st.lists(st.integers(-4, 4).map(lambda n: n / 4), min_size=1, max_size=40)


def brute_auroc(inside, outside):
    return np.mean([(b > a) + 0.5 * (b == a) for a in inside for b in outside])


def brute_average_precision(positive, negative):
    area, before = 0.0, 0.0
    for t in sorted(set(positive) | set(negative), reverse=True):
        true, false = sum(p >= t for p in positive), sum(n >= t for n in negative)
        recall = true / len(positive)
        if true + false:
            area += (recall - before) * true / (true + false)
        before = recall
    return area


def brute_fpr95_id_pos(inside, outside):
    inside, outside = [-s for s in inside], [-s for s in outside]
    best = None
    for t in sorted(t for t in set(inside) | set(outside) if t >= min(inside)):
        gap = abs(sum(s >= t for s in inside) / len(inside) - 0.95)
        if best is None or gap < best[0]:
            best = gap, sum(s >= t for s in outside) / len(outside)
    return best[1]


def brute_fpr95_ood_pos(inside, outside):
    for t in sorted(set(inside) | set(outside), reverse=True):
        if sum(s >= t for s in outside) / len(outside) >= 0.95:
            return sum(s >= t for s in inside) / len(inside)
    return 1.0


@given(scores, scores)
@settings(deadline=None)
def test_definitions(inside, outside):
    assert auroc(inside, outside) == pytest.approx(brute_auroc(inside, outside), abs=1e-12)
    negated = [-s for s in inside], [-s for s in outside]
    assert aupr_in(inside, outside) == pytest.approx(brute_average_precision(*negated), abs=1e-12)
    assert aupr_out(inside, outside) == pytest.approx(brute_average_precision(outside, inside), abs=1e-12)
    assert fpr95_id_pos(inside, outside) == brute_fpr95_id_pos(inside, outside)
    assert fpr95_ood_pos(inside, outside) == brute_fpr95_ood_pos(inside, outside)


@given(scores, scores)
@settings(deadline=None)
def test_scikit_learn(inside, outside):
    sklearn = pytest.importorskip("sklearn.metrics", reason="scikit-learn is not installed")
    is_ood = np.r_[np.zeros(len(inside)), np.ones(len(outside))]
    both = np.r_[inside, outside]
    assert auroc(inside, outside) == pytest.approx(sklearn.roc_auc_score(is_ood, both), abs=1e-12)
    assert aupr_out(inside, outside) == pytest.approx(sklearn.average_precision_score(is_ood, both), abs=1e-12)
    assert aupr_in(inside, outside) == pytest.approx(sklearn.average_precision_score(1 - is_ood, -both), abs=1e-12)
    fpr, tpr, _ = sklearn.roc_curve(is_ood, both, drop_intermediate=False)
    assert fpr95_ood_pos(inside, outside) == pytest.approx(fpr[np.argmax(tpr >= 0.95)], abs=1e-12)


@given(scores, scores)
@settings(deadline=None)
def test_metrics_hold_their_range_and_their_symmetry(inside, outside):
    assert all(0 <= value <= 1 for value in evaluate(inside, outside).values())
    assert auroc(inside, outside) == pytest.approx(1 - auroc(outside, inside), abs=1e-12)


def test_perfect_reversed_and_constant():
    perfect = evaluate([0.1, 0.2], [0.8, 0.9])
    assert perfect == {"auroc": 1, "aupr_in": 1, "aupr_out": 1, "fpr95_id_pos": 0, "fpr95_ood_pos": 0}
    reversed_ = evaluate([0.8, 0.9], [0.1, 0.2])
    assert reversed_["auroc"] == 0 and reversed_["fpr95_id_pos"] == 1 and reversed_["fpr95_ood_pos"] == 1
    constant = evaluate([0.5] * 7, [0.5] * 5)
    assert constant["auroc"] == 0.5
    assert constant["aupr_in"] == pytest.approx(7 / 12) and constant["aupr_out"] == pytest.approx(5 / 12)
    assert constant["fpr95_id_pos"] == 1 and constant["fpr95_ood_pos"] == 1


def test_one_image_a_side():
    assert evaluate([0.3], [0.7])["auroc"] == 1
    assert evaluate([0.7], [0.3])["auroc"] == 0
    assert fpr95_id_pos([0.3], [0.7]) == 0 and fpr95_id_pos([0.7], [0.3]) == 1


def test_id_recall_is_the_nearest_one_not_the_first_enough():
    # Eight ID images: recall 1 is nearer to 0.95 than 7/8. Ten: |0.9 - 0.95| < |1 - 0.95| in double arithmetic.
    assert fpr95_id_pos(range(8), [6.5]) == 1
    assert fpr95_id_pos(range(10), [8.5]) == 1, "between the two ID scores around the threshold: counted as passed"
    assert fpr95_id_pos(range(10), [9]) == 0, "the last ID image is given up"
    assert fpr95_id_pos(range(20), [18.5, 19.5]) == 0.5


def test_ood_recall_is_at_least_95_percent():
    # Twenty OOD images: 19 of them are exactly 95 %.
    assert fpr95_ood_pos([0.5, 1.0], range(20)) == 0.5
    assert fpr95_ood_pos([0.5, 1.0], range(10)) == 1


@pytest.mark.parametrize("metric", METRICS.values(), ids=METRICS.keys())
def test_one_class_and_nan_are_refused(metric):
    with pytest.raises(ValueError, match="There is no OOD score"):
        metric([0.1], [])
    with pytest.raises(ValueError, match="There is no ID score"):
        metric([], [0.1])
    with pytest.raises(ValueError, match="1 of the 2 ID scores are not numbers"):
        metric([0.1, np.nan], [0.1])


def test_float32_scores_and_infinities_are_taken_as_they_are():
    inside, outside = np.float32([0.1, -np.inf]), np.float32([0.1, np.inf])
    assert auroc(inside, outside) == 0.875


def test_bootstrap_is_seeded_and_brackets_the_value():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 1, 300), rng.normal(1, 1, 200)
    first = bootstrap_interval(auroc, inside, outside, resamples=200, seed=3)
    assert first == bootstrap_interval(auroc, inside, outside, resamples=200, seed=3)
    assert first != bootstrap_interval(auroc, inside, outside, resamples=200, seed=4)
    assert first.low < first.value < first.high
    assert 0.02 < first.high - first.low < 0.15
    narrow = bootstrap_interval(auroc, inside, outside, resamples=200, level=0.5, seed=3)
    assert first.low < narrow.low < narrow.high < first.high
    for wrong in ({"level": 1.0}, {"resamples": 0}):
        with pytest.raises(ValueError, match="level"):
            bootstrap_interval(auroc, inside, outside, **wrong)


def test_a_hundred_thousand_scores_are_quick():
    rng = np.random.default_rng(0)
    inside, outside = rng.normal(0, 1, 100_000), rng.normal(1, 1, 100_000)
    start = time.perf_counter()
    evaluate(inside, outside)
    assert time.perf_counter() - start < 5
