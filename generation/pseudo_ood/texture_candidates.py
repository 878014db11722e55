"""Texture candidates: a 32x32 cell of the object is kept, everything else is inpainted from it.

Pseudo-OOD with the object's own texture and nothing of its shape. Each train source that has a background
candidate gives one image, or several from different cells; the cell is drawn by a generator of its own, seeded
with the run's seed and the photo's bytes, so no source's draw depends on another's.
"""

from __future__ import annotations

import os
from contextlib import closing
from dataclasses import asdict, dataclass

import numpy as np
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from db.models import Candidate, Kind, Outcome, Recipe, State
from db.progress import NoProgress, Progress
from db.training_guard import fewshot_sources
from db.training_queries import LOW, TOP
from db.workspace import Workspace
from generation.artifacts import MODEL_CACHE, candidate_folder, decode_png, read_manifest, remove_stale_parts
from generation.masking.postprocess import composite
from generation.protocols import Inpainter, Scorer
from generation.pseudo_ood.committing import Committer, CommonSteps, TrainingWork, Variant, outcome_of
from generation.pseudo_ood.models import load_inpainter, load_scorer
from generation.pseudo_ood.recipes import background_recipe, ensure_recipe
from generation.pseudo_ood.texture_selection import (
    TextureSelection,
    forget_failures,
    pending_backgrounds,
    pending_items,
    selected_backgrounds,
    source_ids,
)
from generation.recipe import RecipeError
from generation.steps import guarded
from generation.streaming import Stage, stream
from generation.texture import CELL, draw_cell, hole_around_cell

MAX_COPIES = 49
NO_CELL = "No 32x32 cell lies wholly on the object."


class NothingToGrowFrom(RuntimeError):
    """No train source has a background candidate, and so none has a mask."""


@dataclass(frozen=True)
class TextureOptions:
    """What decides a texture. ``copies`` images a source, each from another cell, fewer where there are fewer cells.

    ``split_drop`` turns on the published split of the textures in two: "top" with a drop above it, "low" at or
    below it, of which training takes the top. None: no split.
    """

    seed: int = 1
    copies: int = 1
    split_drop: float | None = None

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise RecipeError(f"seed must be 0 or more, not {self.seed}.")
        if not 1 <= self.copies <= MAX_COPIES:
            raise RecipeError(f"copies must be 1 to {MAX_COPIES}, not {self.copies}.")


@dataclass(frozen=True)
class TextureModels:
    inpainter: Inpainter
    scorer: Scorer


@dataclass(frozen=True)
class TextureResult:
    """``made`` sources reached a state in this run; the rest counts all selected sources and their textures.

    ``pending`` have a background candidate and no texture yet, ``without_background`` nothing to grow from.
    """

    recipe_hash: str
    made: int
    sources: int
    textures: int
    low: int
    without_cell: int
    failed: int
    pending: int
    without_background: int


def load_texture_models(recipe: Recipe, workspace: Workspace) -> TextureModels:
    """The inpainter and the scorer that made the background candidates of ``recipe``."""
    options = recipe.config["options"]
    return TextureModels(
        load_inpainter(options["inpainter"]), load_scorer(options["scorer"], workspace.root / MODEL_CACHE)
    )


def make_textures(
    workspace: Workspace,
    options: TextureOptions,
    selection: TextureSelection | None = None,
    *,
    recipe_prefix: str | None = None,
    progress: Progress | None = None,
    models: TextureModels | None = None,
) -> TextureResult:
    """Make the texture candidates of every selected source that has none yet.

    ``recipe_prefix`` names the background recipe whose masks are used (None: the active one). A source whose
    mask was corrected since is done anew, as a further version. Raises
    :class:`~generation.pseudo_ood.recipes.UnknownRecipe`, :class:`~db.training_guard.ValInTraining`,
    :class:`NothingToGrowFrom`, :class:`db.progress.Cancelled` and :class:`generation.pipeline.GenerationStopped`;
    what is finished by then is committed.
    """
    progress = progress or NoProgress()
    selection = selection or TextureSelection()
    with workspace.read() as session:
        base = background_recipe(session, recipe_prefix)
        if selection.fewshot_set_id is not None:
            fewshot_sources(session, selection.fewshot_set_id)
        if not session.scalar(select(selected_backgrounds(base, selection).exists())):
            raise NothingToGrowFrom(
                f"No train source of the selection has a background candidate under recipe {base.hash[:12]}: "
                "run `launch.py generate` on them first."
            )
    if models is None:
        progress.update(0, None, "Loading the models")
        models = load_texture_models(base, workspace)
    backends = {"inpainter": dict(models.inpainter.fingerprint()), "scorer": dict(models.scorer.fingerprint())}
    described = {"background_recipe": base.hash, "cell_size": CELL, **asdict(options)}
    recipe = ensure_recipe(workspace, Kind.TEXTURE, described, backends)
    remove_stale_parts(workspace.root)
    if selection.redo_failed:
        forget_failures(workspace, recipe, selection)
    made = _run(workspace, options, selection, base, recipe, models, progress)
    return _result(workspace, selection, base, recipe, made)


