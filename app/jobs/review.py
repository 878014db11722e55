"""Jobs that help people review: train triage, find near-duplicates."""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import select

from db import jobs
from db.models import Job, JobState, Recipe
from db.progress import Progress
from db.queries import active_recipe
from db.workspace import Workspace

TRIAGE = "triage"
DUPLICATES = "duplicates"
SOURCE_HASHES = "cache/duplicates/source-hashes.npz"


class NoRecipe(LookupError):
    """There are no candidates to work on yet."""


def recipe_of(workspace: Workspace, params: dict) -> Recipe:
    """The recipe that ``params["recipe_id"]`` names, else the active one. Raises :class:`NoRecipe`."""
    with workspace.read() as session:
        named = params.get("recipe_id")
        recipe = active_recipe(session) if named is None else session.get(Recipe, int(named))
    if recipe is None:
        raise NoRecipe("There are no candidates yet: generate some first.")
    return recipe


def train_triage(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """Train the next version, unless nothing has changed since the newest."""
    from review.triage.training import train

    recipe = recipe_of(workspace, params)
    trained = train(workspace, recipe.id, seed=int(params.get("seed", 0)), progress=progress)
    metrics = trained.model.metrics
    return {
        "model_id": trained.model.id,
        "is_new": trained.is_new,
        "trained_on": trained.model.trained_on,
        "algorithm": metrics["algorithm"],
        "auroc": metrics["auroc"],
        "log_loss": metrics["log_loss"],
        "ece": metrics["ece"],
    }


def queue_triage(workspace: Workspace, *, created_by: str = "") -> int | None:
    """Enqueue training when enough new decisions came since the newest version; the job's id, None when not due.

    Never a second one while one waits or runs. After one that failed, only when as many decisions came again.
    Cheap enough to be asked after decisions.
    """
    from review.triage.training import due_after, retrain_state

    with workspace.read() as session:
        recipe = active_recipe(session)
        state = None if recipe is None else retrain_state(session, recipe.id)
        if state is None or not state.is_due or jobs.active_job(session, TRIAGE) is not None:
            return None
        last = session.scalar(select(Job).where(Job.kind == TRIAGE).order_by(Job.id.desc()).limit(1))
        if last is not None and last.state == JobState.FAILED:
            since = state.last_decision_id - last.params.get("last_decision_id", 0)
            if since < due_after(0):
                return None
    with workspace.write() as session:
        if jobs.active_job(session, TRIAGE) is not None:
            return None
        params = {"recipe_id": recipe.id, "last_decision_id": state.last_decision_id}
        return jobs.enqueue(session, TRIAGE, params, created_by=created_by).id


def find_duplicates(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """Group the recipe's candidates by their hashes, and hold them against the photos they were made of."""
    from review import duplicates

    recipe = recipe_of(workspace, params)
    distance = int(params.get("distance", duplicates.DISTANCE))
    own_distance = int(params.get("own_distance", duplicates.OWN_DISTANCE))
    with workspace.read() as session:
        candidates = duplicates.hashed_candidates(session, recipe.id)
    photos = _source_hashes(workspace, {one.source_id: one.folder for one in candidates}, progress)
    progress.update(len(candidates), len(candidates), "Comparing hashes")
    members = duplicates.find_duplicates(candidates, photos, distance, own_distance)
    found_with = {
        "candidates": len(candidates),
        "sources": len(photos),
        "distance": distance,
        "own_distance": own_distance,
    }
    duplicates.store_duplicates(workspace, recipe.id, members, found_with)
    with workspace.read() as session:
        groups = duplicates.group_counts(session, recipe.id)
    return {**found_with, "members": len(members), "groups": {str(kind): count for kind, count in groups.items()}}


def _source_hashes(workspace: Workspace, folder_of: dict[int, str], progress: Progress) -> dict[int, int]:
    """Perceptual hashes of the sources' photos, read as the candidates' raw.png; an unreadable one is left out."""
    import numpy as np

    from generation.artifacts import decode_png
    from generation.masking.postprocess import perceptual_hash
    from review.folder_cache import measured_folders

    def measure(folder: str) -> tuple[int, int] | None:
        try:
            photo = decode_png(Path(workspace.path(f"{folder}/raw.png")).read_bytes())
            return int(perceptual_hash(photo), 16), 1
        except (OSError, ValueError):  # missing, damaged, or no photo at all
            return None

    folders = sorted(folder_of.items())
    found = measured_folders(
        workspace.root / SOURCE_HASHES, folders, measure, np.zeros(2, np.uint64), progress, "Reading photos"
    )
    return {source_id: photo for (source_id, _), (photo, known) in zip(folders, found.tolist(), strict=True) if known}
