"""A build's members one by one, as every archive format needs them: names, lineage, scores, pixels."""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from pathlib import Path
from typing import TextIO

from sqlalchemy import Row, select

from db.models import Build, BuildItem, Candidate, ImageClass, Kind, Recipe, SourceImage
from db.workspace import Workspace
from exports.coding import ImageCoding
from exports.protocols import ExportError
from exports.splits import part_of

IMAGES_FOLDER = "images"
_SAFE = re.compile(r"[A-Za-z0-9_-]+")
_UNSAFE_CHARACTER = re.compile(r"[^A-Za-z0-9_-]")
_MAX_STEM = 180
_PAGE = 5_000


@dataclass(frozen=True, slots=True)
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


@dataclass(frozen=True, slots=True)
class Member:
    """A build's image: its line of metadata, and the folder its files are in."""

    row: MetadataRow
    candidate_id: int
    folder: str

    @property
    def png(self) -> Path:
        return Path(self.folder, "result.png")

    @property
    def mask_png(self) -> Path:
        return Path(self.folder, "mask.png")

    @property
    def dilated_png(self) -> Path:
        return Path(self.folder, "dilated.png")

    @property
    def source_png(self) -> Path:
        """The source photo at the working size, as the candidate was made from it."""
        return Path(self.folder, "raw.png")


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


def list_members(workspace: Workspace, build: Build, coding: ImageCoding, part: str = "") -> list[Member]:
    """The build's members (of one part, if one is named) sorted by file name, as ``coding`` names them.

    Raises :class:`ExportError` for a wnid that is no folder name and for two members with one file name.
    """
    query = (
        select(
            BuildItem.candidate_id,
            BuildItem.class_index,
            BuildItem.source_name,
            BuildItem.result_sha256,
            BuildItem.drop,
            BuildItem.residual,
            BuildItem.area,
            BuildItem.accepts,
            BuildItem.rejects,
            BuildItem.decided_by,
            BuildItem.part,
            Candidate.folder,
            Candidate.kind,
            Candidate.variant,
            Candidate.version,
            Candidate.rank,
            Candidate.probability,
            Candidate.dilated_area,
            Candidate.phash,
            SourceImage.sha256.label("source_sha256"),
        )
        .join(Candidate, Candidate.id == BuildItem.candidate_id)
        .join(SourceImage, SourceImage.id == Candidate.source_id)
        .where(BuildItem.build_id == build.id)
        .execution_options(yield_per=_PAGE)
    )
    with workspace.read() as session:
        classes = {
            index: (wnid, name)
            for index, wnid, name in session.execute(select(ImageClass.class_index, ImageClass.wnid, ImageClass.name))
        }
        recipe_hash = session.get_one(Recipe, build.recipe_id).hash
        found = [_member(row, classes, recipe_hash, coding, workspace.root) for row in session.execute(query)]
    members = sorted((m for m in found if part in ("", m.row.part)), key=lambda m: m.row.file_name)
    for one, other in pairwise(members):
        if one.row.file_name == other.row.file_name:
            names = f"{one.row.source_name!r} and {other.row.source_name!r}"
            raise ExportError(f"The sources {names} would share {one.row.file_name}.")
    return members


def _member(item: Row, classes: dict, recipe_hash: str, coding: ImageCoding, root: Path) -> Member:
    wnid, class_name = classes[item.class_index]
    if not _SAFE.fullmatch(wnid):
        raise ExportError(f"The wnid {wnid!r} cannot name a folder; correct the class list.")
    if item.folder.startswith("/") or ".." in item.folder.split("/"):
        raise ExportError(f"Candidate {item.candidate_id} lies in {item.folder!r}, outside of the workspace.")
    key = f"{wnid}/{_stem(item.source_name, item.variant)}{coding.suffix}"
    row = MetadataRow(
        file_name=f"{IMAGES_FOLDER}/{key}",
        key=key,
        wnid=wnid,
        class_index=item.class_index,
        class_name=class_name,
        source_name=item.source_name,
        source_sha256=item.source_sha256,
        result_sha256=item.result_sha256,
        kind=item.kind,
        version=item.version,
        drop=item.drop,
        residual=item.residual,
        rank=item.rank,
        probability=item.probability,
        area=item.area,
        dilated_area=item.dilated_area,
        phash=item.phash,
        accepts=item.accepts,
        rejects=item.rejects,
        decided_by=item.decided_by,
        part=item.part or part_of(item.source_sha256),
        recipe_hash=recipe_hash,
    )
    return Member(row, item.candidate_id, f"{root}/{item.folder}")


def _stem(source_name: str, variant: int) -> str:
    return file_stem(source_name) + (f"-variant{variant}" if variant else "")


def write_metadata(rows: Iterable[MetadataRow], target: TextIO) -> None:
    """metadata.csv: a header and one line a row; ``\\n`` line ends, floats rounded to 6 decimals."""
    writer = csv.writer(target, lineterminator="\n")
    writer.writerow(METADATA_COLUMNS)
    for row in rows:
        writer.writerow([cell(getattr(row, name)) for name in METADATA_COLUMNS])


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


def cell(value: str | int | float) -> str:
    """A value as metadata.csv writes it: floats rounded to 6 decimals."""
    return repr(round(value, 6) + 0.0) if isinstance(value, float) else str(value)
