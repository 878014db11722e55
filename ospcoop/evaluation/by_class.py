"""An evaluation class by class, from its scores: which classes are taken for OOD, and whose backgrounds for ID."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from db.workspace import Workspace
from ospcoop.evaluation.scores_file import read_scores
from ospcoop.metrics import auroc


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
    rows = []
    for index in np.unique(label[~np.isnan(label)]).astype(int):
        mine = label == index
        own, made = mine & inside, mine & ~inside
        rows.append(
            ClassRow(
                int(index),
                int(own.sum()),
                float(np.mean(predicted[own] == index)) if own.any() else None,
                auroc(score[own], score[~inside]) if own.any() else None,
                int(made.sum()),
                auroc(score[inside], score[made]) if made.any() else None,
                float(np.mean(predicted[made] == index)) if made.any() else None,
            )
        )
    return rows
