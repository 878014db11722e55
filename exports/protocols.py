"""What an archive format must offer, what it gives back, and the errors it may end with."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace

if TYPE_CHECKING:
    from exports.options import ExportOptions


class ExportError(RuntimeError):
    """An archive cannot be written; the message says what to do. Nothing stands under its final name."""


class NoRoom(ExportError):
    """The disk, a quota or the file system's limit is exhausted."""


class Before(StrEnum):
    """What stood under the archive's name: nothing, the same bytes, or a different file that was replaced."""

    NOTHING = "nothing"
    IDENTICAL = "identical"
    REPLACED = "replaced"


@dataclass(frozen=True)
class ExportResult:
    """A written archive: its file or folder, sha256 and size in bytes, and the number of images in it.

    A folder's sha256 is that of its SHA256SUMS, which names every other file's.
    """

    path: Path
    sha256: str
    images: int
    bytes: int
    before: Before


class Exporter(Protocol):
    """One archive format. The same build gives the same bytes, whenever and wherever it is exported."""

    label: str
    """What the page calls the format."""
    about: str
    """What it is good for, as one sentence."""

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        """Write the build's archive into ``out_dir``, whole or not at all; an interrupted one is gone on with.

        Raises :class:`ExportError`, and :class:`db.progress.Cancelled` through ``progress``.
        """
        ...
