"""ID augmentation: the labelled object of a few-shot image set on another background. numpy and Pillow only."""

from __future__ import annotations

import re
from pathlib import PurePath

import numpy as np
from PIL import Image

from generation.masking.postprocess import GREY_THRESHOLD

MIN_OBJECT_AREA = 0.5
MIN_SIMILARITY = 0.7

_SCORED_NAME = re.compile(r"[^_]+_[^_]+_(?P<score>[+-]?\d+(?:\.\d+)?(?:e[+-]?\d+)?)")


def _object(mask: np.ndarray, as_published: bool) -> np.ndarray:
    return mask > (0 if as_published else GREY_THRESHOLD)


def object_area(mask: np.ndarray, *, as_published: bool = False) -> float:
    """The object's share of an ``HxW uint8`` mask, 0 to 1; grey above 50 counts, ``as_published`` above 0.

    Images below ``MIN_OBJECT_AREA`` are not augmented: most of a small object's picture would be foreign.
    """
    return np.count_nonzero(_object(mask, as_published)) / mask.size


def on_background(
    image: np.ndarray, mask: np.ndarray, background: np.ndarray, *, as_published: bool = False
) -> np.ndarray:
    """``image`` where ``mask`` has the object, the background elsewhere: a new ``HxWx3 uint8``.

    The background may have any size; it is resized with Pillow's bicubic. The object is grey above 50, as in
    training; ``as_published`` takes every non-zero grey. ValueError when image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"Sizes differ: image {image.shape}, mask {mask.shape}.")
    height, width = mask.shape
    # In RGBA, as published: an opaque alpha channel leaves the colours' rounding to Pillow's premultiplied path.
    resized = Image.fromarray(background).convert("RGBA").resize((width, height), Image.Resampling.BICUBIC)
    return np.where(_object(mask, as_published)[:, :, None], image, np.asarray(resized.convert("RGB")))


def score_in_name(name: str) -> float | None:
    """The score in a published file name ``<wnid>_<id>_<score>.JPEG``, whole; None where the name has none.

    The published parser takes the image's id for a score and drops what follows the point.
    """
    match = _SCORED_NAME.fullmatch(PurePath(name).stem)
    return float(match["score"]) if match else None
