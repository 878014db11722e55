"""Recipes of texture and id_aug candidates: kept beside the background recipes, never the active one."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Kind, Recipe
from db.queries import active_recipe, is_imported
from db.workspace import Workspace
from generation.recipe import RECIPE_FORMAT, canonical_hash

SHORTEST_PREFIX = 4


class UnknownRecipe(LookupError):
    """No recipe, or more than one, fits what was asked for; the message says what to do."""


def find_recipe(session: Session, prefix: str, kind: Kind) -> Recipe:
    """The recipe of that kind whose hash begins so. Raises :class:`UnknownRecipe`."""
    if len(prefix) < SHORTEST_PREFIX or not prefix.isalnum():
        raise UnknownRecipe(f"Name a recipe by the first {SHORTEST_PREFIX} or more digits of its hash, not {prefix!r}.")
    found = [one for one in session.scalars(select(Recipe).where(Recipe.hash.startswith(prefix))) if _is_of(one, kind)]
    if len(found) != 1:
        count = "no" if not found else "more than one"
        raise UnknownRecipe(f"There is {count} {kind} recipe whose hash begins with {prefix!r}.")
    return found[0]


def background_recipe(session: Session, prefix: str | None = None) -> Recipe:
    """The background recipe whose hash begins so, or the active one. Raises :class:`UnknownRecipe`."""
    if prefix:
        return find_recipe(session, prefix, Kind.BACKGROUND)
    recipe = active_recipe(session)
    if recipe is None:
        raise UnknownRecipe("Nothing was generated yet: run `launch.py generate` on the train sources first.")
    if is_imported(recipe):
        raise UnknownRecipe("The active recipe came in an archive; name the one that made the backgrounds here.")
    return recipe


def _is_of(recipe: Recipe, kind: Kind) -> bool:
    return recipe.config.get("kind", str(Kind.BACKGROUND)) == str(kind)


def ensure_recipe(workspace: Workspace, kind: Kind, options: dict, backends: dict) -> Recipe:
    """The stored recipe of these options and fingerprints, made if new. The active recipe stays what it was."""
    config = {"format": RECIPE_FORMAT, "kind": str(kind), "options": options, "backends": backends}
    recipe_hash = canonical_hash(config)
    with workspace.write() as session:
        recipe = session.scalar(select(Recipe).where(Recipe.hash == recipe_hash))
        if recipe is None:
            recipe = Recipe(hash=recipe_hash, config=config)
            session.add(recipe)
            session.flush()
    return recipe
