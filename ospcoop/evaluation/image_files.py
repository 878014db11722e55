"""Image files of an evaluation set: found, decoded once to see that they can be, hashed, and listed in a manifest.

From then on the set is that list: a file that was changed is an error, not another number.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from db.files import atomic_file
from db.progress import Progress
from ospcoop.evaluation.request import EvaluationError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".jpeg", ".jpg", ".jpe", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff"})
READERS = 4
_AT_ONCE = 64

Decode = Callable[[bytes], "Image.Image"]
"""A file's bytes as an upright mode-RGB image; ValueError where they are none."""


class SetChanged(RuntimeError):
    """A file of an evaluation set is gone or has other bytes; the message names it."""


@dataclass(frozen=True)
class Found:
    """A file that may belong to a set: its path relative to the root, and its class, if it has one."""

    path: str
    class_index: int | None


@dataclass(frozen=True)
class ImageFile:
    """A file of a set. ``path`` is relative to the set's root, ``sha256`` that of its bytes."""

    path: str
    class_index: int | None
    sha256: str


def list_folder(root: Path, index_of: Mapping[str, int], *, needs_class: bool) -> list[Found]:
    """Every image below ``root``, sorted by path. A folder named by a wnid of ``index_of`` gives its files their class.

    Raises :class:`EvaluationError` when there is none, or, where ``needs_class``, one lies in no such folder.
    """
    if not root.is_dir():
        raise EvaluationError(f"There is no folder {root}.")
    found = []
    for folder, subfolders, files in os.walk(root, onerror=_unreadable):
        subfolders.sort()
        for name in sorted(files):
            if name.startswith(".") or Path(name).suffix.lower() not in SUFFIXES:
                continue
            path = Path(folder, name).relative_to(root)
            found.append(Found(path.as_posix(), next((index_of[p] for p in path.parts[:-1] if p in index_of), None)))
    if not found:
        raise EvaluationError(f"{root} holds no images ({', '.join(sorted(SUFFIXES))}).")
    _check_classes(found, root, needs_class)
    return sorted(found, key=lambda one: one.path)


def _unreadable(error: OSError) -> None:
    # Going on would make an unreadable folder look like an empty one.
    raise EvaluationError(f"The folder {error.filename} cannot be listed: {error.strerror}.") from error


def read_imglist(path: Path, root: Path, classes: int, *, needs_class: bool) -> list[Found]:
    """OpenOOD's list: ``path label`` a line, relative to ``root``; a label of -1 is none.

    Raises :class:`EvaluationError`, naming the line, for a line or a label that is not one.
    """
    found = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        name, _, label = line.strip().rpartition(" ")
        try:
            index = int(label)
        except ValueError:
            index = classes
        if not name or not -1 <= index < classes:
            raise EvaluationError(
                f"{path}, line {number}: expected a path and a class from -1 to {classes - 1}, not {line!r}."
            )
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise EvaluationError(f"{path}, line {number}: {name} leads out of {root}.")
        found.append(Found(name, None if index < 0 else index))
    if not found:
        raise EvaluationError(f"{path} lists no image.")
    _check_classes(found, root, needs_class)
    return found


def _check_classes(found: list[Found], root: Path, needs_class: bool) -> None:
    without = [one.path for one in found if one.class_index is None]
    if needs_class and without:
        raise EvaluationError(
            f"{len(without)} of the {len(found)} images in {root} have no class, the first is {without[0]}. "
            "An ID set's images lie in folders named by their wnid, or its list says their class."
        )


def check_files(
    root: Path, found: list[Found], decode: Decode, progress: Progress
) -> tuple[list[ImageFile], list[str]]:
    """The files that can be decoded, hashed, in the given order; and a sentence for each that cannot.

    Raises :class:`db.progress.Cancelled`.
    """
    kept: list[ImageFile] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(READERS, "set-reader") as readers:
        for start in range(0, len(found), _AT_ONCE):
            progress.update(start, len(found), "Reading the images")
            for one in readers.map(lambda item: _check(root, item, decode), found[start : start + _AT_ONCE]):
                (kept if isinstance(one, ImageFile) else skipped).append(one)
    progress.update(len(found), len(found), "Reading the images")
    return kept, skipped


def _check(root: Path, one: Found, decode: Decode) -> ImageFile | str:
    path = root / one.path
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        return f"{one.path}: leads out of {root}."
    try:
        content = path.read_bytes()
        decode(content)
    except (OSError, ValueError) as error:
        return f"{one.path}: {error}"
    return ImageFile(one.path, one.class_index, hashlib.sha256(content).hexdigest())


def open_file(root: Path, one: ImageFile, decode: Decode) -> np.ndarray:
    """The file's pixels, HxWx3 uint8. Raises :class:`SetChanged`."""
    try:
        content = (root / one.path).read_bytes()
    except OSError as error:
        raise SetChanged(f"{root / one.path} cannot be read ({error.strerror}); put it back.") from error
    if hashlib.sha256(content).hexdigest() != one.sha256:
        raise SetChanged(f"{root / one.path} is not the file that the set was made with; put it back.")
    return np.asarray(decode(content))


def write_manifest(path: Path, files: list[ImageFile]) -> None:
    """The list as Parquet, whole or not at all."""
    import pyarrow as pa
    from pyarrow import parquet

    columns = {
        "path": pa.array([one.path for one in files], pa.string()),
        "class_index": pa.array([one.class_index for one in files], pa.int32()),
        "sha256": pa.array([one.sha256 for one in files], pa.string()),
    }
    with atomic_file(path) as handle:
        parquet.write_table(pa.table(columns), handle)


def read_manifest(path: Path) -> Iterator[ImageFile]:
    """The list as it was written. OSError where it is gone."""
    from pyarrow import parquet

    for row in parquet.read_table(path).to_pylist():
        yield ImageFile(row["path"], row["class_index"], row["sha256"])
