"""What the shape of a candidate's mask says: a ragged, many-pieced mask, or one that runs into the border, often
misses a part of the object."""

from __future__ import annotations

import numpy as np

from db.progress import Progress
from db.workspace import Workspace
from review.folder_cache import measured_folders

SHAPE_NAMES = ("solidity", "components", "edge_contact")
CACHE = "cache/triage"
MASK_NAME = "mask.png"


def mask_shape(mask: np.ndarray) -> tuple[float, float, float]:
    """Solidity, components and edge contact of an ``HxW uint8`` mask; any non-zero pixel is object.

    Solidity is the object's pixels over those of its convex hull, 0 to 1; components are counted 8-connected;
    edge contact is the share of the image's border pixels that are object. Solidity is NaN for an empty mask.
    """
    import cv2

    objects = (mask != 0).astype(np.uint8)
    border = np.concatenate([objects[0], objects[-1], objects[1:-1, 0], objects[1:-1, -1]])
    points = cv2.findNonZero(objects)
    if points is None:
        return float("nan"), 0.0, 0.0
    hull = cv2.fillConvexPoly(np.zeros_like(objects), cv2.convexHull(points), 1)
    components = cv2.connectedComponents(objects, connectivity=8)[0] - 1
    return float(objects.sum() / hull.sum()), float(components), float(border.mean())


def measure_shapes(
    workspace: Workspace, recipe_id: int, candidates: list[tuple[int, str]], progress: Progress
) -> np.ndarray:
    """``float64 [n, 3]`` in the order of ``candidates`` (id, folder): the columns of :data:`SHAPE_NAMES`.

    A row is NaN where the mask's file is missing or unreadable.
    """
    return measured_folders(
        workspace.root / CACHE / f"shapes-{recipe_id}.npz",
        candidates,
        lambda folder: _measure(workspace, folder),
        np.full(len(SHAPE_NAMES), np.nan),
        progress,
        "Measuring masks",
    )


def _measure(workspace: Workspace, folder: str) -> tuple[float, float, float] | None:
    from PIL import Image

    try:
        with Image.open(workspace.path(f"{folder}/{MASK_NAME}"), formats=["PNG"]) as image:
            return mask_shape(np.asarray(image.convert("L")))
    except (OSError, ValueError):  # Pillow's own errors for bad files are among these
        return None
