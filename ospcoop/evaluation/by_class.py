"""An evaluation class by class, from its scores: which classes are taken for OOD, and whose backgrounds for ID."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from db.workspace import Workspace
from ospcoop.evaluation.scores_file import read_scores
from ospcoop.metrics import share_below


@dataclass(frozen=True)
class ClassRow:
    """One class of the ID set. Shares and AUROCs are 0..1, None where there is no such image.

    ``id_auroc`` holds the class's ID images against all OOD images; ``bg_auroc`` all ID images against the
    OOD images that were made of the class's photos, of which ``kept_class`` are still predicted as the class.
    """

    class_index: int
    id_images: int
    accuracy: float | None
    id_auroc: float | None
    bg_images: int
    bg_auroc: float | None
    kept_class: float | None


def by_class(workspace: Workspace, scores: str) -> list[ClassRow]:
    """In order of class index; ``scores`` is a result row's. OSError when the file is gone."""
    found = read_scores(workspace, scores)
    inside = found["role"] == "id"
    label, predicted, score = (np.asarray(found[name]) for name in ("class_index", "predicted", "score"))
    # A class's AUROC is the mean over its own images of their rank among the other side: every image is ranked once.
    of_ood, of_id = score[~inside], score[inside]
    ood_above, id_below = np.full(len(score), np.nan), np.full(len(score), np.nan)
    ood_above[inside] = 1 - share_below(of_ood, of_id)
    id_below[~inside] = share_below(of_id, of_ood)
    order = np.argsort(label, kind="stable")[: np.count_nonzero(~np.isnan(label))]
    indices, starts = np.unique(label[order], return_index=True)
    rows = []
    for index, members in zip(indices.astype(int), np.split(order, starts[1:]), strict=True):
        own, made = members[inside[members]], members[~inside[members]]
        rows.append(
            ClassRow(
                int(index),
                len(own),
                float(np.mean(predicted[own] == index)) if len(own) else None,
                float(np.mean(ood_above[own])) if len(own) else None,
                len(made),
                float(np.mean(id_below[made])) if len(made) else None,
                float(np.mean(predicted[made] == index)) if len(made) else None,
            )
        )
    return rows
