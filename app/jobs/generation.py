"""Jobs that make pixels: import, generate, preview."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from db.progress import Progress
from db.workspace import Workspace

if TYPE_CHECKING:
    from generation.backends import Backends
    from generation.recipe import RecipeOptions


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


def load_models(workspace: Workspace, options: RecipeOptions, progress: Progress) -> Backends:
    from generation.artifacts import MODEL_CACHE

    progress.update(0, None, "Loading the models")
    return _backend_cache().get(options, workspace.root / MODEL_CACHE)


def generate_candidates(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.pipeline import Selection, generate
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    classes = params.get("classes")
    selection = Selection(
        limit=params.get("limit"),
        classes=None if classes is None else tuple(classes),
        redo_failed=bool(params.get("redo_failed", False)),
    )
    result = generate(
        workspace, options, selection, progress=progress, backends=load_models(workspace, options, progress)
    )
    return {
        "recipe": result.recipe_hash,
        "states": result.states,
        "made": result.made,
        "busy_seconds": result.busy_seconds,
    }


def preview_source(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.preview import preview
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    return preview(workspace, options, int(params["source_id"]), load_models(workspace, options, progress))
