"""What may not be evaluated: Bg by a run that saw val, and photos by the run that was trained on them."""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy.orm import Session

from db.models import Run
from db.training_guard import fewshot_sources
from db.training_queries import TrainingData, training_candidates
from ospcoop.evaluation.request import EvaluationError
from ospcoop.evaluation.sets import ImageSet
from ospcoop.options import TRAINED_KINDS


class TrainedOnTheTest(EvaluationError):
    """A run was trained on images of the set it was to be evaluated on; the message names one."""


def check_run(session: Session, run: Run, sets: Iterable[ImageSet]) -> None:
    """Refuses what would test a run on what it has seen.

    Raises :class:`TrainedOnTheTest` where a set holds a photo or candidate that the run was trained on, or where
    a candidate of the set was made of such a photo; and, where a set is a build, the errors of
    :mod:`db.training_guard` if anything the run was trained on came from a val photo.
    """
    if run.fewshot_set_id is None:
        return  # imported: what it was trained on is not known here, and its rows say so
    sets = list(sets)
    if any(one.group == "bg" for one in sets):
        data = _training_data(session, run)
        shown = {row.candidate.result_sha256 for row in (*data.backgrounds, *data.textures, *data.id_augs)}
    else:
        shown = set()
    photos = fewshot_sources(session, run.fewshot_set_id)
    shown |= {photo.sha256 for photo in photos}
    sources = {photo.id for photo in photos}
    for one in sets:
        seen = [image for image in one.images if image.image.sha256 in shown or image.source_id in sources]
        if seen:
            raise TrainedOnTheTest(
                f"Run {run.name} was trained on {len(seen)} of the {len(one.images)} images of {one.name}, or on what "
                f"they were made of, as {seen[0].name}. Evaluate it on another set."
            )


def _training_data(session: Session, run: Run) -> TrainingData:
    choice, kinds = run.config["choice"], TRAINED_KINDS[run.objective]
    return training_candidates(
        session,
        choice["fewshot_set"],
        background_recipe_id=choice["background_recipe"],
        texture_recipe_id=choice["texture_recipe"] if "texture" in kinds else None,
        id_aug_recipe_id=choice["id_aug_recipe"] if "id_aug" in kinds else None,
        min_drop=run.config["options"]["min_drop"],
    )
