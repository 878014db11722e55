"""A build's members one by one, as every archive format needs them: names, lineage, scores, pixels."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TextIO

from sqlalchemy import func, select

from db.models import Build, BuildItem, Candidate, ImageClass, Kind, Recipe, SourceImage
from db.workspace import Workspace
from exports.coding import ImageCoding
from exports.protocols import ExportError
from exports.splits import part_of

RESULT_NAME = "result.png"
MASK_NAME = "mask.png"
DILATED_NAME = "dilated.png"
SOURCE_NAME = "raw.png"
IMAGES_FOLDER = "images"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_MAX_STEM = 180


@dataclass(frozen=True)
class MetadataRow:
    """One line of metadata.csv; the fields are the columns, in order. The data card explains each."""

    file_name: str
    key: str
    wnid: str
    class_index: int
    class_name: str
    source_name: str
    source_sha256: str
    result_sha256: str
    kind: Kind
    version: int
    drop: float
    residual: float
    rank: int
    probability: float
    area: float
    dilated_area: float
    phash: str
    accepts: int
    rejects: int
    decided_by: str
    part: str
    recipe_hash: str

    def renamed(self, file_name: str) -> MetadataRow:
        return replace(self, file_name=file_name)


METADATA_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(MetadataRow))


@dataclass(frozen=True)
class Member:
    """A build's image: its line of metadata, and where its PNG (and its mask's, its source's) is in the workspace."""

    row: MetadataRow
    candidate_id: int
    png: Path

    @property
    def mask_png(self) -> Path:
        return self.png.with_name(MASK_NAME)

    @property
    def dilated_png(self) -> Path:
        return self.png.with_name(DILATED_NAME)

    @property
    def source_png(self) -> Path:
        """The source photo at the working size, as the candidate was made from it."""
        return self.png.with_name(SOURCE_NAME)

    def coded(self, coding: ImageCoding) -> Member:
        """The same member, named as ``coding`` stores it."""
        row = replace(self.row, file_name=coding.rename(self.row.file_name), key=coding.rename(self.row.key))
        return replace(self, row=row)


def file_stem(source_name: str) -> str:
    """A source's name as a file name without extension: letters, digits, ``_`` and ``-`` only.

    ``/`` becomes ``__`` and any other character ``_``. A name that could not be read back from that ends
    in ``-`` and 12 hex digits of its sha256, so that two sources never share a file. No dot is ever left
    (WebDataset would cut the name there).
    """
    stem = _UNSAFE_CHARACTER.sub("_", source_name.replace("/", "__"))
    if stem and len(stem) <= _MAX_STEM and stem.replace("__", "/") == source_name:
        return stem
    return f"{stem[:_MAX_STEM]}-{hashlib.sha256(source_name.encode()).hexdigest()[:12]}"


def iter_members(workspace: Workspace, build: Build, part: str = "") -> Iterator[Member]:
    """The build's members (of one part, if one is named) sorted by file name, with one class in memory at a time.

    Raises :class:`ExportError` for a wnid that is no folder name and for two members with one file name.
    """
    with workspace.read() as session:
        ranges = session.execute(
            select(ImageClass, func.min(BuildItem.position), func.max(BuildItem.position))
            .join(BuildItem, BuildItem.class_index == ImageClass.class_index)
            .where(BuildItem.build_id == build.id)
            .group_by(ImageClass.class_index)
            .order_by(ImageClass.class_index)
        ).all()
        recipe_hash = session.get_one(Recipe, build.recipe_id).hash
    for image_class, first, last in sorted(ranges, key=lambda found: f"{found[0].wnid}/"):
        if not _SAFE.fullmatch(image_class.wnid):
            raise ExportError(f"The wnid {image_class.wnid!r} cannot name a folder; correct the class list.")
        for member in _class_members(workspace, build, image_class, first, last, recipe_hash):
            if part in ("", member.row.part):
                yield member


def _class_members(
    workspace: Workspace, build: Build, image_class: ImageClass, first: int, last: int, recipe_hash: str
) -> list[Member]:
    query = (
        select(BuildItem, Candidate, SourceImage.sha256)
        .join(Candidate, Candidate.id == BuildItem.candidate_id)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(BuildItem.build_id == build.id, BuildItem.position.between(first, last))
    )
    members: dict[str, Member] = {}
    with workspace.read() as session:
        for item, candidate, source_sha256 in session.execute(query):
            key = f"{image_class.wnid}/{_stem(item.source_name, candidate.variant)}.png"
            row = MetadataRow(
                file_name=f"{IMAGES_FOLDER}/{key}",
                key=key,
                wnid=image_class.wnid,
                class_index=item.class_index,
                class_name=image_class.name,
                source_name=item.source_name,
                source_sha256=source_sha256,
                result_sha256=item.result_sha256,
                kind=candidate.kind,
                version=candidate.version,
                drop=item.drop,
                residual=item.residual,
                rank=candidate.rank,
                probability=candidate.probability,
                area=item.area,
                dilated_area=candidate.dilated_area,
                phash=candidate.phash,
                accepts=item.accepts,
                rejects=item.rejects,
                decided_by=item.decided_by,
                part=item.part or part_of(source_sha256),
                recipe_hash=recipe_hash,
            )
            if row.file_name in members:
                other = members[row.file_name].row.source_name
                raise ExportError(f"The sources {other!r} and {item.source_name!r} would share {row.file_name}.")
            members[row.file_name] = Member(row, candidate.id, workspace.path(f"{candidate.folder}/{RESULT_NAME}"))
    return [members[name] for name in sorted(members)]


def _stem(source_name: str, variant: int) -> str:
    return file_stem(source_name) + (f"-variant{variant}" if variant else "")


def write_metadata(rows: Iterable[MetadataRow], target: TextIO) -> None:
    """metadata.csv: a header and one line a row; ``\\n`` line ends, floats rounded to 6 decimals."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(METADATA_COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in METADATA_COLUMNS])


def read_png(member: Member) -> bytes:
    """The member's PNG, checked to be the file that was frozen.

    Raises :class:`ExportError` naming the candidate when the file is missing, unreadable or changed.
    """
    try:
        content = member.png.read_bytes()
    except OSError as error:
        raise ExportError(f"{_named(member)} cannot be read ({error.strerror}). {_remedy(member)}") from error
    if hashlib.sha256(content).hexdigest() != member.row.result_sha256:
        raise ExportError(f"{_named(member)} is not the file that was frozen: its sha256 differs. {_remedy(member)}")
    return content


def _named(member: Member) -> str:
    return f"The image of candidate {member.candidate_id} (source {member.row.source_name}), {member.png},"


def _remedy(member: Member) -> str:
    return (
        f"Put the file with sha256 {member.row.result_sha256} back from a copy of the workspace, or generate "
        f"the source again under recipe {member.row.recipe_hash[:12]}; then export again."
    )


def _cell(value: str | int | float) -> str:
    return repr(round(value, 6) + 0.0) if isinstance(value, float) else str(value)
