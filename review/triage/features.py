"""What is known of each candidate without asking anybody: one table of numbers a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Candidate, Kind
from db.progress import Progress
from db.workspace import Workspace
from review.triage.shapes import SHAPE_NAMES, measure_shapes

RECORDED_NAMES = (
    "drop",
    "logit_source",
    "residual",
    "log_rank",
    "probability_logit",
    "area",
    "dilated_area",
    "boxes",
    "best_box",
    "residual_boxes",
    "best_residual_box",
)
FEATURE_NAMES = (*RECORDED_NAMES, *SHAPE_NAMES)
EXTRA_COMPONENTS = 16
PROBABILITY_EDGE = 1e-6


class ExtraFeatures(Protocol):
    """Further numbers a candidate, such as CLIP image features from a cache."""

    name: str

    def __call__(self, candidate_ids: np.ndarray) -> np.ndarray:
        """``float [n, d]`` for ``int64 [n]`` candidate ids; a row of NaN where there is nothing."""
        ...


@dataclass(frozen=True)
class FeatureTable:
    """One row a candidate, in order of id.

    ``values`` is ``float64 [n, len(names)]``, NaN where a thing was not measured. ``class_indices`` is
    ``int64 [n]``, ``hashes`` ``uint64 [n]`` the perceptual hashes.
    """

    candidate_ids: np.ndarray
    names: tuple[str, ...]
    values: np.ndarray
    class_indices: np.ndarray
    hashes: np.ndarray


def feature_table(
    workspace: Workspace, recipe_id: int, progress: Progress, extra: ExtraFeatures | None = None
) -> FeatureTable:
    """The features of every background candidate of the recipe. Masks not measured before are read from disk.

    Columns are those of :data:`FEATURE_NAMES`: rank as its natural logarithm, probability as log-odds, areas as
    shares, box confidences 0 to 1 (NaN without a box; the residual ones NaN where nothing was looked for).
    """
    with workspace.read() as session:
        rows = _rows(session, recipe_id)
    recorded = np.array([_recorded(row) for row in rows], np.float64).reshape(-1, len(RECORDED_NAMES))
    shapes = measure_shapes(workspace, recipe_id, [(row.id, row.folder) for row in rows], progress)
    ids = np.array([row.id for row in rows], np.int64)
    names, values = FEATURE_NAMES, np.hstack([recorded, shapes])
    if extra is not None:
        components = principal_components(np.asarray(extra(ids), np.float64))
        names = (*names, *(f"{extra.name}_{number}" for number in range(components.shape[1])))
        values = np.hstack([values, components])
    return FeatureTable(
        candidate_ids=ids,
        names=names,
        values=values,
        class_indices=np.array([row.class_index for row in rows], np.int64),
        hashes=np.array([int(row.phash, 16) for row in rows], np.uint64),
    )


def _rows(session: Session, recipe_id: int) -> list:
    query = (
        select(
            Candidate.id,
            Candidate.folder,
            Candidate.class_index,
            Candidate.phash,
            Candidate.drop,
            Candidate.logit_source,
            Candidate.residual,
            Candidate.rank,
            Candidate.probability,
            Candidate.area,
            Candidate.dilated_area,
            Candidate.boxes,
            Candidate.residual_boxes,
        )
        .where(Candidate.recipe_id == recipe_id, Candidate.kind == Kind.BACKGROUND)
        .order_by(Candidate.id)
    )
    return session.execute(query).all()


def _recorded(row) -> tuple[float, ...]:
    probability = min(max(row.probability, PROBABILITY_EDGE), 1 - PROBABILITY_EDGE)
    count, best = _boxes(row.boxes)
    residual_count, best_residual = (np.nan, np.nan) if row.residual_boxes is None else _boxes(row.residual_boxes)
    return (
        row.drop,
        row.logit_source,
        row.residual,
        np.log(max(row.rank, 1)),
        np.log(probability / (1 - probability)),
        row.area,
        row.dilated_area,
        count,
        best,
        residual_count,
        best_residual,
    )


def _boxes(boxes: list[dict]) -> tuple[float, float]:
    confidences = [float(box["confidence"]) for box in boxes if box.get("confidence") is not None]
    return float(len(boxes)), max(confidences, default=float("nan"))


def principal_components(features: np.ndarray, most: int = EXTRA_COMPONENTS) -> np.ndarray:
    """``float64 [n, k]``: the rows on their first ``k <= most`` principal axes; rows that hold a NaN stay NaN.

    Hundreds of raw columns would drown a few hundred verdicts. No verdict is looked at.
    """
    whole = np.isfinite(features).all(axis=1)
    count = min(most, int(whole.sum()), features.shape[1])
    projected = np.full((len(features), count), np.nan)
    if count:
        centred = features[whole] - features[whole].mean(axis=0)
        _, axes = np.linalg.eigh(centred.T @ centred)
        axes = axes[:, ::-1][:, :count]
        # An axis has no sign of its own: fix it, so that the same data gives the same numbers.
        signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(count)])
        projected[whole] = centred @ (axes * signs)
    return projected
