"""A candidate made again with a mask that a person corrected: a new version, its lineage kept.

The new version lies beside the old one, which keeps its files and its decisions. It is made by the recipe's own
inpainter and scorer; the recipe's second look is left out, for it would enlarge the mask that a person has drawn.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Candidate, Kind, Outcome, Recipe, SourceImage, State
from db.queries import class_names, is_imported
from db.workspace import Workspace
from generation.artifacts import decode_png, pixels_sha256
from generation.backends import Backends
from generation.protocols import Box
from generation.recipe import RecipeOptions
from generation.steps import Steps, Work, guarded


class CorrectionRefused(ValueError):
    """A mask or a candidate that cannot be made again from; the message says why and what to do."""


@dataclass(frozen=True)
class Corrected:
    """The new version's id, its number, and the version it was made from."""

    candidate_id: int
    version: int
    parent_id: int


def recipe_options(workspace: Workspace, candidate_id: int) -> RecipeOptions:
    """The options of the recipe a candidate was made by, whose backends a correction needs."""
    with workspace.read() as session:
        candidate = _newest(session, candidate_id)
        return RecipeOptions.from_dict(session.get_one(Recipe, candidate.recipe_id).config["options"])


def correct_mask(
    workspace: Workspace, candidate_id: int, mask: np.ndarray, backends: Backends, *, corrected_by: str
) -> Corrected:
    """Inpaint and score the candidate's photo again with ``mask`` (``HxW uint8``, above 50 = object).

    Raises :class:`CorrectionRefused` for a candidate that is not the newest version of a background, a mask of another
    size, an empty one, one that changes nothing or covers too much, and for backends that are not the recipe's.
    """
    with workspace.read() as session:
        candidate = _newest(session, candidate_id)
        recipe = session.get_one(Recipe, candidate.recipe_id)
        source = session.get_one(SourceImage, candidate.source_id)
        name = class_names(session)[candidate.class_index]
        session.expunge_all()
    options = RecipeOptions.from_dict(recipe.config["options"])
    if backends.recipe(options)[0] != recipe.hash:
        raise CorrectionRefused(
            f"Recipe {recipe.hash[:12]} was made with other models than the ones here; put its weights back "
            "(`launch.py weights verify`), then try again."
        )
    folder = workspace.path(candidate.folder)
    raw = decode_png((folder / "raw.png").read_bytes())
    if mask.shape != raw.shape[:2]:
        raise CorrectionRefused(
            f"The mask is {mask.shape[1]}x{mask.shape[0]}, the image {raw.shape[1]}x{raw.shape[0]}."
        )
    item = Work(source, name, raw=raw, raw_sha256=pixels_sha256(raw), boxes=_boxes(candidate.boxes))
    steps = Steps(workspace, replace(options, second_look=False), backends)
    steps.take_mask(item, mask)
    if not item.open:
        raise CorrectionRefused(item.reason)
    if np.array_equal(item.mask, decode_png((folder / "mask.png").read_bytes())):
        raise CorrectionRefused("The mask is the one there was; change it, then make the image again.")
    item.notes["mask"] = "corrected by hand"
    for step in ("inpaint", "score", "write"):
        guarded(step, getattr(steps, step))([item])
        if item.state is State.FAILED:
            raise CorrectionRefused(item.reason)
    return _record(workspace, candidate, steps.candidate_row(item, recipe.id), corrected_by)


def _newest(session: Session, candidate_id: int) -> Candidate:
    candidate = session.get(Candidate, candidate_id)
    if candidate is None:
        raise CorrectionRefused(f"There is no candidate {candidate_id}; reload the page.")
    if candidate.kind is not Kind.BACKGROUND:
        raise CorrectionRefused("Only backgrounds have a mask to correct.")
    if is_imported(session.get_one(Recipe, candidate.recipe_id)):
        raise CorrectionRefused("This candidate came in an archive; generate its photo here to correct a mask.")
    if candidate.version != _last_version(session, candidate):
        raise CorrectionRefused("This candidate was made again meanwhile; correct the newer version.")
    return candidate


def _last_version(session: Session, candidate: Candidate) -> int:
    return session.scalar(
        select(func.max(Candidate.version)).where(
            Candidate.source_id == candidate.source_id,
            Candidate.recipe_id == candidate.recipe_id,
            Candidate.kind == candidate.kind,
            Candidate.variant == candidate.variant,
        )
    )


def _record(workspace: Workspace, parent: Candidate, row: Candidate, corrected_by: str) -> Corrected:
    row.parent_id, row.variant, row.version = parent.id, parent.variant, parent.version + 1
    row.details = {"corrected_by": corrected_by}
    with workspace.write() as session:
        if _last_version(session, parent) != parent.version:
            raise CorrectionRefused("This candidate was made again meanwhile; correct the newer version.")
        session.add(row)
        session.flush()
        outcome = session.get(Outcome, (parent.source_id, parent.recipe_id))
        if outcome is not None:
            outcome.candidate_id = row.id
        return Corrected(row.id, row.version, parent.id)


def _boxes(stored: list[dict]) -> tuple[Box, ...]:
    return tuple(Box(**box) for box in stored)