def _run(
    workspace: Workspace,
    options: TextureOptions,
    selection: TextureSelection,
    base: Recipe,
    recipe: Recipe,
    models: TextureModels,
    progress: Progress,
) -> int:
    with workspace.read() as session:
        total = session.scalar(
            select(func.count()).select_from(pending_backgrounds(base, recipe, selection).subquery())
        )
    total = total if selection.limit is None else min(total, selection.limit)
    steps = _TextureSteps(workspace, options, models)
    committer = Committer(workspace, recipe.id)
    textures, done = 0, 0
    progress.update(0, total, f"{total} sources to do")
    try:
        with closing(stream(pending_items(workspace, base, recipe, selection), steps.stages())) as finished:
            for item in finished:
                rows = steps.rows(item, recipe.id) if item.state is State.CANDIDATE else []
                committer.add(rows, outcome_of(item, recipe.id))
                item.forget_pixels()
                done += 1
                textures += len(rows)
                if item.state is State.FAILED:
                    progress.log(f"{item.source.name}: {item.reason}")
                committer.check_failures(item)
                progress.update(done, total, f"{textures} textures")
    finally:
        committer.flush()
    return done


class _TextureSteps(CommonSteps):
    def __init__(self, workspace: Workspace, options: TextureOptions, models: TextureModels) -> None:
        super().__init__(workspace, Kind.TEXTURE, models.scorer)
        self._options = options
        self._inpainter = models.inpainter
        self._inpainter_fingerprint = dict(models.inpainter.fingerprint())

    def stages(self) -> list[Stage[TrainingWork]]:
        workers = max(2, min(8, os.cpu_count() or 2))
        return [
            Stage("load", guarded("load", self.load), workers=workers),
            Stage("draw", guarded("draw", self.draw), workers=workers),
            Stage("inpaint", guarded("inpaint", self.inpaint), batch=8),
            Stage("score", guarded("score", self.score), batch=8),
            Stage("write", guarded("write", self.write), workers=workers),
        ]

    def draw(self, items: list[TrainingWork]) -> None:
        """Choose the cells; what an earlier run has painted from the same cell is read, not painted again."""
        for item in items:
            for cell in self._cells(item):
                hole = hole_around_cell(cell, item.mask.shape)
                details = {"cell": cell, "mask_candidate_id": item.background.id}
                variant = Variant(len(item.variants), details, hole)
                variant.key = self.variant_key(item, cell=cell, inpainter=self._inpainter_fingerprint)
                self._find_on_disk(variant)
                item.variants.append(variant)
            if not item.variants:
                item.end(State.MASK_TOO_SMALL, NO_CELL)

    def _cells(self, item: TrainingWork) -> list[int]:
        rng = np.random.default_rng([self._options.seed, int(item.source.sha256, 16)])
        cells: list[int] = []
        while len(cells) < self._options.copies and (cell := draw_cell(item.mask, rng, cells)) is not None:
            cells.append(cell)
        return cells

    def _find_on_disk(self, variant: Variant) -> None:
        folder = self.workspace.path(candidate_folder(variant.key))
        manifest = read_manifest(folder)
        if manifest is not None:
            variant.manifest = manifest
            variant.notes = manifest["notes"]
            variant.result = decode_png((folder / "result.png").read_bytes())

    def inpaint(self, items: list[TrainingWork]) -> None:
        todo = [(item, one) for item in items for one in item.variants if one.result is None]
        if not todo:
            return
        answers = self._inpainter.inpaint([item.raw for item, _ in todo], [one.replaced for _, one in todo])
        for (item, one), answer in zip(todo, answers, strict=True):
            one.result = composite(item.raw, answer.image, one.replaced)
            one.notes = dict(answer.notes)

    def score(self, items: list[TrainingWork]) -> None:
        super().score(items)
        if self._options.split_drop is not None:
            for one in (variant for item in items for variant in item.variants):
                one.details["part"] = TOP if one.score.drop > self._options.split_drop else LOW


def _count(session: Session, query: Select) -> int:
    return session.scalar(select(func.count()).select_from(query.subquery())) or 0


def _result(
    workspace: Workspace, selection: TextureSelection, base: Recipe, recipe: Recipe, made: int
) -> TextureResult:
    ids = source_ids(selection)
    outcomes = select(Outcome.source_id).where(Outcome.recipe_id == recipe.id, Outcome.source_id.in_(ids))
    masks = selected_backgrounds(base, selection).with_only_columns(Candidate.id).subquery()
    textures = select(Candidate.id).where(
        Candidate.recipe_id == recipe.id,
        Candidate.details["mask_candidate_id"].as_integer().in_(select(masks.c.id)),
    )
    with workspace.read() as session:
        sources = _count(session, ids)
        return TextureResult(
            recipe.hash,
            made,
            sources=sources,
            textures=_count(session, textures),
            low=_count(session, textures.where(Candidate.details["part"].as_string() == LOW)),
            without_cell=_count(session, outcomes.where(Outcome.state == State.MASK_TOO_SMALL)),
            failed=_count(session, outcomes.where(Outcome.state == State.FAILED)),
            pending=_count(session, pending_backgrounds(base, recipe, selection)),
            without_background=sources - _count(session, select(masks)),
        )
