"""Recording photos as source images: checked, hashed, labelled, and left where they are.

Whether a photo is already there is told by its bytes and its place, so an import can be stopped at any
point and run again, and running it twice adds nothing. What one file becomes depends on the list of
files and on what was recorded before, never on batches, threads or where the last run stopped.

A photo's name is its stem. Where the list holds a stem more than once, or another photo has that name
already, it is ``wnid/stem``. The same bytes under another name or class are another source image
(ImageNet val holds such pairs); the same bytes, class and name in a moved folder are the same one.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from db.models import ImageClass, SourceImage, Split
from db.progress import NoProgress, Progress
from db.queries import CLASS_LIST_SHA256, get_meta, set_meta
from db.workspace import Workspace
from generation.classes import ClassList, load_imagenet_classes
from generation.decode import MAX_BYTES, TOO_MANY_BYTES, UnreadableImage, decode_rgb
from generation.sources.listing import Listed, list_demo, list_flat, list_imagefolder, real_root, stems_that_repeat
from generation.sources.spec import ImportSpec, ImportSummary, SkippedFile, SourceImportError

BATCH_SIZE = 256

CHANGED = "changed"
DUPLICATE_NAME = "duplicate_name"
OTHER_CLASS = "other_class"
OTHER_SPLIT = "other_split"
UNREADABLE = "unreadable"


class _Recorded(NamedTuple):
    """What matters of a row when a file is compared with it."""

    name: str
    split: Split
    sha256: str
    class_index: int
    size: tuple[int, int]


class _Photo(NamedTuple):
    """A file that was read and is an image.

    ``any_name`` is the stem and ``wnid/stem``; ``names`` those of the two it may get, the one to prefer first.
    """

    listed: Listed
    any_name: tuple[str, str]
    names: tuple[str, ...]
    sha256: str
    bytes: int
    size: tuple[int, int]


# What a look at one file gives: a photo to record, the reason it is skipped, or None for one already there.
_Look = _Photo | SkippedFile | None
# What a file has become at last; None stands for already there.
_ADDED = "added"
_End = SkippedFile | Literal["added"] | None


def ensure_class_list(session: Session) -> ClassList:
    """The class list, written into a workspace that has none yet (which needs a write transaction).

    Raises :class:`SourceImportError` where the workspace was begun with another class list.
    """
    classes = load_imagenet_classes()
    recorded = get_meta(session, CLASS_LIST_SHA256)
    if recorded is None:
        session.add_all(
            ImageClass(class_index=index, wnid=wnid, name=name)
            for index, (wnid, name) in enumerate(zip(classes.wnids, classes.names, strict=True))
        )
        set_meta(session, CLASS_LIST_SHA256, classes.sha256)
        session.flush()
    elif recorded != classes.sha256:
        raise SourceImportError(
            f"This workspace was begun with another class list ({recorded[:12]}) than the installed one "
            f"({classes.sha256[:12]}); run `uv sync` with the versions it was made with, or begin a new workspace."
        )
    return classes


def import_images(workspace: Workspace, spec: ImportSpec, progress: Progress | None = None) -> ImportSummary:
    """Record the photos ``spec`` names and return what became of each. Files are read, never written or moved.

    Raises :class:`SourceImportError` where the import cannot start as asked, and lets
    :class:`db.progress.Cancelled` and KeyboardInterrupt through: what was committed stays, and the same
    call again goes on from there.
    """
    progress = progress or NoProgress()
    root, listed = _list(spec, load_imagenet_classes())
    with workspace.write() as session:
        classes = ensure_class_list(session)
    reader = _Reader(workspace, root, spec.split, classes, stems_that_repeat(listed))
    summary = ImportSummary()
    progress.update(0, len(listed), "importing")
    batch: list[_Look] = []
    for look in _in_order(reader.look, listed):
        batch.append(look)
        done = summary.found + len(batch)
        if len(batch) == BATCH_SIZE or done == len(listed):
            _commit(workspace, root, spec.split, batch, summary)
            batch = []
        progress.update(done, len(listed), "importing")
    progress.log(str(summary))
    return summary


def _list(spec: ImportSpec, classes: ClassList) -> tuple[Path, list[Listed]]:
    if spec.layout == "demo":
        return list_demo(classes)
    root = real_root(spec.root)
    if spec.layout == "imagefolder":
        return root, list_imagefolder(root, classes)
    if spec.layout != "flat":
        raise SourceImportError(f"The layout must be imagefolder, flat or demo, not {spec.layout!r}.")
    if spec.ground_truth is None:
        raise SourceImportError(
            f"The flat folder {root} says nothing of classes; name its ground-truth file, such as Kaggle's "
            "LOC_val_solution.csv or the development kit's ILSVRC2012_validation_ground_truth.txt."
        )
    return root, list_flat(root, spec.ground_truth.expanduser(), classes)


class _Reader:
    """Looks at one file at a time, in any thread, against the rows that were there when the import began."""

    def __init__(
        self, workspace: Workspace, root: Path, split: Split, classes: ClassList, repeated: frozenset[str]
    ) -> None:
        self._root = root
        self._split = split
        self._classes = classes
        self._repeated = repeated
        self._by_path: dict[str, _Recorded] = {}
        self._size_of: dict[str, tuple[int, int]] = {}
        with workspace.read() as session:
            for row_root, path, row in _recorded(session):
                self._size_of[row.sha256] = row.size
                if row_root == str(root):
                    self._by_path[path] = row

    def look(self, listed: Listed) -> _Look:
        """Reads and hashes the file, and decodes it in full unless its very bytes were decoded before."""
        if listed.class_index is None:
            return SkippedFile(listed.path, listed.code, listed.message)
        known = self._by_path.get(listed.path)
        if known is not None and known.split != self._split:
            return _other_split(listed, known)
        try:
            content = _read(self._root / listed.path)
            sha256 = hashlib.sha256(content).hexdigest()
            if known is not None:
                return self._compare(listed, known, sha256)
            size = self._size_of.get(sha256) or decode_rgb(content).size
        except UnreadableImage as error:
            return SkippedFile(listed.path, error.code, error.message)
        except OSError as error:
            return SkippedFile(listed.path, UNREADABLE, f"The file cannot be read: {error.strerror}.")
        stem = Path(listed.path).stem
        any_name = (stem, f"{self._classes.wnids[listed.class_index]}/{stem}")
        names = any_name[1:] if stem in self._repeated else any_name
        return _Photo(listed, any_name, names, sha256, len(content), size)

    def _compare(self, listed: Listed, known: _Recorded, sha256: str) -> SkippedFile | None:
        if known.sha256 != sha256:
            return SkippedFile(
                listed.path,
                CHANGED,
                f"The file is no longer the one recorded as {known.name}; put the original back, "
                "or import the new one under another file name.",
            )
        if known.class_index != listed.class_index:
            return SkippedFile(
                listed.path,
                OTHER_CLASS,
                f"It is recorded as {known.name} with class {known.class_index}, not {listed.class_index}; "
                "another labelling needs a workspace of its own.",
            )
        return None


def _read(path: Path) -> bytes:
    with path.open("rb") as handle:
        if os.fstat(handle.fileno()).st_size > MAX_BYTES:
            raise UnreadableImage(TOO_MANY_BYTES, f"The file is larger than {MAX_BYTES} bytes.")
        return handle.read(MAX_BYTES + 1)


def _other_split(listed: Listed, known: _Recorded) -> SkippedFile:
    return SkippedFile(
        listed.path,
        OTHER_SPLIT,
        f"The same photo is recorded as {known.name} among the {known.split} sources; the two never mix.",
    )


def _recorded(session: Session, *conditions) -> Iterator[tuple[str, str, _Recorded]]:
    """Root, path and the rest of each row that meets one of the conditions; of every row without conditions."""
    query = select(
        SourceImage.root,
        SourceImage.path,
        SourceImage.name,
        SourceImage.split,
        SourceImage.sha256,
        SourceImage.class_index,
        SourceImage.width,
        SourceImage.height,
    )
    for root, path, name, split, sha256, index, width, height in session.execute(
        query.where(or_(*conditions)) if conditions else query
    ):
        yield root, path, _Recorded(name, split, sha256, index, (width, height))


def _in_order(look: Callable[[Listed], _Look], listed: Iterable[Listed]) -> Iterator[_Look]:
    """``look`` on a few threads, its results in the list's order, with only a short stretch of it in work at once."""
    # Hashing and decoding release the interpreter's lock; more threads than this wait for the disk.
    workers = min(4, os.cpu_count() or 1)
    pool = ThreadPoolExecutor(workers, thread_name_prefix="import")
    try:
        waiting: deque[Future[_Look]] = deque()
        for item in listed:
            waiting.append(pool.submit(look, item))
            if len(waiting) >= 4 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _commit(workspace: Workspace, root: Path, split: Split, batch: list[_Look], summary: ImportSummary) -> None:
    """Record a batch's photos in one transaction, then count it: an interrupted batch is as if never looked at."""
    photos = [look for look in batch if isinstance(look, _Photo)]
    ends: dict[str, _End] = {}
    if photos:
        with workspace.write() as session:
            ends = _record(session, root, split, photos)
    for look in batch:
        end = ends[look.listed.path] if isinstance(look, _Photo) else look
        summary.found += 1
        if end is _ADDED:
            summary.added += 1
        elif end is None:
            summary.already_there += 1
        else:
            summary.skipped.append(end)


