"""Images that are named by hash and opened only when needed, at the size the training works at. No torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 224
SQUASHED = f"squash-{SIDE}"


class UnreadableFile(RuntimeError):
    """A file of the workspace that should be a PNG is gone or damaged; the message names it."""


@dataclass(frozen=True)
class ImageRef:
    """An image to be encoded: ``open`` gives its ``HxWx3 uint8 RGB``, called only when its features are missing.

    ``sha256`` is that of the file; ``variant`` names what ``open`` does to its pixels beyond decoding (a resize).
    """

    sha256: str
    open: Callable[[], np.ndarray]
    variant: str = ""

    @property
    def key(self) -> str:
        return f"{self.sha256}:{self.variant}" if self.variant else self.sha256


def squash(image: Image.Image) -> np.ndarray:
    """224x224x3 uint8 of a mode-RGB image, its aspect ratio lost: LANCZOS, as the published sampler does."""
    if image.size != (SIDE, SIDE):
        image = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def read_result(path: Path) -> np.ndarray:
    """A candidate's PNG, squashed to 224x224x3 uint8. Raises :class:`UnreadableFile`."""
    return squash(read_png(path, "RGB"))


def read_mask(path: Path) -> np.ndarray:
    """A candidate's mask, 224x224 uint8 with grey edges where it had to be resized. Raises :class:`UnreadableFile`."""
    mask = read_png(path, "L")
    if mask.size != (SIDE, SIDE):
        mask = mask.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    return np.asarray(mask)


def read_png(path: Path, mode: str) -> Image.Image:
    """A PNG of the workspace as ``mode``, at its own size. Raises :class:`UnreadableFile`."""
    try:
        with Image.open(path, formats=["PNG"]) as image:
            return image.convert(mode)
    except (OSError, ValueError, SyntaxError) as error:
        raise UnreadableFile(f"{path} cannot be read: {error}. Generate the candidate again.") from error
