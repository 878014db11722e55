"""The figures of an evaluation, from the scores that it left. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from db.models import Evaluation, Run
from db.workspace import Workspace
from ospcoop.evaluation.scores_file import read_scores
from ospcoop.evaluation.tables import ZERO_SHOT
from ospcoop.figures.scores import (
    Reliability,
    RocCurve,
    ScoreHistogram,
    reliability,
    roc_curve,
    score_histogram,
)
from ospcoop.metrics import auroc


class UnknownEvaluation(LookupError):
    """No evaluation has that number."""


class ScoresMissing(RuntimeError):
    """An evaluation's file of scores is gone; the message says how it comes back."""


@dataclass(frozen=True)
class EvaluationFigures:
    """What there is to draw of one detector on one pair of sets. ``auroc`` is exact, also where the curve is thinned.

    ``reliability`` is of the ID images. ``photos`` are the histograms of backgrounds (as ``ood``) and of the photos
    that they were made from (as ``id``), None where the OOD set has no pairs.
    """

    id: int
    title: str
    id_set: str
    ood_set: str
    auroc: float
    histogram: ScoreHistogram
    roc: RocCurve
    reliability: Reliability
    photos: ScoreHistogram | None


@dataclass(frozen=True)
class Background:
    """A candidate as an evaluation saw it; ``predicted`` is a class index, ``confidence`` 0 to 1."""

    candidate_id: int
    score: float
    predicted: int
    confidence: float


def evaluation_figures(workspace: Workspace, number: int) -> EvaluationFigures:
    """Raises :class:`UnknownEvaluation` and :class:`ScoresMissing`."""
    row, columns = stored_scores(workspace, number)
    with workspace.read() as session:
        prompts = ZERO_SHOT if row.run_id is None else session.get_one(Run, row.run_id).name
    inside = columns["role"] == "id"
    scores, photos = columns["score"], columns["photo_score"]
    pairs = ~inside & ~np.isnan(photos)
    correct = columns["predicted"][inside] == columns["class_index"][inside]
    return EvaluationFigures(
        row.id,
        f"{row.detector}, {prompts}",
        row.id_set,
        row.ood_set,
        auroc(scores[inside], scores[~inside]),
        score_histogram(scores[inside], scores[~inside]),
        roc_curve(scores[inside], scores[~inside]),
        reliability(columns["confidence"][inside].clip(0, 1), correct),
        score_histogram(photos[pairs], scores[pairs]) if pairs.any() else None,
    )


def hardest_backgrounds(workspace: Workspace, number: int, limit: int) -> list[Background]:
    """The candidates among an evaluation's OOD images that look most ID, the lowest score first; none in other sets.

    Raises :class:`UnknownEvaluation` and :class:`ScoresMissing`.
    """
    _, columns = stored_scores(workspace, number)
    ids = columns["candidate_id"].astype(np.float64)
    rows = np.flatnonzero((columns["role"] == "ood") & ~np.isnan(ids))
    rows = rows[np.argsort(columns["score"][rows], kind="stable")][:limit]
    return [
        Background(
            int(ids[row]),
            float(columns["score"][row]),
            int(columns["predicted"][row]),
            float(columns["confidence"][row]),
        )
        for row in rows
    ]


def id_classes(workspace: Workspace, number: int) -> list[int]:
    """The classes of an evaluation's ID images, by index: those that it had prompts for."""
    _, columns = stored_scores(workspace, number)
    return np.unique(columns["class_index"][columns["role"] == "id"].astype(np.int64)).tolist()


def stored_scores(workspace: Workspace, number: int) -> tuple[Evaluation, dict[str, np.ndarray]]:
    """The evaluation and its columns, a row an image. Raises :class:`UnknownEvaluation` and :class:`ScoresMissing`."""
    with workspace.read() as session:
        row = session.get(Evaluation, number)
    if row is None:
        raise UnknownEvaluation(f"There is no evaluation {number}.")
    try:
        return row, read_scores(workspace, row.scores)
    except OSError as error:
        raise ScoresMissing(f"The scores of evaluation {number} are gone; evaluate it again: {error}") from error
