"""The ImageFolder zip: ``images/<wnid>/<source>.png``, metadata.csv, build.json, README.md, SHA256SUMS."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import BinaryIO

from db.models import Build, Recipe
from db.progress import Progress
from db.workspace import Workspace
from exports.archive import (
    StableZip,
    archive_file,
    finished,
    handle_sha256,
    room_needed,
    standing_sha256,
    sums_line,
)
from exports.builds import build_label
from exports.datacard import data_card
from exports.members import MetadataRow, copy_png, iter_members, write_metadata
from exports.protocols import ExportResult
from exports.rules import Rule

ARCHIVE_FORMAT = 1
_SPOOL_BYTES = 8 << 20


class ImageFolderExporter:
    """A zip that ``torchvision.datasets.ImageFolder`` reads once extracted, pointed at its ``images``.

    The members are stored in order of name. Two passes over the build: the first writes the metadata
    and the checksums, the second copies the images and checks each against the frozen sha256.
    """

    label = "ImageFolder zip (torchvision)"

    def export(self, workspace: Workspace, build: Build, out_dir: Path, progress: Progress) -> ExportResult:
        """Write ``imagenet-<label>.zip`` and its ``.sha256``; the contract of :class:`exports.protocols.Exporter`."""
        path = out_dir / f"imagenet-{build_label(build)}.zip"
        with workspace.read() as session:
            recipe = session.get_one(Recipe, build.recipe_id)
        before_sha256 = standing_sha256(path)
        with (
            room_needed(Path(tempfile.gettempdir())),
            tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as metadata,
            tempfile.SpooledTemporaryFile(_SPOOL_BYTES) as sums,
        ):
            card = data_card(build, recipe).encode()
            description = _json_bytes(build_description(build, recipe))
            sums.write(sums_line(hashlib.sha256(card).hexdigest(), "README.md"))
            sums.write(sums_line(hashlib.sha256(description).hexdigest(), "build.json"))
            self._list_members(workspace, build, progress, metadata, sums)
            sums.write(sums_line(handle_sha256(metadata), "metadata.csv"))
            with archive_file(path) as handle:
                with closing(StableZip(handle)) as archive:
                    archive.write("README.md", card)
                    with archive.member("SHA256SUMS") as target:
                        _copy_all(sums, target)
                    archive.write("build.json", description)
                    for done, member in enumerate(iter_members(workspace, build)):
                        progress.update(done, build.item_count, member.row.source_name)
                        with archive.member(member.row.file_name) as target:
                            copy_png(member, target)
                    with archive.member("metadata.csv") as target:
                        _copy_all(metadata, target)
                progress.update(build.item_count, build.item_count, "computing the archive's sha256")
                sha256 = handle_sha256(handle)
        return finished(path, sha256, build.item_count, before_sha256)

    def _list_members(
        self, workspace: Workspace, build: Build, progress: Progress, metadata: BinaryIO, sums: BinaryIO
    ) -> None:
        def rows() -> Iterator[MetadataRow]:
            for member in iter_members(workspace, build):
                progress.update(0, build.item_count, "listing the members")
                sums.write(sums_line(member.row.result_sha256, member.row.file_name))
                yield member.row

        text = io.TextIOWrapper(metadata, encoding="utf-8", newline="")
        write_metadata(rows(), text)
        text.detach()


def build_description(build: Build, recipe: Recipe) -> dict:
    """What build.json holds: the rule, the recipe and the counts of the freeze. Names no person."""
    return {
        "format": ARCHIVE_FORMAT,
        "name": build.name,
        "number": build.number,
        "label": build_label(build),
        "rule": build.rule,
        "rule_in_words": Rule.from_json(build.rule).describe(),
        "content_hash": build.content_hash,
        "item_count": build.item_count,
        "last_decision_id": build.last_decision_id,
        "created_at": build.created_at.isoformat(),
        "recipe_hash": recipe.hash,
        "recipe": recipe.config,
        "summary": build.summary,
    }


def _json_bytes(value: dict) -> bytes:
    return (json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _copy_all(source: BinaryIO, target: BinaryIO) -> None:
    source.seek(0)
    shutil.copyfileobj(source, target)
