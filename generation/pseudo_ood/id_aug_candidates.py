"""Id_aug candidates: the object of a few-shot photo on another class's background, on a texture, or on noise.

A pass goes through the images with one option. Waves of as many images as are still wanted get a background
each, all composites of a round go through the encoder in batches, and those too unlike their photo are tried
again on another background, as often as the options say. What is drawn depends on the seed, the photos and what
was kept before, never on batches or on where a killed run stopped.
"""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import delete
from sqlalchemy.orm import Session

from db.models import Kind, Outcome, Recipe
from db.progress import NoProgress, Progress
from db.training_queries import TrainingData, recipes_made_with, training_candidates
from db.workspace import Workspace
from generation.artifacts import MODEL_CACHE, remove_stale_parts
from generation.protocols import Scorer
from generation.pseudo_ood.id_aug_options import TEXTURE_OPTION, IdAugOptions, IdAugResult
from generation.pseudo_ood.id_aug_run import IdAugRun
from generation.pseudo_ood.models import Similarity, load_scorer, load_similarity
from generation.pseudo_ood.recipes import background_recipe, ensure_recipe, find_recipe
from generation.recipe import canonical_hash


class NothingToAugment(RuntimeError):
    """The few-shot set has no image with a usable mask, or no backgrounds to set one on."""


@dataclass(frozen=True)
class IdAugModels:
    similarity: Similarity
    scorer: Scorer


def load_id_aug_models(recipe: Recipe, workspace: Workspace, *, normalise: bool = False) -> IdAugModels:
    """The scorer that judged the background candidates of ``recipe``, and its image tower for the similarity."""
    name = recipe.config["options"]["scorer"]
    return IdAugModels(load_similarity(name, normalise=normalise), load_scorer(name, workspace.root / MODEL_CACHE))


def make_id_augs(
    workspace: Workspace,
    options: IdAugOptions,
    fewshot_set_id: int,
    *,
    recipe_prefix: str | None = None,
    texture_prefix: str | None = None,
    redo_failed: bool = False,
    normalise: bool = False,
    progress: Progress | None = None,
    models: IdAugModels | None = None,
) -> IdAugResult:
    """Make the id_aug candidates of a few-shot set, from its own photos, backgrounds and textures alone.

    ``recipe_prefix`` names the background recipe (None: the active one), ``texture_prefix`` the texture recipe
    (None: the newest made with it). The recipe of the id_augs covers which backgrounds and textures there were to
    draw from: after a new verdict or texture, the same call begins a new set. Raises
    :class:`NothingToAugment`, the errors of :func:`db.training_queries.training_candidates`,
    :class:`db.progress.Cancelled` and :class:`generation.pipeline.GenerationStopped`; what is finished by
    then is committed, and the same call goes on from there.
    """
    progress = progress or NoProgress()
    with workspace.read() as session:
        base = background_recipe(session, recipe_prefix)
        textures = _texture_recipe(session, options, base, texture_prefix)
        data = training_candidates(
            session,
            fewshot_set_id,
            background_recipe_id=base.id,
            texture_recipe_id=None if textures is None else textures.id,
            min_drop=options.min_drop,
        )
    _check_pools(options, data)
    if models is None:
        progress.update(0, None, "Loading the models")
        models = load_id_aug_models(base, workspace, normalise=normalise)
    backends = {"similarity": dict(models.similarity.fingerprint()), "scorer": dict(models.scorer.fingerprint())}
    drawn_from = sorted(row.candidate.folder for row in (*data.backgrounds, *data.textures))
    described = {
        "background_recipe": base.hash,
        "texture_recipe": None if textures is None else textures.hash,
        "fewshot_set": data.fewshot_set.content_hash,
        "drawn_from": canonical_hash(drawn_from),
        **options.to_json(),
    }
    recipe = ensure_recipe(workspace, Kind.ID_AUG, described, backends)
    remove_stale_parts(workspace.root)
    if redo_failed:
        with workspace.write() as session:
            session.execute(delete(Outcome).where(Outcome.recipe_id == recipe.id))
    run = IdAugRun(workspace, options, data, recipe, models.similarity, models.scorer, progress)
    if not run.is_finished():
        run.run()
    return run.result()


def _texture_recipe(session: Session, options: IdAugOptions, base: Recipe, prefix: str | None) -> Recipe | None:
    if all(plan.option != TEXTURE_OPTION for plan in options.plans):
        return None
    if prefix:
        return find_recipe(session, prefix, Kind.TEXTURE)
    made = recipes_made_with(session, Kind.TEXTURE, background_recipe=base.hash)
    if not made:
        raise NothingToAugment(
            f"Option 2 needs texture candidates, and none were made under recipe {base.hash[:12]}: run "
            "`launch.py texture` first, or leave the option out (`--options 1,3`)."
        )
    return made[0]


def _check_pools(options: IdAugOptions, data: TrainingData) -> None:
    if not data.backgrounds:
        raise NothingToAugment(
            f"No photo of few-shot set {data.fewshot_set.id} has a background candidate that is accepted or has a "
            f"drop above {options.min_drop:g}, so no mask is to be trusted: generate, or review, first."
        )
    if any(plan.option == TEXTURE_OPTION for plan in options.plans) and not data.textures:
        raise NothingToAugment("The photos of the set have no texture candidates: run `launch.py texture` first.")
