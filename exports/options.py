"""What a person may choose about an archive; part of what decides its bytes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from typing import Literal

from db.models import Build
from exports.coding import ImageCoding
from exports.protocols import ExportError

ARCHIVE_FORMAT = 2
GIBIBYTE = 1 << 30


@dataclass(frozen=True)
class ExportOptions:
    """``images`` and ``quality`` are the coding; ``part`` is "" for all, or val or test (:mod:`exports.splits`).

    ``id_side`` writes the source photos in the place of the candidates (:mod:`exports.id_side`).
    ``part_bytes`` is where image zips and shards are cut. ``owner`` and ``title`` are for Kaggle's metadata.
    ``audit`` is what the build's audit found, for the card (None: not audited); no person chooses it.
    """

    images: Literal["png", "jpeg"] = "png"
    quality: int = 95
    part: Literal["", "val", "test"] = ""
    part_bytes: int = 2 * GIBIBYTE
    owner: str = ""
    title: str = ""
    id_side: bool = False
    audit: dict | None = None

    def __post_init__(self) -> None:
        ImageCoding(self.images, self.quality)
        if self.part not in ("", "val", "test"):
            raise ExportError(f"part is val, test or empty for all, not {self.part!r}.")
        if self.part_bytes < 1 << 20:
            raise ExportError(f"part_bytes must be at least one MiB, not {self.part_bytes}.")

    @classmethod
    def from_dict(cls, values: dict) -> ExportOptions:
        """From a job's params. Unknown names are refused."""
        unknown = set(values) - {field.name for field in fields(cls)}
        if unknown:
            raise ExportError(f"Unknown export option: {', '.join(sorted(unknown))}.")
        return cls(**values)

    @property
    def coding(self) -> ImageCoding:
        return ImageCoding(self.images, self.quality)

    @property
    def suffix(self) -> str:
        """What the archive's name says of the options: "-val", "-id", "-jpeg95", those in that order, or nothing."""
        said = (self.part, "id" if self.id_side else "", f"jpeg{self.quality}" if self.images == "jpeg" else "")
        return "".join(f"-{word}" for word in said if word)

    def key(self, build: Build, format: str) -> str:
        """sha256 of everything that decides the archive's bytes."""
        facts = {
            "archive_format": ARCHIVE_FORMAT,
            "format": format,
            "build": [build.name, build.number, build.content_hash, build.created_at.isoformat()],
            "options": asdict(self),
        }
        return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
