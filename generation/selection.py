"""Which sources a run takes, and how they come to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from sqlalchemy import Select, delete, select

from db.models import Candidate, Kind, Outcome, Recipe, SourceImage, Split, State
from db.queries import class_names
from db.training_guard import fewshot_set, in_set
from db.workspace import Workspace
from generation.work import Work

PAGE = 500


class SelectionError(ValueError):
    """A selection that cannot be meant; the message names the field."""


@dataclass(frozen=True)
class Selection:
    """Which pending sources a run takes.

    At most ``limit`` (from 1), of these ``classes`` (indices), of this ``split`` and of the few-shot set with the
    number ``fewshot_set``. ``redo_failed``: those that failed under the recipe, too. ``only_missing``: only those
    without a background candidate under *any* recipe, so that another recipe takes up what the first ones could not.
    Raises :class:`SelectionError`.
    """

    limit: int | None = None
    classes: tuple[int, ...] | None = None
    redo_failed: bool = False
    only_missing: bool = False
    split: Split | None = None
    fewshot_set: int | None = None

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise SelectionError(f"limit must be at least 1, not {self.limit}.")
        if self.fewshot_set is not None and self.split is Split.VAL:
            raise SelectionError("A few-shot set holds train sources only; leave split val or fewshot_set out.")


def select_sources(workspace: Workspace, recipe: Recipe, selection: Selection) -> list[int]:
    """The ids of the sources to take, ascending; failed ones that are to be done again become pending.

    Raises :class:`db.training_guard.UnknownFewShotSet`.
    """
    with workspace.read() as session:
        if selection.fewshot_set is not None:
            fewshot_set(session, selection.fewshot_set)
        ids = list(session.scalars(_query(recipe.id, selection)))
    if selection.redo_failed:
        _forget_failures(workspace, recipe, ids)
    return ids


def pending_work(
    workspace: Workspace, recipe: Recipe, ids: list[int], timings: Mapping[int, dict[str, float]]
) -> Iterator[Work]:
    """These sources in order, but for those that have reached a state meanwhile.

    A page at a time, so that no transaction stays open during the run. ``timings`` is what earlier passes took.
    """
    with workspace.read() as session:
        names = class_names(session)
    for start in range(0, len(ids), PAGE):
        page = ids[start : start + PAGE]
        ended = select(Outcome.source_id).where(Outcome.recipe_id == recipe.id, Outcome.source_id.in_(page))
        query = select(SourceImage).where(SourceImage.id.in_(page), SourceImage.id.not_in(ended))
        with workspace.read() as session:
            sources = list(session.scalars(query.order_by(SourceImage.id)))
            session.expunge_all()
        for source in sources:
            yield Work(source, names[source.class_index], timings=dict(timings.get(source.id, {})))


def _query(recipe_id: int, selection: Selection) -> Select:
    ended = select(Outcome.source_id).where(Outcome.recipe_id == recipe_id)
    if selection.redo_failed:
        ended = ended.where(Outcome.state != State.FAILED)
    query = select(SourceImage.id).where(SourceImage.id.not_in(ended)).order_by(SourceImage.id)
    if selection.classes is not None:
        query = query.where(SourceImage.class_index.in_(selection.classes))
    if selection.split is not None:
        query = query.where(SourceImage.split == selection.split)
    if selection.fewshot_set is not None:
        query = query.where(SourceImage.id.in_(in_set(selection.fewshot_set)))
    if selection.only_missing:
        made = (
            select(Outcome.source_id)
            .join(Candidate, Candidate.id == Outcome.candidate_id)
            .where(Outcome.state == State.CANDIDATE, Candidate.kind == Kind.BACKGROUND)
        )
        query = query.where(SourceImage.id.not_in(made))
    return query.limit(selection.limit)


def _forget_failures(workspace: Workspace, recipe: Recipe, ids: list[int]) -> None:
    failed = delete(Outcome).where(Outcome.recipe_id == recipe.id, Outcome.state == State.FAILED)
    with workspace.write() as session:
        for start in range(0, len(ids), PAGE):
            session.execute(failed.where(Outcome.source_id.in_(ids[start : start + PAGE])))
