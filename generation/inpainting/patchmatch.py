"""PatchMatch inpainting over an image pyramid: the embedded default, real textures without a network.

The solver keeps its random state to itself and is seeded on every call: the same bytes from any thread
or process. It is compiled code that *holds the GIL* (0.5 s an image of 224x224), so threads do not make it
faster; processes do.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import patchmatch_cython

from generation.inpainting.telea import telea_fill
from generation.protocols import InpaintResult

FALLBACK_RADIUS = 3.0


class PatchMatchInpainter:
    """``patchmatch_cython.inpaint_pyramid``; ``patch_size`` in pixels (odd), ``seed`` for each image anew.

    A hole that leaves no whole patch to copy from is filled by Telea, noted as ``{"fallback": "telea"}``
    (or ``"mean_colour"`` when it leaves nothing at all).
    """

    def __init__(self, *, patch_size: int = 7, seed: int = 0) -> None:
        if patch_size < 1 or patch_size % 2 == 0:
            raise ValueError(f"patch_size must be odd and positive, got {patch_size}.")
        self._patch_size = patch_size
        self._seed = seed

    def fingerprint(self) -> dict[str, object]:
        return {
            "name": "patchmatch",
            "grade": "embedded",
            "patch_size": self._patch_size,
            "seed": self._seed,
            "patchmatch_cython": patchmatch_cython.__version__,
            "opencv": cv2.__version__,
        }

    def inpaint(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[InpaintResult]:
        return [self._inpaint(image, hole) for image, hole in zip(images, holes, strict=True)]

    def _inpaint(self, image: np.ndarray, hole: np.ndarray) -> InpaintResult:
        if image.shape != (*hole.shape, 3):
            raise ValueError(f"Sizes differ: image {image.shape}, hole {hole.shape}.")
        try:
            filled = patchmatch_cython.inpaint_pyramid(image, hole, patch_size=self._patch_size, seed=self._seed)
        except ValueError:  # raised when no source patch is left at some level of the pyramid
            fallback = telea_fill(image, hole, FALLBACK_RADIUS)
            return InpaintResult(fallback.image, {"fallback": "telea", **fallback.notes})
        return InpaintResult(filled)
