"""Check an archive: sums, names, metadata, every image, the lists, and the database's build where there is one."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path

from PIL import Image
from sqlalchemy import select

from db.models import Build, BuildItem
from db.progress import NoProgress, Progress
from db.workspace import Workspace
from exports.builds import build_label, hash_items
from exports.id_side import COLUMNS, ID_SIDE
from exports.kaggle import COVER_NAME, KAGGLE_METADATA, kaggle_faults
from exports.members import METADATA_COLUMNS, MetadataRow
from exports.opened import ArchiveDamaged, OpenedArchive

MAX_NAMED = 20
MAX_PIXELS = 200_000_000
_SUM = re.compile(r"([0-9a-f]{64}) [ *](.+)")
_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
_KINDS = {"float": float, "int": int}
_NUMBERS = {one.name: _KINDS[str(one.type)] for one in fields(MetadataRow) if one.type in _KINDS}


@dataclass
class Finding:
    """One thing that was checked: how many were looked at, and what is wrong, the first ``MAX_NAMED`` by name."""

    what: str
    looked_at: int = 0
    faults: list[str] = field(default_factory=list)
    more_faults: int = 0
    skipped: str = ""

    @property
    def ok(self) -> bool:
        return not self.faults

    def blame(self, fault: str) -> None:
        if len(self.faults) < MAX_NAMED:
            self.faults.append(fault)
        else:
            self.more_faults += 1


@dataclass(frozen=True)
class CheckReport:
    """What was found, in the order of checking."""

    path: Path
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings)


def check_archive(
    path: Path | str, workspace: Workspace | None = None, progress: Progress | None = None
) -> CheckReport:
    """Check the archive at ``path``: a zip, a folder, or the folder a zip was extracted to.

    With a workspace, also that it is what the workspace's build of that name holds. Raises
    :class:`~exports.opened.ArchiveDamaged` when it cannot be opened at all, and Cancelled through ``progress``.
    """
    with OpenedArchive(Path(path)) as archive:
        checker = _Checker(archive, progress or NoProgress())
        return CheckReport(archive.path, list(checker.run(workspace)))


class _Checker:
    def __init__(self, archive: OpenedArchive, progress: Progress) -> None:
        self._archive = archive
        self._progress = progress
        self._rows: list[dict[str, str]] = []
        self._folder = ""
        self._build: dict = {}

    def run(self, workspace: Workspace | None) -> Iterator[Finding]:
        yield self._sums()
        yield self._description()
        yield self._metadata()
        yield self._images()
        yield self._lists()
        if KAGGLE_METADATA in self._archive.files:
            yield self._kaggle()
        yield self._content_hash()
        if workspace is not None:
            yield self._database(workspace)

    def _sums(self) -> Finding:
        finding = Finding("checksums (SHA256SUMS)")
        try:
            text = self._archive.read("SHA256SUMS").decode()
        except (ArchiveDamaged, UnicodeDecodeError) as error:
            finding.blame(f"SHA256SUMS: {error}")
            return finding
        listed: set[str] = set()
        files = [name for name in self._archive.files if name != "SHA256SUMS"]
        for done, line in enumerate(text.splitlines()):
            match = _SUM.fullmatch(line)
            if match is None:
                finding.blame(f"SHA256SUMS, line {done + 1}: not a sum and a name: {line[:80]!r}")
                continue
            sha256, name = match.groups()
            listed.add(name)
            self._progress.update(done, len(files), f"checksum of {name}")
            finding.looked_at += 1
            if name not in files:
                continue
            try:
                if self._archive.sha256(name) != sha256:
                    finding.blame(f"{name}: its bytes are not those that were written")
            except ArchiveDamaged as error:
                finding.blame(str(error))
        unpacked = _unpacked(listed, files)
        may_lack = {f"{folder}.zip" for folder in unpacked} | ({KAGGLE_METADATA, COVER_NAME} if unpacked else set())
        for name in sorted(listed - set(files) - may_lack):
            finding.blame(f"{name}: listed, but not there")
        for name in sorted(set(files) - listed):
            if name.partition("/")[0] not in unpacked:
                finding.blame(f"{name}: there, but not listed")
        return finding

    def _description(self) -> Finding:
        finding = Finding("build.json", looked_at=1)
        try:
            self._build = json.loads(self._archive.read("build.json"))
            missing = {"label", "content_hash", "item_count", "rule", "recipe_hash"} - set(self._build)
        except (ArchiveDamaged, ValueError, TypeError) as error:
            finding.blame(f"build.json: {error}")
            self._build = {}
            return finding
        if missing:
            finding.blame(f"build.json lacks {', '.join(sorted(missing))}")
        return finding

    def _metadata(self) -> Finding:
        finding = Finding("metadata.csv")
        found = [name for name in self._archive.files if name.rpartition("/")[2] == "metadata.csv"]
        if not found:
            finding.skipped = "this format has none"
            return finding
        self._folder = found[0].rpartition("metadata.csv")[0]
        try:
            reader = csv.DictReader(io.StringIO(self._archive.read(found[0]).decode(), newline=""), strict=True)
            columns = tuple(reader.fieldnames or ())
            expected = tuple(COLUMNS) if self._is_id_side else METADATA_COLUMNS
            if columns != expected:
                finding.blame(f"{found[0]}: its columns are {', '.join(columns)}, not {', '.join(expected)}")
                return finding
            rows = list(reader)
        except (ArchiveDamaged, UnicodeDecodeError, csv.Error) as error:
            finding.blame(f"{found[0]}: {error}")
            return finding
        names = set()
        for number, row in enumerate(rows, 2):
            finding.looked_at += 1
            for fault in _row_faults(row, names):
                finding.blame(f"{found[0]}, line {number}: {fault}")
            names.add(row["file_name"])
        count = self._build.get("archived_count", self._build.get("item_count"))
        if self._build and len(rows) != count:
            finding.blame(f"{found[0]} has {len(rows)} lines, build.json says {count}")
        self._rows = rows
        return finding

    def _images(self) -> Finding:
        finding = Finding("images: there, decodable, 8-bit RGB, as named")
        known = set()
        for done, row in enumerate(self._rows):
            name = self._place(row["file_name"])
            known.add(name)
            self._progress.update(done, len(self._rows), f"image {name}")
            finding.looked_at += 1
            if fault := self._image_fault(name, row):
                finding.blame(f"{name}: {fault}")
        if not self._rows:
            finding.skipped = "no metadata to go by"
            return finding
        self._progress.update(len(self._rows), len(self._rows), "comparing lists")
        for name in self._archive.names():
            if Path(name).suffix.lower() in _FORMATS and name not in known and name != COVER_NAME:
                finding.blame(f"{name}: an image that metadata.csv does not know")
        return finding

    @property
    def _is_id_side(self) -> bool:
        return self._build.get("side") == ID_SIDE

    def _place(self, file_name: str) -> str:
        return f"{self._folder}{file_name}"

    def _image_fault(self, name: str, row: dict[str, str]) -> str:
        try:
            content = self._archive.read(name)
            with Image.open(io.BytesIO(content)) as image:
                if image.width * image.height > MAX_PIXELS:
                    return f"{image.width} x {image.height} pixels are too many"
                if image.format != _FORMATS.get(Path(name).suffix.lower()):
                    return f"holds {image.format}, not what its suffix says"
                if image.mode != "RGB":
                    return f"mode {image.mode}, not 8-bit RGB"
                image.load()
        except ArchiveDamaged as error:
            return str(error)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            return f"cannot be decoded ({error})"
        expected = row["image_sha256"] if self._is_id_side else row["result_sha256"] if name.endswith(".png") else None
        if expected is not None and hashlib.sha256(content).hexdigest() != expected:
            return "not the image that metadata.csv names by its sha256"
        return ""

    def _lists(self) -> Finding:
        """imglists and images_s.txt: every line is an image of the archive."""
        finding = Finding("lists of images")
        known = {self._place(row["file_name"]): row["class_index"] if self._is_id_side else "-1" for row in self._rows}
        for name in self._archive.files:
            if not name.endswith(".txt"):
                continue
            openood = "benchmark_imglist/" in name
            for number, line in enumerate(self._archive.read(name).decode("utf-8", "replace").splitlines(), 1):
                finding.looked_at += 1
                path, _, label = line.partition(" ") if openood else (line, "", "")
                place = f"data/images_largescale/{path}" if openood else path
                expected = known.get(place, known.get(path))
                if expected is None:
                    finding.blame(f"{name}, line {number}: {path!r} is no image of the archive")
                elif openood and label != expected:
                    finding.blame(f"{name}, line {number}: the label must be {expected}, not {label!r}")
        if not finding.looked_at:
            finding.skipped = "this format has none"
        return finding

    def _kaggle(self) -> Finding:
        finding = Finding(f"Kaggle's rules ({KAGGLE_METADATA})", looked_at=1)
        try:
            metadata = json.loads(self._archive.read(KAGGLE_METADATA))
        except (ArchiveDamaged, ValueError) as error:
            finding.blame(f"{KAGGLE_METADATA}: {error}")
            return finding
        for fault in kaggle_faults(metadata, set(self._archive.files)):
            finding.blame(f"{KAGGLE_METADATA}, {fault}")
        return finding

    def _content_hash(self) -> Finding:
        finding = Finding("content hash of the build")
        if not self._rows or not self._build or len(self._rows) != self._build.get("item_count"):
            finding.skipped = "only a whole build's metadata gives it"
            return finding
        finding.looked_at = 1
        try:
            rows = sorted(self._rows, key=lambda row: (int(row["class_index"]), row["source_name"]))
            found = hash_items(
                (row["source_name"], int(row["class_index"]), row["kind"], int(row["version"]), row["result_sha256"])
                for row in rows
            )
        except ValueError as error:
            finding.blame(f"metadata.csv: {error}")
            return finding
        if found != self._build.get("content_hash"):
            finding.blame("metadata.csv does not give the content hash that build.json states")
        return finding

    def _database(self, workspace: Workspace) -> Finding:
        finding = Finding("the workspace's build")
        with workspace.read() as session:
            name, number = self._build.get("name"), self._build.get("number")
            build = session.scalar(select(Build).where(Build.name == name, Build.number == number))
            if build is None:
                finding.skipped = f"this workspace has no build {self._build.get('label', '')}".rstrip()
                return finding
            if build.content_hash != self._build.get("content_hash"):
                finding.blame(f"{build_label(build)} of the workspace has another content hash: it is another build")
                return finding
            query = select(BuildItem.source_name, BuildItem.result_sha256).where(BuildItem.build_id == build.id)
            frozen = {(name, sha256) for name, sha256 in session.execute(query)}
        held = {(row["source_name"], row["result_sha256"]) for row in self._rows}
        finding.looked_at = len(held)
        for source_name, _ in sorted(held - frozen)[: MAX_NAMED + 1]:
            finding.blame(f"{source_name}: not a member of the frozen build")
        if self._rows and self._build.get("part", "all") == "all":
            for source_name, _ in sorted(frozen - held)[: MAX_NAMED + 1]:
                finding.blame(f"{source_name}: a member of the frozen build, but not in the archive")
        return finding


def _unpacked(listed: set[str], files: list[str]) -> set[str]:
    """The listed zips, without their suffix, that a host has unpacked into folders of their names.

    Kaggle hands a data set out so, without its own metadata and cover; metadata.csv then vouches for the PNGs inside.
    """
    folders = {name.partition("/")[0] for name in files if "/" in name}
    return {name.removesuffix(".zip") for name in listed - set(files) if name.endswith(".zip")} & folders


def _row_faults(row: dict[str, str], names: set[str]) -> Iterator[str]:
    file_name = row["file_name"] or ""
    if None in row or None in row.values():
        yield "another number of cells than columns"
        return
    if file_name in names:
        yield f"{file_name!r} is there twice"
    if not file_name or file_name.startswith("/") or ".." in file_name.split("/") or " " in file_name:
        yield f"{file_name!r} is not a plain relative name"
    for column, kind in _NUMBERS.items():
        try:
            kind(row.get(column, 0))
        except ValueError:
            yield f"{column} is {row[column]!r}, not a number"
    for column in ("source_sha256", "result_sha256", "image_sha256"):
        if column in row and not re.fullmatch(r"[0-9a-f]{64}", row[column]):
            yield f"{column} is no sha256"
