"""Kappa against published tables, another library and resampling item by item; the summary against counts by hand."""

from __future__ import annotations

import json
import random
import uuid

import numpy as np
import pytest
from sqlalchemy import select

from db.models import Candidate, CurrentVerdict, Reason
from db.queries import ensure_user
from review.agreement import MIN_ITEMS, UNNAMED, agreement_summary
from review.decisions import record
from review.events import DecisionEvent
from review.gold import set_gold
from review.kappa import Agreement, cohen_kappa, fleiss_kappa
from review.overlap import Overlap, is_sampled, save_overlap
from tests.browser import synthetic_candidates

# Fleiss 1971's worked example as it is usually reprinted: 10 subjects, 14 raters, 5 categories.
FLEISS = np.array(
    [
        [0, 0, 0, 0, 14],
        [0, 2, 6, 4, 2],
        [0, 0, 3, 5, 6],
        [0, 3, 9, 2, 0],
        [2, 2, 8, 1, 1],
        [7, 7, 0, 0, 0],
        [3, 2, 6, 3, 0],
        [2, 5, 3, 2, 2],
        [6, 5, 2, 1, 0],
        [0, 2, 2, 3, 7],
    ]
)


def expand(table: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    """Two raters' categories from their cross table."""
    first, second = np.indices(np.shape(table)).reshape(2, -1)
    return np.repeat(first, np.ravel(table)), np.repeat(second, np.ravel(table))


def test_fleiss_published_example():
    found = fleiss_kappa(FLEISS)
    assert found.items == 10
    assert round(found.kappa, 3) == 0.210
    assert round(found.observed, 3) == 0.378
    assert found.low < found.kappa < found.high


def test_cohen_published_example():
    """Cohen 1960, table 1, in counts of 200: observed .70, expected .41, kappa .492."""
    found = cohen_kappa(*expand([[88, 14, 18], [10, 40, 10], [2, 6, 12]]))
    assert found.items == 200
    assert found.observed == pytest.approx(0.70)
    assert round(found.kappa, 3) == 0.492


def test_cohen_two_by_two_by_hand():
    """20 and 15 agreed, 5 and 10 not: observed .7, expected .5 x .6 + .5 x .4 = .5, kappa .4."""
    found = cohen_kappa(*expand([[20, 5], [10, 15]]))
    assert found.kappa == pytest.approx(0.4)


@pytest.mark.parametrize("seed", range(5))
def test_cohen_as_scikit_learn_has_it(seed):
    from sklearn.metrics import cohen_kappa_score

    rng = np.random.default_rng(seed)
    first = rng.integers(0, 4, 300)
    second = np.where(rng.random(300) < 0.6, first, rng.integers(0, 4, 300))
    assert cohen_kappa(first, second).kappa == pytest.approx(cohen_kappa_score(first, second), abs=1e-12)


def test_the_interval_is_that_of_resampling_items():
    """The multinomial draw against drawing items one by one: the same ends but for the luck of the draw."""
    first, second = expand([[40, 12], [9, 39]])
    rng = np.random.default_rng(3)
    drawn = []
    for _ in range(4000):
        rows = rng.integers(0, len(first), len(first))
        drawn.append(cohen_kappa(first[rows], second[rows], resamples=1).kappa)
    found = cohen_kappa(first, second, resamples=20_000, seed=1)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, (0.025, 0.975))), abs=0.02)
    assert found == cohen_kappa(first, second, resamples=20_000, seed=1)
    assert found != cohen_kappa(first, second, resamples=20_000, seed=2)


def test_fleiss_of_two_raters_is_scotts_pi():
    """Scott's pi takes the mean of both raters' margins: 20 + 15 of 50 agreed, margins .55 and .45."""
    first, second = expand([[20, 5], [10, 15]])
    counts = np.stack([(first == c).astype(int) + (second == c) for c in (0, 1)], axis=1)
    expected = 0.55**2 + 0.45**2
    assert fleiss_kappa(counts).kappa == pytest.approx((0.7 - expected) / (1 - expected))


def test_where_chance_alone_agrees_there_is_no_kappa():
    same = np.zeros(12, int)
    for found in (cohen_kappa(same, same), fleiss_kappa(np.stack([same + 3, same], axis=1))):
        assert found == Agreement(12, 1.0, None, None, None)
    nothing = Agreement(0, None, None, None, None)
    assert cohen_kappa(same[:0], same[:0]) == fleiss_kappa(np.zeros((0, 2), int)) == nothing
    perfect = cohen_kappa(*expand([[6, 0], [0, 6]]))
    assert (perfect.kappa, perfect.low, perfect.high) == (1.0, 1.0, 1.0)


def test_ratings_that_no_kappa_has_are_refused():
    for counts in ([[2, 0], [1, 0]], [[1, 0], [1, 0]]):
        with pytest.raises(ValueError, match="same number of ratings"):
            fleiss_kappa(np.array(counts))
    with pytest.raises(ValueError, match="one length"):
        cohen_kappa(np.zeros(3, int), np.zeros(4, int))


