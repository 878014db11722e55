"""Evaluation sets: val photos of the workspace, frozen builds, and folders or lists of images that were registered.

Few-shot photos are of the train split and so never among the val photos. No torch.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Build, BuildItem, Candidate, EvaluationSet, ImageClass, SourceImage, Split
from db.progress import Progress
from db.queries import source_count
from db.workspace import Workspace
from ospcoop.data import OpenPhoto
from ospcoop.evaluation.image_files import (
    Decode,
    ImageFile,
    SetChanged,
    check_files,
    list_folder,
    open_file,
    read_imglist,
    read_manifest,
    write_manifest,
)
from ospcoop.evaluation.request import VAL, EvaluationError
from ospcoop.images import SIDE, SQUASHED, ImageRef, read_png

Role = Literal["id", "ood"]
CLASSIC: dict[str, str] = {
    "inaturalist": "iNaturalist",
    "inat": "iNaturalist",
    "sun": "SUN",
    "places": "Places",
    "textures": "Textures",
    "texture": "Textures",
    "dtd": "Textures",
}
"""How the four usual OOD sets may be called, in letters alone, and the one name they go by."""
CLASSIC_NAMES = ("iNaturalist", "SUN", "Places", "Textures")
FOLDER = "evaluation/sets"
SHOWN_SKIPPED = 50
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,79}")
_BUILD_LABEL = re.compile(r"(.+)-v(\d+)")


class UnknownSet(LookupError):
    """No evaluation set has that name; the message names those there are."""


@dataclass(frozen=True)
class SetInfo:
    """What a page says of a set. ``kind`` is val, build, folder or imglist; ``where`` the folder, list or rule's name.

    ``sha256`` is that of the content (of a build its own), None for val photos, which may be added to; ``skipped``
    counts files left out.
    """

    name: str
    role: Role
    group: str
    kind: str
    images: int
    where: str
    sha256: str | None = None
    skipped: int = 0
    skipped_files: tuple[str, ...] = ()


@dataclass(frozen=True)
class SetImage:
    """One image of a set. ``partner`` is its source photo as the candidate was made from it, for a build's images."""

    name: str
    image: ImageRef
    class_index: int | None
    source_id: int | None = None
    candidate_id: int | None = None
    partner: ImageRef | None = None


@dataclass(frozen=True)
class ImageSet:
    """A set's images in a fixed order, and what it is called."""

    name: str
    role: Role
    group: str
    images: tuple[SetImage, ...]

    @property
    def sha256(self) -> str:
        """Of every image's class, bytes and name: the set's identity, whatever it is called."""
        lines = (f"{one.class_index} {one.image.key} {one.name}" for one in self.images)
        return hashlib.sha256("\n".join(lines).encode()).hexdigest()


@dataclass(frozen=True)
class Readers:
    """How pixels are read: ``photo`` opens a source of the workspace, ``decode`` a file's bytes."""

    photo: OpenPhoto
    decode: Decode


def classic_name(name: str) -> str | None:
    """iNaturalist, SUN, Places or Textures where a set is called so, else None. Places365 is another set."""
    return CLASSIC.get(re.sub(r"[^a-z0-9]", "", name.lower()))


def register(
    workspace: Workspace,
    name: str,
    root: Path,
    decode: Decode,
    progress: Progress,
    *,
    role: Role = "ood",
    imglist: Path | None = None,
) -> SetInfo:
    """Make a set of a folder's images, or of those that an OpenOOD list names relative to ``root``.

    Every file is decoded once; those that cannot be are named and left out. Raises :class:`db.progress.Cancelled`, and
    :class:`~ospcoop.evaluation.request.EvaluationError` for a name that is taken or no name, a folder without a
    readable image, an ID set's image without a class.
    """
    root = root.expanduser().resolve()
    _check_new_name(workspace, name)
    if role not in ("id", "ood"):
        raise EvaluationError(f"A set's role is id or ood, not {role!r}.")
    with workspace.read() as session:
        index_of = dict(session.execute(select(ImageClass.wnid, ImageClass.class_index)).all())
    if imglist is None:
        found = list_folder(root, index_of, needs_class=role == "id")
    else:
        found = read_imglist(imglist, root, len(index_of), needs_class=role == "id")
    files, skipped = check_files(root, found, decode, progress)
    if not files:
        raise EvaluationError(f"None of the {len(found)} images in {root} can be read. {skipped[0]}")
    for line in skipped[:SHOWN_SKIPPED]:
        progress.log(f"Left out: {line}")
    manifest = f"{FOLDER}/{name}.parquet"
    write_manifest(workspace.path(manifest), files)
    row = EvaluationSet(
        name=name,
        role=role,
        group="classic" if role == "ood" and classic_name(name) else "other",
        spec={
            "kind": "folder" if imglist is None else "imglist",
            "root": str(root),
            "imglist": None if imglist is None else str(imglist),
            "manifest": manifest,
            "images": len(files),
            "skipped": len(skipped),
            "skipped_files": skipped[:SHOWN_SKIPPED],
        },
    )
    row.spec["sha256"] = ImageSet(name, role, row.group, _of_files(root, files, decode)).sha256
    with workspace.write() as session:
        session.add(row)
    return _registered(row)


def _check_new_name(workspace: Workspace, name: str) -> None:
    if not _NAME.fullmatch(name) or name == VAL or _BUILD_LABEL.fullmatch(name):
        raise EvaluationError(
            f"A set is named by letters, digits, '-', '_' and '.', and neither {VAL!r} nor as a build is; not {name!r}."
        )
    with workspace.read() as session:
        if session.scalar(select(EvaluationSet.id).where(EvaluationSet.name == name)) is not None:
            raise EvaluationError(f"There is a set called {name} already; remove it first or choose another name.")


