"""A folder that ``kaggle datasets create`` takes as it is: image zips, lists, metadata, cover, card, sums.

Kaggle unpacks each zip into a folder of its name, allows no more than about a thousand loose files, wants a title and
a slug of 6 to 50 characters, a subtitle of 20 to 80 and exactly one licence. Bg(S) is the list ``images_s.txt``, not
a second copy.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from PIL import Image

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.contents import BuildContents, json_bytes
from exports.croissant import CROISSANT_NAME, METADATA_NAME, croissant_json
from exports.datacard import COLUMN_MEANINGS
from exports.folder import ArchiveFolder, export_folder
from exports.members import METADATA_COLUMNS, read_png
from exports.options import ExportOptions
from exports.protocols import ExportResult
from exports.zip_parts import ZipPart, places, plan_parts, write_parts

KAGGLE_METADATA = "dataset-metadata.json"
COVER_NAME = "dataset-cover-image.png"
COVER_SIZE = (560, 280)
SMALL_LIST = "images_s.txt"
UNKNOWN_OWNER = "your-kaggle-name"
TITLE_LENGTH = (6, 50)
SUBTITLE_LENGTH = (20, 80)
_TILE = 140
_TYPES = {"class_index": "integer", "version": "integer", "rank": "integer", "accepts": "integer", "rejects": "integer"}
_TYPES |= dict.fromkeys(("drop", "residual", "probability", "area", "dilated_area"), "decimal")


class KaggleExporter:
    """See the module's text."""

    label = "Kaggle dataset (folder)"
    about = "Image zips, Bg(S) as a list, metadata and a cover, ready for the kaggle package."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        contents = BuildContents(workspace, build, options, progress)
        parts = plan_parts(contents)

        def fill(folder: ArchiveFolder) -> None:
            write_parts(folder, parts, contents)
            place = places(parts)
            small = sorted(place[row.file_name] for row in contents.small_set())
            folder.write(SMALL_LIST, "".join(f"{name}\n" for name in small).encode())
            folder.write(METADATA_NAME, contents.metadata(place.__getitem__))
            folder.write("build.json", contents.description)
            folder.write("README.md", contents.card)
            folder.write(COVER_NAME, cover(parts))
            folder.write(CROISSANT_NAME, croissant_json(folder, parts, contents))
            folder.write(KAGGLE_METADATA, json_bytes(kaggle_metadata(contents)))

        path = out_dir / f"imagenet-{contents.label}-kaggle"
        return export_folder(path, options.key(build, "kaggle"), contents.total, fill, progress)


def kaggle_metadata(contents: BuildContents) -> dict:
    """dataset-metadata.json. Without an owner it names one that Kaggle does not know: give --owner, or change it."""
    label = contents.label
    title = contents.options.title or f"ImageNet background set {label}"
    return {
        "title": title[: TITLE_LENGTH[1]],
        "id": f"{contents.options.owner or UNKNOWN_OWNER}/{slug(f'imagenet-{label}')}",
        "subtitle": "ImageNet photos with the object inpainted away, for OOD tests",
        "description": contents.card.decode(),
        "isPrivate": True,
        "licenses": [{"name": "other"}],
        "keywords": ["image", "computer vision"],
        "resources": [
            {
                "path": METADATA_NAME,
                "description": "One line an image.",
                "schema": {
                    "fields": [
                        {"name": name, "title": COLUMN_MEANINGS[name], "type": _TYPES.get(name, "string")}
                        for name in METADATA_COLUMNS
                    ]
                },
            },
            {"path": SMALL_LIST, "description": "Bg(S): the images with a drop above 5, one path a line."},
        ],
    }


def slug(name: str) -> str:
    """A Kaggle slug: lower-case letters, digits and single dashes, at most 50."""
    cleaned = "".join(letter if letter.isalnum() else "-" for letter in name.lower())
    return "-".join(part for part in cleaned.split("-") if part)[:50].rstrip("-")


def cover(parts: list[ZipPart]) -> bytes:
    """A PNG of 560 x 280 pixels: eight images of the set, evenly spread over its list."""
    members = [member for part in parts for member in part.members]
    columns, rows = COVER_SIZE[0] // _TILE, COVER_SIZE[1] // _TILE
    picture = Image.new("RGB", COVER_SIZE)
    for tile in range(columns * rows):
        member = members[tile * len(members) // (columns * rows)]
        with Image.open(io.BytesIO(read_png(member)), formats=["PNG"]) as image:
            small = image.convert("RGB").resize((_TILE, _TILE), Image.Resampling.LANCZOS)
        picture.paste(small, (tile % columns * _TILE, tile // columns * _TILE))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def kaggle_faults(metadata: dict, names: set[str]) -> list[str]:
    """What Kaggle, or its own client, would refuse in a dataset-metadata.json beside files of these ``names``."""
    faults = []
    title, subtitle = str(metadata.get("title", "")), str(metadata.get("subtitle", ""))
    if not TITLE_LENGTH[0] <= len(title) <= TITLE_LENGTH[1]:
        faults.append(f"title: must have 6 to 50 characters, not {len(title)}")
    if subtitle and not SUBTITLE_LENGTH[0] <= len(subtitle) <= SUBTITLE_LENGTH[1]:
        faults.append(f"subtitle: must have 20 to 80 characters, not {len(subtitle)}")
    owner, _, name = str(metadata.get("id", "")).partition("/")
    if not owner or not re.fullmatch(r"[a-z0-9](?:-?[a-z0-9])*", name) or not 6 <= len(name) <= 50:
        faults.append("id: must be owner/slug, the slug 6 to 50 of a-z, 0-9 and single dashes")
    if len(metadata.get("licenses") or []) != 1:
        faults.append("licenses: must name exactly one")
    paths = [str(resource.get("path", "")) for resource in metadata.get("resources") or []]
    faults += [f"resources: {path!r} is not there" for path in paths if path not in names]
    faults += [f"resources: {path!r} is named twice" for path in sorted({one for one in paths if paths.count(one) > 1})]
    return faults