def judge(workspace, user: int, verdicts: dict[int, str]) -> None:
    """Reject with a reason that depends on the candidate, or accept, or skip."""
    with workspace.read() as session:
        sha = dict(session.execute(select(Candidate.id, Candidate.result_sha256)).all())
    events = []
    for candidate, verdict in verdicts.items():
        reasons = (list(Reason)[candidate % 2],) if verdict == "reject" else ()
        events.append(DecisionEvent(str(uuid.uuid4()), verdict, candidate, sha[candidate], reasons))
    record(workspace, events, user)


@pytest.fixture
def judged(workspace):
    """60 candidates: the first two annotators judge all, the third two of three; one gold item, some skips."""
    ids = synthetic_candidates(workspace, 60, size=8)
    rng = random.Random(5)
    with workspace.write() as session:
        users = [ensure_user(session, name).id for name in ("Ada", "Bob", "Cleo")]
        set_gold(session, ids[0], "accept")
    truth = {candidate: rng.choice(["accept", "accept", "reject"]) for candidate in ids}
    for number, user in enumerate(users):
        mine = {}
        for candidate in ids:
            if number == 2 and candidate % 3 == 0:
                continue
            other = rng.choice(["accept", "reject", "skip"])
            mine[candidate] = truth[candidate] if rng.random() < 0.7 else other
        judge(workspace, user, mine)
    return workspace, ids, users


def ratings(workspace, keep) -> dict[int, dict[int, tuple[str, list[str]]]]:
    """Candidate -> user -> verdict and reasons, of the answers on candidates that ``keep`` lets through."""
    found: dict[int, dict[int, tuple[str, list[str]]]] = {}
    with workspace.read() as session:
        for row in session.scalars(select(CurrentVerdict)):
            if row.verdict.value != "skip" and keep(row.candidate_id):
                found.setdefault(row.candidate_id, {})[row.user_id] = (row.verdict.value, row.reasons)
    return {candidate: given for candidate, given in found.items() if len(given) >= 2}


def test_the_summary_counts_what_it_says(judged):
    workspace, ids, users = judged
    with workspace.read() as session:
        summary = agreement_summary(session, 1, resamples=50)
    given = ratings(workspace, lambda candidate: candidate != ids[0])
    sizes = [len(of) for of in given.values()]
    commonest = max((2, 3), key=sizes.count)
    whole = {candidate: of for candidate, of in given.items() if len(of) == commonest}
    assert json.loads(json.dumps(summary)) == summary
    assert (summary["sample"], summary["ratings_per_item"]) == ("judged by two or more", commonest)
    assert (summary["overall"]["items"], summary["left_out"]) == (len(whole), len(given) - len(whole))
    agreeing = [
        sum(a == b for a in said for b in said) - len(said)
        for said in ([verdict for verdict, _ in of.values()] for of in whole.values())
    ]
    observed = np.mean(agreeing) / (commonest * (commonest - 1))
    assert summary["overall"]["observed"] == pytest.approx(observed)
    for reason in (Reason.OBJECT_LEFT, Reason.PART_LEFT, Reason.SHADOW):
        marked = [sum(reason in reasons for _, reasons in of.values()) for of in whole.values()]
        expected = fleiss_kappa(np.array([[n, commonest - n] for n in marked]), resamples=50)
        assert summary["reasons"][reason.value]["kappa"] == expected.kappa
    pairs = {(pair["a"], pair["b"]): pair for pair in summary["pairs"]}
    names = [f"annotator-{number}" for number in (1, 2, 3)]
    assert set(pairs) == {(names[0], names[1]), (names[0], names[2]), (names[1], names[2])}
    both = [of for of in given.values() if users[0] in of and users[2] in of]
    columns = [np.array([of[user][0] == "reject" for of in both], dtype=int) for user in (users[0], users[2])]
    pair = pairs[names[0], names[2]]
    assert (pair["items"], pair["kappa"]) == (len(both), cohen_kappa(*columns, resamples=50).kappa)


def test_with_overlap_only_the_sample_counts(judged):
    workspace, ids, _ = judged
    overlap = Overlap(share=0.5, k=3, seed=2)
    with workspace.write() as session:
        save_overlap(session, overlap)
        sampled = set(session.scalars(select(Candidate.id).where(is_sampled(Candidate.id, overlap))))
    with workspace.read() as session:
        names = {1: "x", 2: "y"}
        summary = agreement_summary(session, 1, resamples=20, names=names)
        assert agreement_summary(session, 99)["overall"]["items"] == 0
    given = ratings(workspace, lambda candidate: candidate in sampled and candidate != ids[0])
    three = [candidate for candidate, of in given.items() if len(of) == 3]
    assert (summary["sample"], summary["ratings_per_item"], summary["share"]) == ("overlap", 3, 0.5)
    assert (summary["overall"]["items"], summary["left_out"]) == (len(three), len(given) - len(three))
    with workspace.read() as session:
        classes = dict(session.execute(select(Candidate.id, Candidate.class_index)).all())
    for entry in summary["classes"]:
        number = sum(classes[candidate] == entry["class_index"] for candidate in three)
        assert entry["items"] == number
        assert (entry["kappa"] is None) == (number < MIN_ITEMS)
    assert [(pair["a"], pair["b"]) for pair in summary["pairs"]] == [("x", "y"), ("x", UNNAMED), ("y", UNNAMED)]
