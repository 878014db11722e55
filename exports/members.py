"""A build's members one by one, as every archive format needs them: names, lineage, scores, pixels."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path
from typing import BinaryIO, TextIO

from sqlalchemy import func, select

from db.models import Build, BuildItem, Candidate, ImageClass, Kind, Recipe, SourceImage
from db.workspace import Workspace
from exports.protocols import ExportError

RESULT_NAME = "result.png"
IMAGES_FOLDER = "images"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_MAX_STEM = 180
_CHUNK = 1 << 20


@dataclass(frozen=True)
class MetadataRow:
    """One line of metadata.csv; the fields are the columns, in order. The data card explains each."""

    file_name: str
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
    recipe_hash: str


METADATA_COLUMNS: tuple[str, ...] = tuple(field.name for field in fields(MetadataRow))


@dataclass(frozen=True)
class Member:
    """A build's image: its line of metadata, and where its PNG is in the workspace."""

    row: MetadataRow
    candidate_id: int
    png: Path


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


def iter_members(workspace: Workspace, build: Build) -> Iterator[Member]:
    """The build's members sorted by file name, with one class in memory at a time.

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
        yield from _class_members(workspace, build, image_class, first, last, recipe_hash)


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
            row = MetadataRow(
                file_name=f"{IMAGES_FOLDER}/{image_class.wnid}/{file_stem(item.source_name)}.png",
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
                recipe_hash=recipe_hash,
            )
            if row.file_name in members:
                other = members[row.file_name].row.source_name
                raise ExportError(f"The sources {other!r} and {item.source_name!r} would share {row.file_name}.")
            members[row.file_name] = Member(row, candidate.id, workspace.path(f"{candidate.folder}/{RESULT_NAME}"))
    return [members[name] for name in sorted(members)]


def write_metadata(rows: Iterable[MetadataRow], target: TextIO) -> None:
    """metadata.csv: a header and one line a row; ``\\n`` line ends, floats rounded to 6 decimals."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(METADATA_COLUMNS)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in METADATA_COLUMNS])


def copy_png(member: Member, target: BinaryIO) -> None:
    """Copy the member's PNG, checking on the way that it is the file that was frozen.

    Raises :class:`ExportError` naming the candidate when the file is missing, unreadable or changed; by
    then part of it may have been copied.
    """
    digest = hashlib.sha256()
    try:
        source = member.png.open("rb")
    except OSError as error:
        raise ExportError(f"{_named(member)} cannot be read ({error.strerror}). {_remedy(member)}") from error
    with source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            target.write(chunk)
    if digest.hexdigest() != member.row.result_sha256:
        raise ExportError(f"{_named(member)} is not the file that was frozen: its sha256 differs. {_remedy(member)}")


def _named(member: Member) -> str:
    return f"The image of candidate {member.candidate_id} (source {member.row.source_name}), {member.png},"


def _remedy(member: Member) -> str:
    return (
        f"Put the file with sha256 {member.row.result_sha256} back from a copy of the workspace, or generate "
        f"the source again under recipe {member.row.recipe_hash[:12]}; then export again."
    )


def _cell(value: str | int | float) -> str:
    return repr(round(value, 6) + 0.0) if isinstance(value, float) else str(value)
