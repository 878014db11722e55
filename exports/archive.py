"""A zip whose bytes depend on nothing but its members' names and contents, and which goes on where it was stopped.

While it is written it lies beside its final name as ``.<name>.<key>.part``; ``key`` stands for everything that
decides its bytes, so that a part is only ever continued by the same export.
"""

from __future__ import annotations

import errno
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

from db.files import PART_SUFFIX, atomic_write, sha256_file, sync_folder
from exports.protocols import Before, ExportResult, NoRoom

CHECKPOINT_BYTES = 256 << 20

_DATE = (1980, 1, 1, 0, 0, 0)
_UNIX = 3
_MODE = 0o100644
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_OFFSET_BYTES = 8


class ResumableZip:
    """Writes members one after the other, none of them compressed: deflate's bytes vary with the zlib at hand.

    Names are relative posix paths and must come in ascending order, each once; ``ValueError`` otherwise.
    Memory holds the directory of names, never the contents; zip64 is used where the sizes need it.

    Every ``CHECKPOINT_BYTES`` the zip is completed and fsynced, and where its directory begins is kept with the
    directory itself in ``<part>.directory``: what a killed export wrote after that is cut off, and
    :meth:`has` names the members that are there. The same members in the same order give the same bytes,
    however often the work was stopped.
    """

    def __init__(self, part: Path) -> None:
        self._part = part
        self._directory = part.with_name(f"{part.name}.directory")
        self._open()

    def _open(self) -> None:
        self._zip = None
        if self._part.exists() and self._directory.exists() and self._restore():
            self._zip = zipfile.ZipFile(self._part, "a", zipfile.ZIP_STORED, allowZip64=True)
        else:
            self._zip = zipfile.ZipFile(self._part, "w", zipfile.ZIP_STORED, allowZip64=True)
        self._names = set(self._zip.namelist())
        self._last = max(self._names, default="")
        self._saved_at = self._zip.start_dir
        self._writing = False

    def _restore(self) -> bool:
        """Cut off what came after the last checkpoint; False when the part cannot be trusted."""
        saved = self._directory.read_bytes()
        offset, tail = int.from_bytes(saved[:_OFFSET_BYTES], "big"), saved[_OFFSET_BYTES:]
        if self._part.stat().st_size < offset:
            return False
        with self._part.open("r+b") as handle:
            handle.truncate(offset)
            handle.seek(offset)
            handle.write(tail)
        return zipfile.is_zipfile(self._part)

    def has(self, name: str) -> bool:
        """Whether an earlier run wrote the member already."""
        return name in self._names

    def write(self, name: str, content: bytes) -> None:
        """Add a member; below 2 GiB."""
        if name <= self._last or name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise ValueError(f"{name!r} cannot follow {self._last!r} in an archive.")
        info = zipfile.ZipInfo(name, _DATE)
        info.create_system = _UNIX
        info.external_attr = _MODE << 16
        self._writing = True
        self._zip.writestr(info, content)
        self._writing = False
        self._last = name
        self._names.add(name)
        if self._zip.start_dir - self._saved_at >= CHECKPOINT_BYTES:
            self._checkpoint()

    def _checkpoint(self) -> None:
        offset = self._complete()
        with self._part.open("rb") as handle:
            handle.seek(offset)
            tail = handle.read()
        atomic_write(self._directory, offset.to_bytes(_OFFSET_BYTES, "big") + tail)
        self._zip = zipfile.ZipFile(self._part, "a", zipfile.ZIP_STORED, allowZip64=True)
        self._saved_at = offset

    def _complete(self) -> int:
        """Write the directory, to the disk; gives where it begins."""
        offset = self._zip.start_dir
        self._zip.close()
        with self._part.open("r+b") as handle:
            os.fsync(handle.fileno())
        return offset

    def finish(self, path: Path) -> None:
        """Complete the zip and give it its name."""
        self._complete()
        self._part.replace(path)
        self._directory.unlink(missing_ok=True)
        sync_folder(path.parent)

    def stop(self) -> None:
        """Close after an error or a cancel, keeping what a later run can go on from."""
        if self._writing:  # broken off inside a member: only the last checkpoint is whole
            self._abandon()
        else:
            self._checkpoint()
            self._zip.close()

    def _abandon(self) -> None:
        """Close the file without completing the zip, which on a full disk would fail again, as may the close."""
        handle, self._zip.fp = self._zip.fp, None
        with suppress(OSError):
            handle.close()

    def discard(self) -> None:
        """Close and delete everything."""
        self._abandon()
        self._part.unlink(missing_ok=True)
        self._directory.unlink(missing_ok=True)


@contextmanager
def resumable_zip(path: Path, key: str) -> Iterator[ResumableZip]:
    """A zip that appears at ``path`` when the block ends without an error.

    A cancel, an error or a kill leaves a hidden part that the next call with the same ``key`` continues; parts
    of other keys are deleted. When the disk is full nothing is left, and the error says so.
    """
    with room_needed(path.parent):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{key[:16]}{PART_SUFFIX}")
        # What a kill tore off while a checkpoint was written begins with two dots.
        stales = (path.parent.glob(f"{dots}{path.name}.*{PART_SUFFIX}*") for dots in (".", ".."))
        for stale in chain.from_iterable(stales):
            if not stale.name.startswith(part.name):
                stale.unlink(missing_ok=True)
        archive = ResumableZip(part)
        try:
            yield archive
            archive.finish(path)
        except OSError as error:
            if error.errno in _NO_ROOM:
                archive.discard()
            else:
                archive.stop()
            raise
        except BaseException:  # also a cancel or Ctrl-C: keep what is done, then let it go on
            archive.stop()
            raise


@contextmanager
def room_needed(out_dir: Path) -> Iterator[None]:
    """Turn a full disk, a full quota or a file too large for the file system into :class:`NoRoom`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise NoRoom(
            f"There is no room for the archive in {out_dir} ({error.strerror}). Nothing was left behind; "
            "free some space or choose another folder, then export again."
        ) from error


def sums_line(sha256: str, name: str) -> bytes:
    """One line as ``sha256sum -c`` reads it."""
    return f"{sha256}  {name}\n".encode()


def standing_sha256(path: Path) -> str | None:
    """sha256 of the file at ``path``, None when there is none."""
    return sha256_file(path) if path.is_file() else None


def before_of(before_sha256: str | None, sha256: str) -> Before:
    """How what stood there compares with what was written."""
    if before_sha256 is None:
        return Before.NOTHING
    return Before.IDENTICAL if before_sha256 == sha256 else Before.REPLACED


def finished(path: Path, images: int, before_sha256: str | None) -> ExportResult:
    """Write ``<archive>.sha256`` beside a finished archive file and say what was made."""
    sha256 = sha256_file(path)
    with room_needed(path.parent):
        atomic_write(path.with_name(f"{path.name}.sha256"), sums_line(sha256, path.name))
    return ExportResult(path, sha256, images, path.stat().st_size, before_of(before_sha256, sha256))
