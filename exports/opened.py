"""An archive on disk, whatever its container, as a flat list of files that can be read one by one.

A zip gives its members. A folder gives its files, and those inside its zips (below a folder of the zip's name, as
hosts unpack them) and tar shards (by their own names). Nothing is extracted, and no name may lead out.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Protocol

from exports.protocols import ExportError

MAX_FILE_BYTES = 512 << 20
MAX_FILES = 2_000_000
MAX_RATIO = 100
"""No zip of images unpacks to more than this many times its size; one that claims to is refused unread."""


class ArchiveDamaged(ExportError):
    """The container itself cannot be read; the message names the file."""


class _Container(Protocol):
    def names(self) -> Iterator[str]: ...

    def size(self, name: str) -> int: ...

    def open(self, name: str) -> BinaryIO: ...


class _Folder:
    def __init__(self, root: Path) -> None:
        self._root = root

    def names(self) -> Iterator[str]:
        for file in sorted(self._root.rglob("*")):
            if file.is_symlink():
                raise ArchiveDamaged(f"{file} is a link; an archive holds files only.")
            if file.is_file():
                yield file.relative_to(self._root).as_posix()

    def size(self, name: str) -> int:
        return (self._root / name).stat().st_size

    def open(self, name: str) -> BinaryIO:
        return (self._root / name).open("rb")


class _Zip:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        try:
            self._zip = stack.enter_context(zipfile.ZipFile(path))
        except (zipfile.BadZipFile, OSError) as error:
            raise ArchiveDamaged(f"{path} is no readable zip ({error}).") from error
        # All together, so that many names for the same few bytes are found out too.
        unpacked, packed = sum(info.file_size for info in self._zip.infolist()), path.stat().st_size
        if unpacked > MAX_RATIO * packed:
            raise ArchiveDamaged(
                f"{path} says that its {packed} bytes unpack to {unpacked}; no archive of images does. It was not read."
            )

    def names(self) -> Iterator[str]:
        yield from (name for name in self._zip.namelist() if not name.endswith("/"))

    def size(self, name: str) -> int:
        return self._zip.getinfo(name).file_size

    def open(self, name: str) -> BinaryIO:
        return self._zip.open(name)


class _Tar:
    def __init__(self, path: Path, stack: ExitStack) -> None:
        try:
            self._tar = stack.enter_context(tarfile.open(path, "r:"))  # noqa: SIM115 - the stack closes it
            self._members = {member.name: member for member in self._tar if member.isfile() and not member.issparse()}
        except (tarfile.TarError, OSError) as error:
            raise ArchiveDamaged(f"{path} is no readable tar ({error}).") from error

    def names(self) -> Iterator[str]:
        yield from self._members

    def size(self, name: str) -> int:
        return self._members[name].size

    def open(self, name: str) -> BinaryIO:
        return self._tar.extractfile(self._members[name])


class OpenedArchive:
    """``files`` are the container's own names; :meth:`read` also knows those inside the zips and shards of a folder.

    Raises :class:`ArchiveDamaged` when it cannot be opened or holds a name that leads out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = ExitStack()
        self._where: dict[str, tuple[_Container, str]] = {}
        try:
            self._open(path)
        except BaseException:  # also a Ctrl-C: no open file is left behind
            self._stack.close()
            raise

    def _open(self, path: Path) -> None:
        if path.is_dir():
            outer: _Container = _Folder(path)
        elif path.is_file():
            outer = _Zip(path, self._stack)
        else:
            raise ArchiveDamaged(f"There is nothing at {path}.")
        self.files = self._add(outer, "")
        if path.is_dir():
            for name in self.files:
                if name.endswith(".zip"):
                    self._add(_Zip(path / name, self._stack), name.removesuffix(".zip") + "/")
                elif name.endswith(".tar"):
                    self._add(_Tar(path / name, self._stack), "")

    def _add(self, container: _Container, prefix: str) -> list[str]:
        names = list(islice(container.names(), MAX_FILES + 1))
        if len(self._where) + len(names) > MAX_FILES:
            raise ArchiveDamaged(f"{self.path} holds more than {MAX_FILES} files; no archive of this tool does.")
        for name in names:
            if name.startswith("/") or "\\" in name or ".." in name.split("/"):
                raise ArchiveDamaged(f"{self.path} holds {name!r}, which leads out of it.")
            if prefix + name in self._where:
                raise ArchiveDamaged(f"{self.path} holds {prefix + name!r} twice.")
            self._where[prefix + name] = (container, name)
        return names

    def __enter__(self) -> OpenedArchive:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def __contains__(self, name: str) -> bool:
        return name in self._where

    def names(self) -> list[str]:
        """Every readable name, those inside zips and shards too."""
        return list(self._where)

    def read(self, name: str) -> bytes:
        """The file's bytes. ArchiveDamaged when it is missing, damaged, or larger than half a GiB."""
        if name not in self._where:
            raise ArchiveDamaged(f"{self.path} has no {name}.")
        container, inner = self._where[name]
        if container.size(inner) > MAX_FILE_BYTES:
            raise ArchiveDamaged(f"{name} says it has {container.size(inner)} bytes; no image is that large.")
        try:
            with container.open(inner) as handle:
                return handle.read()
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError) as error:
            raise ArchiveDamaged(f"{name} cannot be read: {error}.") from error

    def sha256(self, name: str) -> str:
        """sha256 of a file of any size."""
        container, inner = self._where[name]
        try:
            with container.open(inner) as handle:
                return hashlib.file_digest(handle, "sha256").hexdigest()
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError, NotImplementedError) as error:
            raise ArchiveDamaged(f"{name} cannot be read: {error}.") from error
