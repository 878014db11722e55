"""An archive on its way back in: its images one by one, with what the archive records of each, and their masks.

Two layouts are known. An archive of this tool, in any of its formats, has metadata.csv and build.json and must pass
:func:`exports.checking.check_archive`. The published layout has images alone, named by their photo
(``ILSVRC2012_val_00000001.JPEG``), in wnid folders or flat.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import numpy as np

from db.models import Kind
from db.progress import NoProgress, Progress
from exports.checking import check_archive
from exports.coco import ANNOTATIONS
from exports.id_side import ID_SIDE
from exports.kaggle import COVER_NAME
from exports.members import file_stem
from exports.opened import OpenedArchive
from exports.protocols import ExportError

METADATA_NAME = "metadata.csv"
MAX_NAMED = 20
_SUFFIXES = frozenset({".png", ".jpg", ".jpeg"})
_WNID = re.compile(r"n\d{8}")
_VARIANT = re.compile(r"-variant(\d{1,6})")


class ArchiveRefused(ExportError):
    """An archive that is not taken in; the message names what is wrong with it. Nothing was imported."""


@dataclass(frozen=True, slots=True)
class IncomingImage:
    """One image. ``name`` is its photo's: the source's full name where recorded, else the file's stem.

    ``wnid`` is empty where no folder gives one, ``recorded`` the line of metadata.csv, empty where there is none.
    """

    file: str
    name: str
    wnid: str
    kind: Kind = Kind.BACKGROUND
    variant: int = 0
    version: int = 1
    recorded: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """``<wnid>/<stem>``, which names it in a COCO archive of the same build too."""
        variant = f"-variant{self.variant}" if self.variant else ""
        return f"{self.wnid}/{file_stem(self.name)}{variant}"


@dataclass(frozen=True)
class IncomingArchive:
    """An opened archive. ``identity`` is equal for the same images whatever the container they come in.

    ``recipe_hash`` and ``recipe`` are those the archive states, empty where it states none.
    """

    label: str
    identity: str
    recipe_hash: str
    recipe: dict
    images: list[IncomingImage]
    _opened: OpenedArchive
    _masks: dict[str, dict]

    def read(self, image: IncomingImage) -> bytes:
        """The image's bytes. Raises :class:`exports.opened.ArchiveDamaged`."""
        return self._opened.read(image.file)

    def masks(self, image: IncomingImage) -> tuple[np.ndarray, np.ndarray] | None:
        """The object's mask and the inpainted pixels, each ``HxW uint8``, 255 = masked; None where none were given."""
        annotation = self._masks.get(image.key)
        if annotation is None:
            return None
        return _decoded(annotation["segmentation"]), _decoded(annotation["inpainted"])


@contextmanager
def open_incoming(path: Path, masks: Path | None = None, progress: Progress | None = None) -> Iterator[IncomingArchive]:
    """Open and check an archive (zip or folder), and the COCO archive of its masks where one is given.

    Raises :class:`ArchiveRefused`, :class:`exports.opened.ArchiveDamaged` and, through ``progress``, Cancelled.
    """
    progress = progress or NoProgress()
    with OpenedArchive(path) as opened:
        if any(name.rpartition("/")[2] == METADATA_NAME for name in opened.files):
            _check(path, progress)
            yield _own(opened, masks, progress)
        else:
            yield _published(opened, masks, progress)


def _check(path: Path, progress: Progress) -> None:
    faults = [fault for finding in check_archive(path, progress=progress).findings for fault in finding.faults]
    if faults:
        raise ArchiveRefused(
            f"{path} is not in order, so nothing was imported: {_first(faults)} "
            "`launch.py check` says more; get a whole copy of the archive."
        )