def _record(session: Session, root: Path, split: Split, photos: list[_Photo]) -> dict[str, _End]:
    """Add the photos that are new, and tell by path what became of each.

    The rows are asked again here, under the write lock: another import may have added some meanwhile.
    """
    names = [name for photo in photos for name in photo.names]
    hashes = [photo.sha256 for photo in photos]
    by_name: dict[str, _Recorded] = {}
    by_sha256: dict[str, list[_Recorded]] = {}
    for _, _, row in _recorded(session, SourceImage.name.in_(names), SourceImage.sha256.in_(hashes)):
        by_name[row.name] = row
        by_sha256.setdefault(row.sha256, []).append(row)
    ends: dict[str, _End] = {}
    for photo in photos:
        listed = photo.listed
        same_bytes = by_sha256.get(photo.sha256, [])
        elsewhere = next((row for row in same_bytes if row.split != split), None)
        free = next((name for name in photo.names if name not in by_name), None)
        if elsewhere is not None:
            ends[listed.path] = _other_split(listed, elsewhere)
        elif any(row.class_index == listed.class_index and row.name in photo.any_name for row in same_bytes):
            ends[listed.path] = None
        elif free is None:
            ends[listed.path] = SkippedFile(
                listed.path,
                DUPLICATE_NAME,
                f"Another photo is already recorded as {photo.names[-1]}; give this file another name.",
            )
        else:
            row = _Recorded(free, split, photo.sha256, listed.class_index, photo.size)
            by_name[free] = row
            by_sha256.setdefault(row.sha256, []).append(row)
            session.add(_source_image(root, photo, row))
            ends[listed.path] = _ADDED
    return ends


def _source_image(root: Path, photo: _Photo, row: _Recorded) -> SourceImage:
    return SourceImage(
        name=row.name,
        split=row.split,
        root=str(root),
        path=photo.listed.path,
        sha256=row.sha256,
        bytes=photo.bytes,
        width=row.size[0],
        height=row.size[1],
        class_index=row.class_index,
    )