def remove(workspace: Workspace, name: str) -> None:
    """Forget a registered set; its images stay where they are, and results on it stay. Raises :class:`UnknownSet`."""
    with workspace.write() as session:
        row = session.scalar(select(EvaluationSet).where(EvaluationSet.name == name))
        if row is None:
            raise UnknownSet(f"No set called {name!r} was registered; val photos and builds cannot be removed here.")
        session.delete(row)
    workspace.path(row.spec["manifest"]).unlink(missing_ok=True)


def available_sets(session: Session) -> list[SetInfo]:
    """Val photos, registered sets by name, then frozen builds, of each name the newest first."""
    sets = []
    photos = source_count(session, Split.VAL)
    if photos:
        sets.append(SetInfo(VAL, "id", "other", "val", photos, "val photos of this workspace"))
    rows = session.scalars(select(EvaluationSet).order_by(EvaluationSet.role, EvaluationSet.name))
    sets += [_registered(row) for row in rows]
    builds = session.scalars(select(Build).order_by(Build.name, Build.number.desc()))
    return sets + [_of_build(build) for build in builds]


def default_ood_sets(session: Session) -> list[str]:
    """Every registered OOD set, the classic four first, and the newest build of each name."""
    order = {name: place for place, name in enumerate(CLASSIC_NAMES)}
    registered, builds = [], {}
    for one in available_sets(session):
        if one.kind == "build":
            builds.setdefault(one.name.rpartition("-v")[0], one.name)
        elif one.role == "ood":
            registered.append(one)
    registered.sort(key=lambda one: (order.get(classic_name(one.name) or "", len(order)), one.name))
    return [one.name for one in registered] + list(builds.values())


def resolve(workspace: Workspace, name: str, readers: Readers) -> ImageSet:
    """The set's images; none is opened. Raises :class:`UnknownSet`, and
    :class:`~ospcoop.evaluation.image_files.SetChanged` where its list is gone."""
    with workspace.read() as session:
        if name == VAL:
            return ImageSet(VAL, "id", "other", _val_photos(session, readers.photo))
        row = session.scalar(select(EvaluationSet).where(EvaluationSet.name == name))
        if row is not None:
            manifest = workspace.path(row.spec["manifest"])
            try:
                files = list(read_manifest(manifest))
            except OSError as error:
                raise SetChanged(f"{manifest}, set {name}'s list, cannot be read; register it again.") from error
            return ImageSet(name, row.role, row.group, _of_files(Path(row.spec["root"]), files, readers.decode))
        build = _find_build(session, name)
        if build is None:
            names = ", ".join(one.name for one in available_sets(session)) or "none yet"
            raise UnknownSet(f"There is no evaluation set called {name!r}. There are: {names}.")
        return ImageSet(name, "ood", "bg", _build_images(workspace, session, build))


def _registered(row: EvaluationSet) -> SetInfo:
    spec = row.spec
    return SetInfo(
        row.name,
        row.role,
        row.group,
        spec["kind"],
        spec["images"],
        spec["imglist"] or spec["root"],
        spec["sha256"],
        spec["skipped"],
        tuple(spec["skipped_files"]),
    )


def _of_build(build: Build) -> SetInfo:
    label = f"{build.name}-v{build.number}"
    return SetInfo(label, "ood", "bg", "build", build.item_count, f"build {label}", build.content_hash)


def _find_build(session: Session, label: str) -> Build | None:
    match = _BUILD_LABEL.fullmatch(label)
    if match is None:
        return None
    return session.scalar(select(Build).where(Build.name == match[1], Build.number == int(match[2])))


def _of_files(root: Path, files: Iterable[ImageFile], decode: Decode) -> tuple[SetImage, ...]:
    return tuple(
        SetImage(one.path, ImageRef(one.sha256, partial(open_file, root, one, decode)), one.class_index)
        for one in files
    )


def _val_photos(session: Session, photo: OpenPhoto) -> tuple[SetImage, ...]:
    query = select(SourceImage).where(SourceImage.split == Split.VAL).order_by(SourceImage.name)
    return tuple(
        SetImage(one.name, ImageRef(one.sha256, partial(_open_photo, photo, one)), one.class_index, one.id)
        for one in session.scalars(query)
    )


def _open_photo(photo: OpenPhoto, source: SourceImage) -> np.ndarray:
    return np.asarray(photo(source))


def _build_images(workspace: Workspace, session: Session, build: Build) -> tuple[SetImage, ...]:
    query = (
        select(
            BuildItem.candidate_id,
            BuildItem.source_name,
            BuildItem.class_index,
            BuildItem.result_sha256,
            Candidate.source_id,
            Candidate.folder,
            Candidate.variant,
            Candidate.width,
            Candidate.height,
            SourceImage.sha256,
        )
        .join(Candidate, Candidate.id == BuildItem.candidate_id)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(BuildItem.build_id == build.id)
        .order_by(BuildItem.position)
    )
    images = []
    for row in session.execute(query):
        folder = workspace.path(row.folder)
        # At 224 pixels raw.png is the squash that training features are made of, too.
        variant = SQUASHED if (row.width, row.height) == (SIDE, SIDE) else ""
        images.append(
            SetImage(
                row.source_name + (f"-variant{row.variant}" if row.variant else ""),
                ImageRef(row.result_sha256, partial(_open_png, folder / "result.png")),
                row.class_index,
                row.source_id,
                row.candidate_id,
                ImageRef(row.sha256, partial(_open_png, folder / "raw.png"), variant),
            )
        )
    return tuple(images)


def _open_png(path: Path) -> np.ndarray:
    return np.asarray(read_png(path, "RGB"))
