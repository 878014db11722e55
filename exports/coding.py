"""How an archive stores its images: the PNGs as they are, or JPEGs of a stated quality.

ImageNet's own val photos are JPEGs, so PNG backgrounds beside them carry a format cue: a detector could tell the two
apart by compression alone. Both sides in one coding take the cue away.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Literal

from PIL import Image

from exports.protocols import ExportError


@dataclass(frozen=True)
class ImageCoding:
    """``png`` copies the pixels and the bytes; ``jpeg`` encodes anew, 4:4:4, at ``quality`` (1 to 100).

    JPEG bytes are those of one libjpeg: the same version gives the same bytes, another one may not.
    """

    kind: Literal["png", "jpeg"] = "png"
    quality: int = 95

    def __post_init__(self) -> None:
        if self.kind not in ("png", "jpeg"):
            raise ExportError(f"Images are stored as png or jpeg, not {self.kind!r}.")
        if not 1 <= self.quality <= 100:
            raise ExportError(f"A JPEG's quality is 1 to 100, not {self.quality}.")

    @property
    def suffix(self) -> str:
        return ".png" if self.kind == "png" else ".jpg"

    def encode(self, png: bytes) -> bytes:
        """The stored bytes of an image that the workspace keeps as ``png``."""
        if self.kind == "png":
            return png
        buffer = io.BytesIO()
        with Image.open(io.BytesIO(png), formats=["PNG"]) as image:
            image.convert("RGB").save(buffer, "JPEG", quality=self.quality, subsampling=0)
        return buffer.getvalue()

    def describe(self) -> str:
        return "PNG" if self.kind == "png" else f"JPEG, quality {self.quality}, 4:4:4"
