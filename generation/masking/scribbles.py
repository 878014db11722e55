"""A mask from scribbles: what is on the object, what is not, and GrabCut for the rest. OpenCV only, no weights."""

from __future__ import annotations

import cv2
import numpy as np

from generation.masking.postprocess import binarise

ITERATIONS = 3
SEED = 0


class NoScribble(ValueError):
    """Nothing was marked, so nothing can be learnt from it."""


def grow_from_scribbles(image: np.ndarray, mask: np.ndarray, on: np.ndarray, off: np.ndarray) -> np.ndarray:
    """The mask that GrabCut makes of ``mask`` and the scribbles; ``HxW uint8`` 0/255.

    ``image`` is ``HxWx3 uint8 RGB``; ``mask`` the one so far (above 50 = object), taken as probable; ``on`` and ``off``
    mark pixels (any non-zero) that certainly are and are not the object. Where a pixel is in both, ``off`` wins.
    The same input gives the same mask. Raises :class:`NoScribble` when neither marks anything, or when after the
    marks nothing or everything could be the object.
    """
    if not on.any() and not off.any():
        raise NoScribble("Mark some of the object, or some of what is not the object, first.")
    labels = np.where(binarise(mask) != 0, np.uint8(cv2.GC_PR_FGD), np.uint8(cv2.GC_PR_BGD))
    if not mask.any():
        labels[:] = cv2.GC_PR_BGD
    labels[on != 0] = cv2.GC_FGD
    labels[off != 0] = cv2.GC_BGD
    object_like = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD))
    if not object_like.any() or object_like.all():
        raise NoScribble("Mark both some of the object and some of what is not the object.")
    cv2.setRNGSeed(SEED)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.grabCut(np.ascontiguousarray(image[:, :, ::-1]), labels, None, *models, ITERATIONS, cv2.GC_INIT_WITH_MASK)
    return np.where(np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)), np.uint8(255), np.uint8(0))
