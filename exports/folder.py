"""Archives that are a folder of a few large files: whole or not there, gone on with file by file.

While it is written it lies beside its final name as ``.<name>.<key>.part/``. Each file in it appears by a rename
once it is whole, so whatever is there under its own name is kept by the next run of the same export.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from db.files import PART_SUFFIX, atomic_write, sha256_file, sync_folder
from db.progress import Progress
from exports.archive import ResumableZip, before_of, resumable_zip, room_needed, standing_sha256, sums_line
from exports.protocols import ExportResult, NoRoom

SUMS_NAME = "SHA256SUMS"


class ArchiveFolder:
    """The folder while it is being filled."""

    def __init__(self, part: Path, key: str) -> None:
        self._part = part
        self._key = key

    def path(self, name: str) -> Path:
        return self._part / name

    def has(self, name: str) -> bool:
        """Whether an earlier run finished the file."""
        return self.path(name).is_file()

    def write(self, name: str, content: bytes) -> None:
        """Put a small file there, in one step."""
        if not self.has(name):
            atomic_write(self.path(name), content)

    def zip(self, name: str) -> AbstractContextManager[ResumableZip]:
        """A zip inside, itself gone on with where it was stopped."""
        return resumable_zip(self.path(name), self._key)

    def files(self) -> list[str]:
        """The names of the finished files, sorted, the sums not among them."""
        found = (file.relative_to(self._part).as_posix() for file in self._part.rglob("*") if file.is_file())
        return sorted(name for name in found if name != SUMS_NAME and not name.rpartition("/")[2].startswith("."))


@contextmanager
def archive_folder(path: Path, key: str) -> Iterator[ArchiveFolder]:
    """A folder that appears at ``path``, replacing what is there, when the block ends without an error.

    A cancel, an error or a kill leaves a hidden part that the next call with the same ``key`` goes on with. When the
    disk is full nothing is left, and the error says so.
    """
    part = path.with_name(f".{path.name}.{key[:16]}{PART_SUFFIX}")
    try:
        with room_needed(path.parent):
            part.mkdir(parents=True, exist_ok=True)
            for stale in path.parent.glob(f".{path.name}.*{PART_SUFFIX}"):
                if stale != part:
                    shutil.rmtree(stale, ignore_errors=True)
            for torn in part.rglob(f".*{PART_SUFFIX}"):
                if not torn.name.endswith(f".{key[:16]}{PART_SUFFIX}"):  # a zip's own part, which is gone on with
                    torn.unlink()
            yield ArchiveFolder(part, key)
            sync_folder(part)
    except NoRoom:
        shutil.rmtree(part, ignore_errors=True)
        raise
    _replace(path, part)


def _replace(path: Path, part: Path) -> None:
    """Put the finished folder in place; a folder cannot be renamed over another, so the old one steps aside first."""
    aside = path.with_name(f".{path.name}.old{PART_SUFFIX}")
    shutil.rmtree(aside, ignore_errors=True)
    if path.exists():
        path.rename(aside)
    part.rename(path)
    sync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def export_folder(
    path: Path, key: str, images: int, fill: Callable[[ArchiveFolder], None], progress: Progress
) -> ExportResult:
    """Fill a folder, add SHA256SUMS over everything in it, and say what was made."""
    before = standing_sha256(path / SUMS_NAME)
    with archive_folder(path, key) as folder:
        fill(folder)
        lines = []
        for name in folder.files():
            progress.update(images, images, f"computing the checksum of {name}")
            lines.append(sums_line(sha256_file(folder.path(name)), name))
        sums = b"".join(lines)
        atomic_write(folder.path(SUMS_NAME), sums)
    sha256 = hashlib.sha256(sums).hexdigest()
    size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    return ExportResult(path, sha256, images, size, before_of(before, sha256))
