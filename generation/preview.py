"""One source through the whole pipeline, every intermediate kept to look at, nothing recorded."""

from __future__ import annotations

from dataclasses import asdict

import cv2
import numpy as np

from db.models import SourceImage, State
from db.queries import class_names
from db.workspace import Workspace
from generation.artifacts import PREVIEWS, encode_png, write_folder
from generation.backends import Backends
from generation.masking.postprocess import area_share
from generation.recipe import RecipeOptions, canonical_hash
from generation.steps import Steps, Work, guarded

BOX_COLOUR = (255, 176, 0)


class UnknownSource(LookupError):
    """There is no source of that number."""


def preview(workspace: Workspace, options: RecipeOptions, source_id: int, backends: Backends) -> dict:
    """Try the recipe on one source.

    Returns the preview's key, the state and reason it would end in, scores, areas, boxes and seconds by
    stage; values that were not reached are None. The images that exist lie in ``previews/<key>/``: raw,
    boxes, mask, dilated and result, each a PNG.
    """
    with workspace.read() as session:
        source = session.get(SourceImage, source_id)
        if source is None:
            raise UnknownSource(f"There is no source {source_id}; choose one from the Sources page.")
        names = class_names(session)
        session.expunge_all()
    item = Work(source, names[source.class_index])
    steps = Steps(workspace, options, backends)
    for name in ("decode", "mask", "inpaint", "score"):
        guarded(name, getattr(steps, name))([item])
    if item.open:
        item.end(State.CANDIDATE)
    recipe_hash, _ = backends.recipe(options)
    key = canonical_hash({"recipe": recipe_hash, "source": source.sha256, "class_index": source.class_index})
    images = {"raw": item.raw, "mask": item.mask, "dilated": item.dilated, "result": item.result}
    if item.raw is not None and item.boxes:
        images["boxes"] = _draw_boxes(item)
    files = {f"{name}.png": encode_png(array) for name, array in images.items() if array is not None}
    write_folder(workspace.path(f"{PREVIEWS}/{key}"), files, {"state": item.state.value})
    return {
        "key": key,
        "images": sorted(files),
        "state": item.state.value,
        "reason": item.reason,
        "drop": item.score.drop if item.score else None,
        "residual": item.score.residual if item.score else None,
        "rank": item.score.rank if item.score else None,
        "probability": item.score.probability if item.score else None,
        "top5": [names[index] for index in item.score.top5] if item.score else [],
        "residual_boxes": None if item.residual_boxes is None else [asdict(box) for box in item.residual_boxes],
        "area": None if item.mask is None else area_share(item.mask),
        "dilated_area": None if item.dilated is None else area_share(item.dilated),
        "boxes": [asdict(box) for box in item.boxes],
        "notes": item.notes,
        "timings": item.timings,
    }


def _draw_boxes(item: Work) -> np.ndarray:
    drawn = np.ascontiguousarray(item.raw).copy()
    for box in item.boxes:
        corners = [(round(box.x0), round(box.y0)), (round(box.x1), round(box.y1))]
        cv2.rectangle(drawn, *corners, BOX_COLOUR, thickness=max(1, drawn.shape[1] // 150))
    return drawn
