"""The counts and look-ups that more than one package needs, by name."""

from __future__ import annotations

from sqlalchemy import ColumnElement, Select, and_, func, select
from sqlalchemy.orm import Session, aliased

from db.models import Candidate, ImageClass, Meta, Outcome, Recipe, SourceImage, Split, State, User

ACTIVE_RECIPE = "active_recipe"
CLASS_LIST_SHA256 = "class_list_sha256"
LOCAL_USER = "local"
IMPORTED = "imported"
"""The ``kind`` in a recipe's config whose candidates came in an archive."""


def get_meta(session: Session, key: str) -> str | None:
    row = session.get(Meta, key)
    return None if row is None else row.value


def set_meta(session: Session, key: str, value: str) -> None:
    session.merge(Meta(key=key, value=value))


def active_recipe(session: Session) -> Recipe | None:
    """The recipe that pages and builds mean when none is named: the last one generation was started with."""
    recipe_id = get_meta(session, ACTIVE_RECIPE)
    return None if recipe_id is None else session.get(Recipe, int(recipe_id))


def is_imported(recipe: Recipe) -> bool:
    """True where the candidates were not made here but came in an archive."""
    return recipe.config.get("kind") == IMPORTED


def source_count(session: Session, split: Split | None = None) -> int:
    query = select(func.count()).select_from(SourceImage)
    return session.scalar(query if split is None else query.where(SourceImage.split == split)) or 0


def state_counts(session: Session, recipe: Recipe | None, split: Split | None = None) -> dict[State, int]:
    """How many sources are in each state under ``recipe``; the counts add up to the number of sources."""
    counts = dict.fromkeys(State, 0)
    if recipe is not None:
        query = select(Outcome.state, func.count()).where(Outcome.recipe_id == recipe.id).group_by(Outcome.state)
        if split is not None:
            query = query.join(SourceImage, SourceImage.id == Outcome.source_id).where(SourceImage.split == split)
        counts.update((state, count) for state, count in session.execute(query))
    counts[State.PENDING] = source_count(session, split) - sum(counts.values())
    return counts


def class_names(session: Session) -> dict[int, str]:
    return {row.class_index: row.name for row in session.scalars(select(ImageClass))}


def ensure_user(session: Session, name: str = LOCAL_USER) -> User:
    """The user of that name, made if missing. Needs a write transaction when it may be missing."""
    user = session.scalar(select(User).where(User.name == name))
    if user is None:
        user = User(name=name)
        session.add(user)
        session.flush()
    return user


def outcome_rows(session: Session) -> list[tuple[SourceImage, str, Outcome, Candidate | None]]:
    """Source, class name, outcome and candidate under the active recipe, in the order of the sources."""
    recipe = active_recipe(session)
    if recipe is None:
        return []
    query = (
        select(SourceImage, ImageClass.name, Outcome, Candidate)
        .join(Outcome, Outcome.source_id == SourceImage.id)
        .join(ImageClass, ImageClass.class_index == SourceImage.class_index)
        .outerjoin(Candidate, Candidate.id == Outcome.candidate_id)
        .where(Outcome.recipe_id == recipe.id)
        .order_by(SourceImage.id)
    )
    return [tuple(row) for row in session.execute(query)]


def is_superseded() -> ColumnElement[bool]:
    """True for the ``Candidate`` that was made again: a newer version has its source, recipe, kind and variant."""
    newer = aliased(Candidate)
    return select(1).where(_same_lineage(newer, Candidate), newer.version > Candidate.version).exists()


def superseded_ids() -> Select[tuple[int]]:
    """A query for the ids of which :func:`is_superseded` is true; quicker when all candidates are asked about."""
    older, newer = aliased(Candidate), aliased(Candidate)
    return (
        select(older.id)
        .join(newer, and_(_same_lineage(newer, older), newer.version > older.version))
        .where(newer.version > 1)
    )


def _same_lineage(one: type[Candidate], other: type[Candidate]) -> ColumnElement[bool]:
    return and_(
        one.source_id == other.source_id,
        one.recipe_id == other.recipe_id,
        one.kind == other.kind,
        one.variant == other.variant,
    )
