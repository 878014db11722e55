"""What an import is asked to do, and what it says it did."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from db.models import Split

Layout = Literal["imagefolder", "flat", "demo"]


class SourceImportError(RuntimeError):
    """An import that cannot be started as asked. The message says what is wrong and what to do."""


@dataclass(frozen=True)
class ImportSpec:
    """What to import. ``demo`` needs neither folder; ``flat`` needs both; paths are followed through links once."""

    layout: Layout
    root: Path | None = None
    ground_truth: Path | None = None
    split: Split = Split.VAL


class SkippedFile(NamedTuple):
    """A file that was not imported: its path relative to the root, a code, and a sentence."""

    path: str
    code: str
    message: str


@dataclass
class ImportSummary:
    """What became of every entry found: ``added + already_there + len(skipped) == found``."""

    found: int = 0
    added: int = 0
    already_there: int = 0
    skipped: list[SkippedFile] = field(default_factory=list)

    def as_dict(self) -> dict:
        """For JSON: the counts, the skipped by code, and each skipped file in the order of the list."""
        return {
            "found": self.found,
            "added": self.added,
            "already_there": self.already_there,
            "skipped_by_code": dict(sorted(Counter(item.code for item in self.skipped).items())),
            "skipped": [item._asdict() for item in self.skipped],
        }

    def __str__(self) -> str:
        codes = Counter(item.code for item in self.skipped)
        by_code = ", ".join(f"{count} {code}" for code, count in sorted(codes.items()))
        skipped = f"{len(self.skipped)} skipped" + (f" ({by_code})" if by_code else "")
        return f"{self.found} found: {self.added} added, {self.already_there} already there, {skipped}"
