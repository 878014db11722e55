"""Segment Anything by hand: points and a box on one image, for corrections during review.

The image is encoded at its first click and the embedding kept for the next ones, which then cost only the
small decoder.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from generation.devices import Precision
from generation.masking.sam import SamEmbedding, SamSegmenter


class BadPrompt(ValueError):
    """Clicks or a box that cannot be meant: none at all, outside the image, or without area."""


@dataclass(frozen=True)
class Click:
    """A point in pixels of the image, and whether it is on the object (or on what is not)."""

    x: float
    y: float
    positive: bool = True


@dataclass(frozen=True)
class ClickedMask:
    """The mask, ``HxW uint8`` 0/255, and SAM's own guess of its IoU, about 0 to 1."""

    mask: np.ndarray
    quality: float


class SamClick:
    """Masks from prompts on single images. Thread-safe; embeddings of the last ``cache_size`` images stay (4 MB each).

    ``segmenter`` may be shared with a masker; otherwise one is loaded from ``weights`` (default: the
    manifest's ``sam_<variant>``). Raises what :class:`~generation.masking.sam.SamSegmenter` raises.
    """

    def __init__(
        self,
        segmenter: SamSegmenter | None = None,
        *,
        weights: Path | str | None = None,
        variant: str = "vit_h",
        cache_size: int = 8,
        device: torch.device | str = "auto",
        precision: Precision = "auto",
    ) -> None:
        if cache_size < 1:
            raise ValueError(f"cache_size must be at least 1, got {cache_size}.")
        self._segmenter = segmenter or SamSegmenter(weights, variant=variant, device=device, precision=precision)
        self._cache_size = cache_size
        self._embeddings: OrderedDict[str, SamEmbedding] = OrderedDict()
        self._lock = threading.Lock()

    def fingerprint(self) -> dict[str, object]:
        return {"name": "sam_click", "grade": "paper", **self._segmenter.fingerprint()}

    def segment(
        self,
        image: np.ndarray,
        *,
        clicks: Sequence[Click] = (),
        box: tuple[float, float, float, float] | None = None,
    ) -> ClickedMask:
        """The mask of what the clicks and the ``x0, y0, x1, y1`` box mean on an ``HxWx3 uint8`` image.

        One click alone is ambiguous (the wheel or the car): SAM makes three guesses and the one it rates best
        is taken. Raises BadPrompt.
        """
        _check_prompt(image.shape[:2], clicks, box)
        masks, quality = self._segmenter.decode(
            self._embedding(image),
            boxes=None if box is None else np.array([box], np.float64),
            points=np.array([[(click.x, click.y) for click in clicks]], np.float64) if clicks else None,
            labels=np.array([[click.positive for click in clicks]], np.int64) if clicks else None,
            several=len(clicks) == 1 and box is None,
        )
        best = int(quality[0].argmax())
        return ClickedMask(np.where(masks[0, best], np.uint8(255), np.uint8(0)), float(quality[0, best]))

    def _embedding(self, image: np.ndarray) -> SamEmbedding:
        key = hashlib.sha256(repr(image.shape).encode() + np.ascontiguousarray(image).tobytes()).hexdigest()
        with self._lock:  # held while encoding: the second of two clicks waits for the first one's embedding
            if key not in self._embeddings:
                self._embeddings[key] = self._segmenter.encode([image])[0]
            self._embeddings.move_to_end(key)
            while len(self._embeddings) > self._cache_size:
                self._embeddings.popitem(last=False)
            return self._embeddings[key]


def _check_prompt(
    shape: tuple[int, int], clicks: Sequence[Click], box: tuple[float, float, float, float] | None
) -> None:
    height, width = shape
    if not clicks and box is None:
        raise BadPrompt("Click on the object, or draw a box around it.")
    for click in clicks:
        if not (0 <= click.x < width and 0 <= click.y < height):
            raise BadPrompt(f"The click at {click.x:g}, {click.y:g} is outside the {width}x{height} image.")
    if box is None:
        return
    x0, y0, x1, y1 = box
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise BadPrompt(f"The box {x0:g}, {y0:g}, {x1:g}, {y1:g} has no area inside the {width}x{height} image.")
