"""What publishing a Kaggle folder would send, found out without a token and without the network."""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

from db.progress import Progress
from exports.checking import check_archive
from exports.kaggle import COVER_NAME, KAGGLE_METADATA, UNKNOWN_OWNER
from exports.protocols import ExportError

MAX_NAMED = 20
MAX_LOOSE_FILES = 1000


class PublishError(ExportError):
    """Something cannot be published as it is; the message says what to do."""


@dataclass(frozen=True)
class PlannedFile:
    """A file that is sent. ``inside`` is what a zip unpacks to, by path and size in bytes; empty for other files."""

    name: str
    bytes: int
    inside: dict[str, int]


@dataclass(frozen=True)
class UploadPlan:
    """``files`` are sent as they are. ``kept`` are not: the metadata is in the request, the cover set by hand."""

    folder: Path
    owner: str
    slug: str
    title: str
    licence: str
    images: int
    files: tuple[PlannedFile, ...]
    kept: tuple[str, ...]

    @property
    def ref(self) -> str:
        return f"{self.owner}/{self.slug}"

    @property
    def bytes(self) -> int:
        return sum(file.bytes for file in self.files)


def plan_upload(folder: Path, progress: Progress | None = None) -> UploadPlan:
    """Check a folder that the kaggle format wrote and say what of it would be sent. Reads every byte of it.

    Raises :class:`PublishError` when it is no such folder, is not in order, or names no owner, and Cancelled.
    """
    if not (folder / KAGGLE_METADATA).is_file():
        raise PublishError(
            f"{folder} has no {KAGGLE_METADATA}. Give the folder that `launch.py export --format kaggle` wrote."
        )
    faults = [fault for finding in check_archive(folder, progress=progress).findings for fault in finding.faults]
    if faults:
        more = f" ... and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise PublishError(
            f"{folder} is not in order, so nothing is sent: {'; '.join(faults[:MAX_NAMED])}{more}. Export it again."
        )
    metadata = json.loads((folder / KAGGLE_METADATA).read_bytes())
    owner, _, slug = metadata["id"].partition("/")
    if owner == UNKNOWN_OWNER:
        raise PublishError(f"{KAGGLE_METADATA} names no owner: export again with --owner and your name at Kaggle.")
    names = sorted(path.name for path in folder.iterdir())
    folders = [name for name in names if (folder / name).is_dir()]
    if folders or len(names) > MAX_LOOSE_FILES:
        raise PublishError(
            f"{folder} holds {len(names)} files and the folders {', '.join(folders) or 'none'}; Kaggle takes no "
            f"folders and at most {MAX_LOOSE_FILES} files. Export it again, with a larger --part-gb."
        )
    kept = tuple(name for name in names if name in (KAGGLE_METADATA, COVER_NAME))
    build = json.loads((folder / "build.json").read_bytes())
    return UploadPlan(
        folder,
        owner,
        slug,
        metadata["title"],
        metadata["licenses"][0]["name"],
        int(build["archived_count"]),
        tuple(_planned(folder / name) for name in names if name not in kept),
        kept,
    )


def _planned(path: Path) -> PlannedFile:
    inside = {}
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as opened:
            inside = {f"{path.stem}/{info.filename}": info.file_size for info in opened.infolist()}
    return PlannedFile(path.name, path.stat().st_size, inside)
