"""The Parquet file of an evaluation: a row an image, ID first, with all that its metrics were computed from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from db.files import atomic_file
from db.workspace import Workspace
from ospcoop.evaluation.sets import ImageSet

if TYPE_CHECKING:
    import pyarrow as pa

FOLDER = "evaluation/scores"


@dataclass(frozen=True)
class ImageScores:
    """A set's images through one detector, all ``[N]``: ``score`` float32 (higher = more OOD), ``predicted`` int64
    class indices, ``confidence`` float32 (the largest softmax of the logits, 0..1), and the photos' scores, where
    there are pairs."""

    images: ImageSet
    predicted: np.ndarray
    confidence: np.ndarray
    score: np.ndarray
    photo_score: np.ndarray | None = None


def scores_path(key: str) -> str:
    """Relative to the workspace."""
    return f"{FOLDER}/{key[:2]}/{key}.parquet"


def write_scores(path: Path, sides: tuple[ImageScores, ImageScores], facts: dict[str, str]) -> None:
    """Whole or not at all; ``facts`` go into the file's metadata."""
    import pyarrow as pa
    from pyarrow import parquet

    table = pa.concat_tables([_table(side) for side in sides])
    with atomic_file(path) as handle:
        parquet.write_table(table.replace_schema_metadata(facts), handle, compression="zstd")


def _table(side: ImageScores) -> pa.Table:
    import pyarrow as pa

    images, many = side.images.images, len(side.images.images)
    columns = {
        "set": pa.array([side.images.name] * many, pa.string()),
        "role": pa.array([side.images.role] * many, pa.string()),
        "image": pa.array([one.name for one in images], pa.string()),
        "sha256": pa.array([one.image.sha256 for one in images], pa.string()),
        "class_index": pa.array([one.class_index for one in images], pa.int32()),
        "predicted": pa.array(side.predicted, pa.int32()),
        "confidence": pa.array(side.confidence, pa.float32()),
        "score": pa.array(side.score, pa.float32()),
        "photo_score": pa.array(side.photo_score if side.photo_score is not None else [None] * many, pa.float32()),
        "source_id": pa.array([one.source_id for one in images], pa.int64()),
        "candidate_id": pa.array([one.candidate_id for one in images], pa.int64()),
    }
    return pa.table(columns)


def read_scores(workspace: Workspace, scores: str) -> dict[str, np.ndarray]:
    """The file's columns by name, where None is NaN for numbers: what figures and breakdowns are made of.

    ``scores`` is :attr:`db.models.Evaluation.scores`. OSError when the file is gone.
    """
    from pyarrow import parquet

    table = parquet.read_table(workspace.path(scores))
    return {name: table.column(name).to_numpy(zero_copy_only=False) for name in table.column_names}
