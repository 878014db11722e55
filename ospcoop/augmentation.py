"""The training augmentation: one square crop, one flip, for an image and its mask together, and the relabel rule.

A crop may cut the labelled object away. When too little of it is left, the image is background: its label
becomes ``C`` (pseudo-OOD) and its mask empty. Images are ``SxSx3 uint8 RGB``, masks ``SxS uint8`` (255 = object);
nothing here draws a random number except :func:`draw_crop` and :func:`draw_flip`, and no argument is changed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from PIL import Image

MASK_THRESHOLD = 50
MIN_AREA = 0.08
VISIBLE_SHARE = 0.2


@dataclass(frozen=True)
class Crop:
    """A square of ``size`` pixels with its top left corner at ``top``, ``left``."""

    top: int
    left: int
    size: int


def area_range(side: int) -> tuple[int, int]:
    """The areas a crop is drawn from, in pixels: first and one past the last (8 % to 100 % of the image)."""
    return int(MIN_AREA * side * side), side * side + 1


def crop_of_area(area: int) -> Crop:
    """The published crop: the top left square with ``round(sqrt(area))`` pixels a side."""
    return Crop(0, 0, round(math.sqrt(area)))


def draw_crop(side: int, rng: np.random.Generator, *, random_position: bool = False) -> Crop:
    """A crop of random area; ``random_position`` moves it anywhere inside instead of the published corner."""
    size = crop_of_area(int(rng.integers(*area_range(side)))).size
    if not random_position:
        return Crop(0, 0, size)
    top, left = rng.integers(0, side - size + 1, 2).tolist()
    return Crop(top, left, size)


def draw_flip(rng: np.random.Generator) -> bool:
    """Whether to flip, with a chance of one half."""
    return bool(rng.random() < 0.5)


def resized_crop(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """``pixels`` (image or mask) cut to ``crop`` and resized back to its own size, Pillow bilinear with antialias."""
    height, width = pixels.shape[:2]
    box = (crop.left, crop.top, crop.left + crop.size, crop.top + crop.size)
    return np.asarray(Image.fromarray(pixels).crop(box).resize((width, height), Image.Resampling.BILINEAR))


def threshold_mask(mask: np.ndarray) -> np.ndarray:
    """0/255: grey above 50 is object."""
    return np.where(mask > MASK_THRESHOLD, np.uint8(255), np.uint8(0))


def visible_share(mask: np.ndarray, crop: Crop | None, *, as_published: bool = False) -> float:
    """How much of the object a crop leaves, 0 to 1; 0 for a mask without an object.

    Object pixels inside the crop over all object pixels, both above 50. ``as_published`` counts the pixels
    *after* the crop was enlarged over those that are 255 before, so it can exceed 1.
    """
    if as_published:
        before = np.count_nonzero(mask == 255)
        after = threshold_mask(mask if crop is None else resized_crop(mask, crop))
        return np.count_nonzero(after) / before if before else 0.0
    whole = mask > MASK_THRESHOLD
    total = np.count_nonzero(whole)
    if crop is None or not total:
        return float(total > 0)
    rows, columns = slice(crop.top, crop.top + crop.size), slice(crop.left, crop.left + crop.size)
    return np.count_nonzero(whole[rows, columns]) / total


@dataclass(frozen=True)
class Sample:
    """A training sample: ``image SxSx3 uint8``, ``mask SxS`` 0/255 and its label (``C`` = pseudo-OOD)."""

    image: np.ndarray
    mask: np.ndarray
    label: int


def augment(
    sample: Sample,
    *,
    crop: Crop | None,
    flip: bool,
    ood_label: int,
    relabel: bool = True,
    min_visible: float = VISIBLE_SHARE,
    as_published: bool = False,
) -> Sample:
    """The sample cropped, flipped, its mask thresholded and, when too little object is left, relabelled.

    ``relabel`` is for samples with an object mask of their own (not for backgrounds, nor for ID images whose
    mask is all 255): below ``min_visible`` of :func:`visible_share` the label becomes ``ood_label`` and the
    mask empty. ValueError when image and mask are not squares of one size.
    """
    height, width = sample.mask.shape
    if height != width or sample.image.shape != (height, width, 3):
        raise ValueError(f"Expected a square image and its mask, got {sample.image.shape} and {sample.mask.shape}.")
    image, mask = sample.image, sample.mask
    if crop is not None:
        image, mask = resized_crop(image, crop), resized_crop(mask, crop)
    if flip:
        image, mask = np.ascontiguousarray(image[:, ::-1]), np.ascontiguousarray(mask[:, ::-1])
    mask = threshold_mask(mask)
    if relabel and visible_share(sample.mask, crop, as_published=as_published) < min_visible:
        return Sample(image, np.zeros_like(mask), ood_label)
    return Sample(image, mask, sample.label)
