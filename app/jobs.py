"""What each kind of job does. One function a kind, one line in :data:`JOB_KINDS`.

A handler gets the open workspace, the job's params (JSON) and a progress to tell and to be cancelled
by; it returns the JSON that is kept as the job's result. Run twice, it does only what is missing.
Models and exporters are imported inside, so the page that lists the kinds stays light.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from db.progress import Progress
from db.workspace import Workspace

if TYPE_CHECKING:
    from generation.backends import Backends
    from generation.recipe import RecipeOptions

Handler = Callable[[Workspace, dict, Progress], dict]


class UnknownJobKind(LookupError):
    """The job was written by another version of this code."""


def _import(workspace: Workspace, params: dict, progress: Progress) -> dict:
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


def _load(workspace: Workspace, options: RecipeOptions, progress: Progress) -> Backends:
    from generation.artifacts import MODEL_CACHE

    progress.update(0, None, "Loading the models")
    return _backend_cache().get(options, workspace.root / MODEL_CACHE)


def _generate(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.pipeline import Selection, generate
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    classes = params.get("classes")
    selection = Selection(
        limit=params.get("limit"),
        classes=None if classes is None else tuple(classes),
        redo_failed=bool(params.get("redo_failed", False)),
    )
    result = generate(workspace, options, selection, progress=progress, backends=_load(workspace, options, progress))
    return {
        "recipe": result.recipe_hash,
        "states": result.states,
        "made": result.made,
        "busy_seconds": result.busy_seconds,
    }


def _preview(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.preview import preview
    from generation.recipe import RecipeOptions

    options = RecipeOptions.from_dict(params["options"])
    return preview(workspace, options, int(params["source_id"]), _load(workspace, options, progress))


def _export(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from exports.registry import export_build

    result = export_build(workspace, params["build"], params["format"], Path(params["out"]), progress)
    return {"path": str(result.path), "sha256": result.sha256, "images": result.images, "bytes": result.bytes}


JOB_KINDS: dict[str, Handler] = {
    "import": _import,
    "generate": _generate,
    "preview": _preview,
    "export": _export,
}


def find_handler(kind: str) -> Handler:
    """The handler of that kind, or :class:`UnknownJobKind`."""
    try:
        return JOB_KINDS[kind]
    except KeyError:
        raise UnknownJobKind(f"This version does not know jobs of kind {kind!r}; update the code.") from None
