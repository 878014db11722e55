"""How a candidate's class and its look-alikes were judged: features made of verdicts, without leaking one's own.

Verdicts are dealt into folds. A row's feature is made only of folds that hold neither its own verdict nor any
that its prediction is tested on; so no verdict can vouch for itself (cross-fitting, as target encoding needs).
Leaving out only the row itself would not do: within a class the share would then be lower exactly for accepts.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

FOLDS = 5
LOOK_ALIKE_BITS = 10
CLASS_STRENGTH = 10.0
LOOK_ALIKE_STRENGTH = 1.0
AGREEING_NAMES = ("class_accept", "look_alike_accept", "look_alikes_judged")
UNJUDGED = -1
_BLOCK_ELEMENTS = 4_000_000


def deal_folds(verdicts: np.ndarray, seed: int, folds: int = FOLDS) -> np.ndarray:
    """``int64 [n]``: each judged row's fold, 0 to ``folds`` - 1, accepts and rejects spread evenly; -1 unjudged."""
    draw = np.random.default_rng(seed)
    fold_of = np.full(len(verdicts), UNJUDGED, np.int64)
    for verdict in (0, 1):
        rows = draw.permutation(np.flatnonzero(verdicts == verdict))
        fold_of[rows] = np.arange(len(rows)) % folds
    return fold_of


@dataclass(frozen=True)
class FoldCounts:
    """Accepts and verdicts by fold, each ``float64 [n, folds]``: in a row's class, and among its look-alikes.

    ``overall`` is ``float64 [2, folds]``: accepts and verdicts of all.
    """

    class_accepts: np.ndarray
    class_judged: np.ndarray
    alike_accepts: np.ndarray
    alike_judged: np.ndarray
    overall: np.ndarray

    @property
    def folds(self) -> int:
        return self.overall.shape[1]

    def columns(self, rows: np.ndarray, use: np.ndarray) -> np.ndarray:
        """``float64 [len(rows), 3]``, the columns of :data:`AGREEING_NAMES`, from the folds that ``use``
        (``bool [len(rows), folds]``) names for each row.

        Shares of accepts are shrunk towards the overall share with the weight of ten verdicts (class) or one
        (look-alikes), which is also their value where nothing was judged; the count is log(1 + count).
        """
        weight = use.astype(np.float64)
        accepts, judged = weight @ self.overall[0], weight @ self.overall[1]
        prior = (accepts + 1) / (judged + 2)

        def shrunk(part: np.ndarray, whole: np.ndarray, strength: float) -> tuple[np.ndarray, np.ndarray]:
            count = (whole[rows] * weight).sum(axis=1)
            return ((part[rows] * weight).sum(axis=1) + strength * prior) / (count + strength), count

        of_class, _ = shrunk(self.class_accepts, self.class_judged, CLASS_STRENGTH)
        of_alike, alike = shrunk(self.alike_accepts, self.alike_judged, LOOK_ALIKE_STRENGTH)
        return np.column_stack([of_class, of_alike, np.log1p(alike)])


def count_folds(
    class_indices: np.ndarray, hashes: np.ndarray, verdicts: np.ndarray, fold_of: np.ndarray, folds: int = FOLDS
) -> FoldCounts:
    """The counts for every row. ``verdicts`` is ``int8 [n]``: 1 accept, 0 reject, -1 unjudged."""
    judged = np.flatnonzero(verdicts != UNJUDGED)
    # Column f counts the verdicts of fold f, column folds + f its accepts.
    votes = np.zeros((len(judged), 2 * folds), np.float32)
    votes[np.arange(len(judged)), fold_of[judged]] = 1
    votes[np.arange(len(judged)), folds + fold_of[judged]] = verdicts[judged]

    classes, class_of = np.unique(class_indices, return_inverse=True)
    by_class = np.zeros((len(classes), 2 * folds))
    np.add.at(by_class, class_of[judged], votes)
    by_class = by_class[class_of]
    alike = _look_alike_votes(hashes, hashes[judged], votes)
    return FoldCounts(
        class_accepts=by_class[:, folds:],
        class_judged=by_class[:, :folds],
        alike_accepts=alike[:, folds:],
        alike_judged=alike[:, :folds],
        overall=votes.sum(axis=0, dtype=np.float64).reshape(2, folds)[::-1],
    )


def _look_alike_votes(hashes: np.ndarray, judged_hashes: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """``float64 [n, columns]``: the votes on hashes at most :data:`LOOK_ALIKE_BITS` away, summed.

    All against all in blocks: whatever the hashes, no list of pairs is ever held.
    """
    places, place_of = np.unique(hashes, return_inverse=True)
    targets, target_of = np.unique(judged_hashes, return_inverse=True)
    weights = np.zeros((len(targets), votes.shape[1]), np.float32)
    np.add.at(weights, target_of, votes)
    sums = np.zeros((len(places), votes.shape[1]))
    step = max(1, _BLOCK_ELEMENTS // max(1, len(targets)))
    for start in range(0, len(places), step):
        apart = np.bitwise_count(places[start : start + step, None] ^ targets[None, :])
        sums[start : start + step] = (apart <= LOOK_ALIKE_BITS).astype(np.float32) @ weights
    return sums[place_of]
