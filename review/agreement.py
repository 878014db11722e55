"""What the overlapping verdicts say about the annotators' agreement, as one JSON-ready object.

Only candidates that were drawn for overlap count, as they are a fair sample; without an overlap setting, all that two
or more annotators have judged do, and the object says so. Gold items are left out: they were chosen. A skip is no
rating, and an adjudication changes no rating.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations

import numpy as np
from sqlalchemy import not_, select
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, Reason, Verdict
from review.kappa import CONFIDENCE, RESAMPLES, cohen_kappa, fleiss_kappa
from review.overlap import ANSWERS, Overlap, is_gold, is_sampled, load_overlap

MIN_ITEMS = 10
UNNAMED = "another annotator"


@dataclass(frozen=True)
class Ratings:
    """Standing verdicts on candidates with two or more, one row a rating; all arrays have the same length.

    ``items`` numbers the candidates and ``raters`` the annotators (ids in ``users``), both from 0. ``rejects`` is
    bool; ``reasons`` bool of shape (ratings, number of reasons); ``classes`` is the class index of each item.
    """

    items: np.ndarray
    raters: np.ndarray
    rejects: np.ndarray
    reasons: np.ndarray
    classes: np.ndarray
    users: tuple[int, ...]


def agreement_summary(
    session: Session,
    recipe_id: int,
    *,
    names: Mapping[int, str] | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict:
    """Agreement on accept or reject: ``overall``, by ``reasons`` and by ``classes`` (Fleiss), by ``pairs`` (Cohen).

    Each is ``{items, observed, kappa, low, high}`` (review/kappa.py). Fleiss' takes the items with exactly
    ``ratings_per_item`` ratings: the overlap's k, or without one the commonest number; ``left_out`` counts the
    others. A reason's rating is whether it was given. Classes and pairs with fewer than ``min_items`` items have
    their number alone and None for the rest. ``names`` are what annotators are called, by user id, those without a
    name :data:`UNNAMED`; by default annotator-1, annotator-2, ...
    """
    overlap = load_overlap(session)
    ratings = _load(session, recipe_id, overlap)
    per_item = np.bincount(ratings.items, minlength=len(ratings.classes))
    wanted = overlap.k if overlap.share > 0 else _commonest(per_item)
    whole = per_item == wanted
    classes = ratings.classes[whole]

    def given_to(marks: np.ndarray) -> np.ndarray:
        """How many of an item's ratings are marked (one bool a rating), for the items that count."""
        return np.bincount(ratings.items, weights=marks, minlength=len(whole))[whole].astype(int)

    def fleiss(marked: np.ndarray) -> dict:
        return asdict(fleiss_kappa(np.stack([marked, wanted - marked], axis=1), resamples=resamples, seed=seed))

    rejects = given_to(ratings.rejects)
    by_class = {int(index): rejects[classes == index] for index in np.unique(classes)}
    return {
        "sample": "overlap" if overlap.share > 0 else "judged by two or more",
        "share": overlap.share,
        "ratings_per_item": wanted,
        "left_out": int((~whole).sum()),
        "annotators": len(ratings.users),
        "confidence": CONFIDENCE,
        "resamples": resamples,
        "seed": seed,
        "min_items": MIN_ITEMS,
        "overall": fleiss(rejects),
        "reasons": {str(reason): fleiss(given_to(ratings.reasons[:, number])) for number, reason in enumerate(Reason)},
        "classes": [
            {"class_index": index} | (fleiss(marked) if len(marked) >= MIN_ITEMS else _too_few(len(marked)))
            for index, marked in by_class.items()
        ],
        "pairs": _pairs(ratings, names or _pseudonyms(ratings.users), resamples, seed),
    }


def _load(session: Session, recipe_id: int, overlap: Overlap) -> Ratings:
    query = (
        select(
            CurrentVerdict.candidate_id,
            CurrentVerdict.user_id,
            CurrentVerdict.verdict,
            CurrentVerdict.reasons,
            Candidate.class_index,
        )
        .join(Candidate, Candidate.id == CurrentVerdict.candidate_id)
        .where(Candidate.recipe_id == recipe_id, CurrentVerdict.verdict.in_(ANSWERS), not_(is_gold()))
    )
    if overlap.share > 0:
        query = query.where(is_sampled(Candidate.id, overlap))
    rows = session.execute(query).all()
    ids, counts = np.unique(np.array([row.candidate_id for row in rows], dtype=np.int64), return_counts=True)
    twice = set(ids[counts >= 2].tolist())
    rows = [row for row in rows if row.candidate_id in twice]
    ids, items = np.unique(np.array([row.candidate_id for row in rows], dtype=np.int64), return_inverse=True)
    users, raters = np.unique(np.array([row.user_id for row in rows], dtype=np.int64), return_inverse=True)
    classes = np.zeros(len(ids), dtype=np.int64)
    classes[items] = [row.class_index for row in rows]
    reasons = np.array([[reason in row.reasons for reason in Reason] for row in rows], dtype=bool)
    return Ratings(
        items=items,
        raters=raters,
        rejects=np.array([row.verdict is Verdict.REJECT for row in rows], dtype=bool),
        reasons=reasons.reshape(len(rows), len(Reason)),
        classes=classes,
        users=tuple(users.tolist()),
    )


def _commonest(per_item: np.ndarray) -> int:
    """The commonest number of ratings; 2 when there is no item."""
    return int(np.bincount(per_item).argmax()) if len(per_item) else 2


def _pairs(ratings: Ratings, names: Mapping[int, str], resamples: int, seed: int) -> list[dict]:
    verdicts = np.full((len(ratings.classes), len(ratings.users)), -1)
    verdicts[ratings.items, ratings.raters] = ratings.rejects
    found = []
    for a, b in combinations(range(len(ratings.users)), 2):
        shared = verdicts[(verdicts[:, a] >= 0) & (verdicts[:, b] >= 0)]
        if not len(shared):
            continue
        agreement = _too_few(len(shared))
        if len(shared) >= MIN_ITEMS:
            agreement = asdict(cohen_kappa(shared[:, a], shared[:, b], resamples=resamples, seed=seed))
        called = {key: names.get(ratings.users[rater], UNNAMED) for key, rater in (("a", a), ("b", b))}
        found.append(called | agreement)
    return found


def _too_few(items: int) -> dict:
    return {"items": items, "observed": None, "kappa": None, "low": None, "high": None}


def _pseudonyms(users: tuple[int, ...]) -> dict[int, str]:
    return {user_id: f"annotator-{number}" for number, user_id in enumerate(users, 1)}
