"""Which train sources get textures, and which of them still lack theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from sqlalchemy import Select, delete, select

from db.models import Candidate, Outcome, Recipe, SourceImage, Split, State
from db.queries import class_names
from db.training_guard import in_set
from db.training_queries import newest_backgrounds
from db.workspace import Workspace
from generation.pseudo_ood.committing import TrainingWork

PAGE = 500


@dataclass(frozen=True)
class TextureSelection:
    """Which train sources: those of a few-shot set, or (None) all; at most ``limit`` now; failed ones again or not."""

    fewshot_set_id: int | None = None
    limit: int | None = None
    redo_failed: bool = False


def source_ids(selection: TextureSelection) -> Select:
    """The ids of the selected sources, train ones only whatever the selection says."""
    query = select(SourceImage.id).where(SourceImage.split == Split.TRAIN)
    if selection.fewshot_set_id is None:
        return query
    return query.where(SourceImage.id.in_(in_set(selection.fewshot_set_id)))


def selected_backgrounds(base: Recipe, selection: TextureSelection) -> Select:
    """The newest background candidate of each selected source that has one."""
    return newest_backgrounds(base.id).where(Candidate.source_id.in_(source_ids(selection)))


def pending_backgrounds(base: Recipe, recipe: Recipe, selection: TextureSelection) -> Select:
    """Those of them from which nothing was made yet, or only before their mask was corrected."""
    done = select(Outcome).where(
        Outcome.recipe_id == recipe.id,
        Outcome.source_id == Candidate.source_id,
        Outcome.finished_at >= Candidate.created_at,
    )
    return selected_backgrounds(base, selection).where(~done.exists())


def pending_items(
    workspace: Workspace, base: Recipe, recipe: Recipe, selection: TextureSelection
) -> Iterator[TrainingWork]:
    """What is pending by source id, a page at a time, so that no transaction stays open during the run."""
    left = selection.limit
    last_id = 0
    with workspace.read() as session:
        names = class_names(session)
    while left is None or left > 0:
        query = pending_backgrounds(base, recipe, selection).where(Candidate.source_id > last_id)
        query = query.order_by(Candidate.source_id).limit(PAGE if left is None else min(PAGE, left))
        with workspace.read() as session:
            page = list(session.scalars(query))
            photos = select(SourceImage).where(SourceImage.id.in_([one.source_id for one in page]))
            sources = {one.id: one for one in session.scalars(photos)}
            session.expunge_all()
        if not page:
            return
        for background in page:
            source = sources[background.source_id]
            yield TrainingWork(source, names[source.class_index], background=background)
        last_id = page[-1].source_id
        left = None if left is None else left - len(page)


def forget_failures(workspace: Workspace, recipe: Recipe, selection: TextureSelection) -> None:
    mine = (Outcome.recipe_id == recipe.id) & Outcome.source_id.in_(source_ids(selection))
    with workspace.write() as session:
        session.execute(delete(Outcome).where(mine, Outcome.state == State.FAILED))
