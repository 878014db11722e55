"""Masks as pixels: cleaning, dilation, compositing, area and perceptual hashes. numpy and OpenCV only.

A mask is ``HxW uint8``, 255 = labelled object, 0 = background. Where a foreign mask may hold greys,
:func:`binarise` it first; every other function counts any non-zero pixel as object.
"""

from __future__ import annotations

from typing import Literal

import cv2
import numpy as np

DilationShape = Literal["square", "ellipse"]

GREY_THRESHOLD = 50
HASH_SIDE = 8
HASH_IMAGE_SIDE = 32


def _check_mask(mask: np.ndarray) -> None:
    if mask.ndim != 2 or mask.dtype != np.uint8:
        raise ValueError(f"Expected an HxW uint8 mask, got {mask.dtype} {mask.shape}.")


def _check_image(image: np.ndarray) -> None:
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"Expected an HxWx3 uint8 image, got {image.dtype} {image.shape}.")


def binarise(mask: np.ndarray) -> np.ndarray:
    """The mask as 0/255: grey above 50 is object, the threshold the published trainer reads masks with."""
    _check_mask(mask)
    return np.where(mask > GREY_THRESHOLD, np.uint8(255), np.uint8(0))


def clean_mask(
    mask: np.ndarray,
    *,
    min_component: float = 0.002,
    keep_components: int | None = None,
    fill_holes: float = 0.01,
) -> np.ndarray:
    """The mask's large components with their small holes filled; a new ``HxW`` 0/255 array.

    Shares are of the whole image's area. Components (8-connected) below ``min_component`` are dropped, and
    of the rest only the ``keep_components`` largest stay (None: all). Then holes (4-connected background
    that does not reach the image's edge) below ``fill_holes`` become object. 0 switches a step off.
    """
    _check_mask(mask)
    if keep_components is not None and keep_components < 1:
        raise ValueError(f"keep_components must be at least 1 or None, got {keep_components}.")
    objects = (mask != 0).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(objects, connectivity=8)
    areas = stats[:, cv2.CC_STAT_AREA]
    ranked = [label for label in np.argsort(-areas, kind="stable") if label != 0]
    kept = [label for label in ranked if areas[label] >= min_component * mask.size][:keep_components]
    cleaned = np.isin(labels, kept)

    _, labels, stats, _ = cv2.connectedComponentsWithStats((~cleaned).astype(np.uint8), connectivity=4)
    border = np.unique(np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]]))
    small = np.flatnonzero(stats[:, cv2.CC_STAT_AREA] < fill_holes * mask.size)
    cleaned |= np.isin(labels, np.setdiff1d(small, border))
    return np.where(cleaned, np.uint8(255), np.uint8(0))


def dilate(mask: np.ndarray, size: int = 12, shape: DilationShape = "square") -> np.ndarray:
    """The mask grown by a ``size x size`` element; a new array.

    The published default is the 12x12 square. An even size has no middle and OpenCV's anchor is kept, so a
    pixel grows 5 up and left but 6 down and right, as published. ValueError for a size below 1.
    """
    _check_mask(mask)
    if size < 1:
        raise ValueError(f"The dilation size must be at least 1, got {size}.")
    if shape == "square":
        element = np.ones((size, size), np.uint8)
    elif shape == "ellipse":
        element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    else:
        raise ValueError(f"The dilation shape is 'square' or 'ellipse', not {shape!r}.")
    return cv2.dilate(mask, element, iterations=1)


def composite(source: np.ndarray, filled: np.ndarray, dilated: np.ndarray) -> np.ndarray:
    """``filled`` where the dilated mask is set, exactly ``source`` everywhere else; ``HxWx3 uint8``.

    ValueError when the three sizes differ: nothing is resized here, so no pixel outside can change.
    """
    _check_image(source)
    _check_image(filled)
    _check_mask(dilated)
    if not source.shape[:2] == filled.shape[:2] == dilated.shape:
        raise ValueError(f"Sizes differ: source {source.shape}, filled {filled.shape}, mask {dilated.shape}.")
    return np.where(dilated[:, :, None] != 0, filled, source)


def area_share(mask: np.ndarray) -> float:
    """The object's share of the image, 0 to 1."""
    _check_mask(mask)
    return np.count_nonzero(mask) / mask.size


def perceptual_hash(image: np.ndarray) -> str:
    """A 64-bit DCT hash (pHash) of an ``HxWx3 uint8`` image as 16 hex digits; near images, near hashes.

    Grey, 32x32 by area, DCT-II; the 8x8 lowest frequencies row by row, most significant bit first, 1 where
    a coefficient exceeds their median. Coefficients are rounded to 1/1000 of a grey level first, so that
    a flat image does not hash its rounding errors.
    """
    _check_image(image)
    grey = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (HASH_IMAGE_SIDE, HASH_IMAGE_SIDE), interpolation=cv2.INTER_AREA)
    lowest = cv2.dct(small.astype(np.float64))[:HASH_SIDE, :HASH_SIDE].round(3)
    return np.packbits(lowest > np.median(lowest)).tobytes().hex()


def hamming(a: str, b: str) -> int:
    """How many of the 64 bits of two :func:`perceptual_hash` values differ, 0 to 64."""
    if len(a) != 16 or len(b) != 16:
        raise ValueError(f"Expected two hashes of 16 hex digits, got {a!r} and {b!r}.")
    return (int(a, 16) ^ int(b, 16)).bit_count()