def _own(opened: OpenedArchive, masks: Path | None, progress: Progress) -> IncomingArchive:
    name = next(name for name in opened.files if name.rpartition("/")[2] == METADATA_NAME)
    folder = name.removesuffix(METADATA_NAME)
    build = json.loads(opened.read("build.json"))
    if build.get("side") == ID_SIDE:
        raise ArchiveRefused(f"{opened.path} holds the ID side: source photos, which are no candidates.")
    rows = csv.DictReader(io.StringIO(opened.read(name).decode(), newline=""), strict=True)
    images = [_recorded_image(f"{folder}{row['file_name']}", row) for row in rows]
    if not images:
        raise ArchiveRefused(f"{opened.path} holds no image.")
    identity = hashlib.sha256(json.dumps([build["content_hash"], build.get("images")]).encode()).hexdigest()
    annotations = _annotations(masks, progress, build["content_hash"]) if masks else {}
    return IncomingArchive(
        build["label"], identity, build["recipe_hash"], build.get("recipe") or {}, images, opened, annotations
    )


def _recorded_image(file: str, row: dict[str, str]) -> IncomingImage:
    stem = PurePosixPath(row["key"]).stem
    variant = _VARIANT.fullmatch(stem.removeprefix(file_stem(row["source_name"])))
    try:
        return IncomingImage(
            file,
            row["source_name"],
            row["wnid"],
            Kind(row["kind"]),
            int(variant[1]) if variant else 0,
            int(row["version"]),
            row,
        )
    except ValueError as error:
        raise ArchiveRefused(f"{file}: its line of {METADATA_NAME} cannot be read ({error}).") from error


def _published(opened: OpenedArchive, masks: Path | None, progress: Progress) -> IncomingArchive:
    files = sorted(
        name
        for name in opened.names()
        if PurePosixPath(name).suffix.lower() in _SUFFIXES
        and PurePosixPath(name).name != COVER_NAME
        and not name.startswith("__MACOSX/")
    )
    if not files:
        masks_alone = " It holds masks: give it with --masks beside the images." if ANNOTATIONS in opened else ""
        raise ArchiveRefused(f"{opened.path} holds no image (.png, .jpg, .jpeg).{masks_alone}")
    lines = []
    for done, name in enumerate(files):
        progress.update(done, len(files), f"reading {name}")
        lines.append(f"{PurePosixPath(name).stem} {opened.sha256(name)}")
    identity = hashlib.sha256("\n".join(sorted(set(lines))).encode()).hexdigest()
    images = [_named_image(name) for name in files]
    annotations = _annotations(masks, progress) if masks else {}
    return IncomingArchive(opened.path.name, identity, "", {}, images, opened, annotations)


def _named_image(file: str) -> IncomingImage:
    path = PurePosixPath(file)
    wnid = path.parent.name if _WNID.fullmatch(path.parent.name) else ""
    return IncomingImage(file, path.stem, wnid)


def _annotations(path: Path, progress: Progress, content_hash: str | None = None) -> dict[str, dict]:
    """The annotations of a COCO archive of this tool by image key."""
    _check(path, progress)
    with OpenedArchive(path) as opened:
        if ANNOTATIONS not in opened:
            raise ArchiveRefused(f"{path} holds no {ANNOTATIONS}; --masks wants the archive of format coco.")
        build = json.loads(opened.read("build.json"))
        found = json.loads(opened.read(ANNOTATIONS))
    if content_hash is not None and build["content_hash"] != content_hash:
        raise ArchiveRefused(f"{path} holds the masks of another build, {build['label']}.")
    places = {image["id"]: PurePosixPath(image["file_name"]) for image in found["images"]}
    annotations = {}
    for annotation in found["annotations"]:
        place = places[annotation["image_id"]]
        annotations[f"{place.parent.name}/{place.stem}"] = annotation
        annotations[f"/{place.stem}"] = annotation  # for images that lie flat
    return annotations


def _decoded(coded: dict) -> np.ndarray:
    from pycocotools.mask import decode

    return np.ascontiguousarray(decode({"size": coded["size"], "counts": coded["counts"].encode()}) * np.uint8(255))


def _first(faults: list[str]) -> str:
    more = f" ... and {len(faults) - MAX_NAMED} more." if len(faults) > MAX_NAMED else ""
    return "; ".join(faults[:MAX_NAMED]) + "." + more
