"""Jobs that make pixels: import, generate, preview."""

from __future__ import annotations

from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from db.progress import Progress
from db.workspace import Workspace

if TYPE_CHECKING:
    from generation.backends import Backends
    from generation.passes import RunSettings
    from generation.recipe import RecipeOptions
    from generation.selection import Selection


def import_photos(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from db.models import Split
    from generation.sources import ImportSpec, import_images

    spec = ImportSpec(
        layout=params["layout"],
        root=Path(params["root"]) if params.get("root") else None,
        ground_truth=Path(params["ground_truth"]) if params.get("ground_truth") else None,
        split=Split(params.get("split", "val")),
    )
    return import_images(workspace, spec, progress).as_dict()


@lru_cache(maxsize=1)
def _backend_cache():
    """One set of loaded models a worker process, reused from job to job."""
    from generation.backends import BackendCache

    return BackendCache()


def load_models(
    workspace: Workspace, options: RecipeOptions, progress: Progress, *, compiled: bool = False
) -> Backends:
    from generation.artifacts import MODEL_CACHE

    progress.update(0, None, "Loading the models")
    return _backend_cache().get(options, workspace.root / MODEL_CACHE, compiled=compiled)


def generate_candidates(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """The result holds what :class:`generation.pipeline.GenerationResult` does, the recipe's hash as ``recipe``."""
    from generation.pipeline import generate
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    selection, settings = selection_of(params), settings_of(params)
    if settings.low_memory:
        _backend_cache().clear()  # what an earlier job left in memory is not to stand beside it
        backends = None
    else:
        backends = load_models(workspace, options, progress, compiled=settings.compiled)
    result = generate(workspace, options, selection, progress=progress, backends=backends, settings=settings)
    facts = asdict(result)
    return {"recipe": facts.pop("recipe_hash"), **facts}


def selection_of(params: dict) -> Selection:
    """Which sources a "generate" job takes."""
    from db.models import Split
    from generation.selection import Selection

    classes, split = params.get("classes"), params.get("split")
    return Selection(
        limit=params.get("limit"),
        classes=None if classes is None else tuple(classes),
        redo_failed=bool(params.get("redo_failed", False)),
        only_missing=bool(params.get("only_missing", False)),
        split=None if split is None else Split(split),
        fewshot_set=params.get("fewshot_set"),
    )


def settings_of(params: dict) -> RunSettings:
    """How a "generate" job uses the machine."""
    from generation.passes import RunSettings

    return RunSettings(
        low_memory=bool(params.get("low_memory", False)),
        batch=params.get("batch", "auto"),
        compiled=bool(params.get("compile", False)),
    )


def preview_source(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.preview import preview
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    return preview(workspace, options, int(params["source_id"]), load_models(workspace, options, progress))
