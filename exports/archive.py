"""A zip whose bytes depend on nothing but its members' names and contents."""

from __future__ import annotations

import errno
import hashlib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from db.files import atomic_file, atomic_write, sha256_file
from exports.protocols import Before, ExportError, ExportResult

_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class StableZip:
    """Writes members one after the other, none of them compressed: deflate's bytes vary with the zlib at hand.

    Names are relative posix paths and must come in ascending order, each once; ``ValueError`` otherwise.
    Memory holds the directory of names, never the contents; zip64 is used where the sizes need it.
    """

    def __init__(self, handle: BinaryIO) -> None:
        self._zip = zipfile.ZipFile(handle, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._last = ""

    def close(self) -> None:
        """Write the directory; without it the file is no zip. Needed after an error too, before the handle closes."""
        self._zip.close()

    @contextmanager
    def member(self, name: str) -> Iterator[BinaryIO]:
        """A file to write the member's bytes to; below 2 GiB."""
        if name <= self._last or name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"{name!r} cannot follow {self._last!r} in an archive.")
        self._last = name
        info = zipfile.ZipInfo(name, _DATE)
        info.create_system = _UNIX
        info.external_attr = _MODE << 16
        with self._zip.open(info, "w") as target:
            yield target

    def write(self, name: str, content: bytes) -> None:
        with self.member(name) as target:
            target.write(content)


@contextmanager
def room_needed(out_dir: Path) -> Iterator[None]:
    """Turn a full disk, a full quota or a file too large for the file system into an :class:`ExportError`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise ExportError(
            f"There is no room for the archive in {out_dir} ({error.strerror}). Nothing was left behind; "
            "free some space or choose another folder, then export again."
        ) from error


@contextmanager
def archive_file(path: Path) -> Iterator[BinaryIO]:
    """An atomic file for an archive, in a folder made if missing; lack of room is an :class:`ExportError`."""
    with room_needed(path.parent), atomic_file(path) as handle:
        yield handle


def sums_line(sha256: str, name: str) -> bytes:
    """One line as ``sha256sum -c`` reads it."""
    return f"{sha256}  {name}\n".encode()


def handle_sha256(handle: BinaryIO) -> str:
    """sha256 of everything in an open file; leaves the position at its end."""
    handle.flush()
    handle.seek(0)
    return hashlib.file_digest(handle, "sha256").hexdigest()


def standing_sha256(path: Path) -> str | None:
    """sha256 of the file at ``path``, None when there is none."""
    return sha256_file(path) if path.is_file() else None


def finished(path: Path, sha256: str, images: int, before_sha256: str | None) -> ExportResult:
    """Write ``<archive>.sha256`` beside a finished archive and say what was made."""
    with room_needed(path.parent):
        atomic_write(path.with_name(f"{path.name}.sha256"), sums_line(sha256, path.name))
    if before_sha256 is None:
        before = Before.NOTHING
    else:
        before = Before.IDENTICAL if before_sha256 == sha256 else Before.REPLACED
    return ExportResult(path, sha256, images, path.stat().st_size, before)
