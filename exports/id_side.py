"""The ID side of a build: the source photos of its members, decoded, resized and encoded as its candidates were.

ImageNet val is JPEGs of many sizes and the candidates are not, so a detector may tell the two apart by format,
compression or size and never look at the picture. This archive takes that cue away: the same photos in the very coding
of the backgrounds, one beside each, under the same name.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import TextIO

from db.models import Kind
from exports.builds import build_label
from exports.contents import BuildContents, csv_bytes
from exports.datacard import COLUMN_MEANINGS, LICENCE, markdown_table
from exports.members import Member, cell
from exports.protocols import ExportError

ID_SIDE = "id"
ID_SIDE_FORMATS = ("imagefolder", "openood")
MANIFEST = "candidate.json"
COLUMNS: dict[str, str] = {
    name: COLUMN_MEANINGS[name] for name in ("file_name", "key", "wnid", "class_index", "class_name")
} | {
    "source_name": COLUMN_MEANINGS["source_name"],
    "source_sha256": COLUMN_MEANINGS["source_sha256"],
    "image_sha256": "sha256 of this image's file",
    "result_sha256": "sha256 of the workspace's PNG of the background that was made from this photo",
    "kind": "what the candidate beside it is: background",
    "version": "its version, 1 or higher",
    "part": COLUMN_MEANINGS["part"],
    "recipe_hash": COLUMN_MEANINGS["recipe_hash"],
}

_CARD = """# The ID side of `{label}`

{count} labelled source photos: those from which the members of the build `{label}` were made{part}. Each is the photo
as its candidate began: decoded, turned upright, brought to the working size, and stored as {images}, by the same code
with the same settings as the background beside it. It has the same name in the build's own archive of the same coding.

## What it is for

The control for the **format cue**. ImageNet val is JPEGs of many sizes; backgrounds are encoded anew. A detector may
tell the two apart by that alone. Run it with these photos as in-distribution and the build's archive of the same coding
as out-of-distribution, and again with the original JPEGs: where the figures differ, it was the format that it saw.

What stays: inpainting itself leaves traces in the backgrounds, which no coding takes away.

## Labels

These photos **have** a label: the class that was removed from the background beside them. `class_index` counts in the
class list of the workspace, from 0. `torchvision.datasets.ImageFolder`, pointed at the images, numbers only the
classes that are present, in order of wnid.

{classes} classes; recipe `{recipe}`; content hash of the build `{content_hash}`.

## Files

The images by wnid, `metadata.csv` (one line an image), `build.json`, `SHA256SUMS`. Columns of `metadata.csv`:

{columns}

## Licence

{licence} These are the photos themselves, whole: pass them on only where ImageNet itself may be passed on.
"""


class IdSideContents(BuildContents):
    """A build's contents with the source photo in the place of each candidate."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        other = next((m for m in self.members if m.row.kind != Kind.BACKGROUND), None)
        if other is not None:
            raise ExportError(
                f"{build_label(self.build)} holds {other.row.kind} candidates; only backgrounds have an ID side."
            )

    def image(self, member: Member) -> bytes:
        return self.options.coding.encode(read_source_png(member))

    def image_sums(self) -> Iterator[tuple[Member, str]]:
        for member in self.members:
            yield member, self._sha256s[member.candidate_id]

    @cached_property
    def _sha256s(self) -> dict[int, str]:
        """Of the stored bytes, by candidate: each photo is read once for them and once to be written."""
        return {
            member.candidate_id: hashlib.sha256(content).hexdigest() for member, content in self.images(self.members)
        }

    @cached_property
    def card(self) -> bytes:
        part = self.options.part
        return _CARD.format(
            label=build_label(self.build),
            count=self.total,
            part=f", its {part} part" if part else "",
            images=self.options.coding.describe(),
            classes=len(Counter(row.wnid for row in self.rows)),
            recipe=self.recipe.hash,
            content_hash=self.build.content_hash,
            columns=markdown_table(("column", "meaning"), COLUMNS.items()),
            licence=LICENCE,
        ).encode()

    def facts(self) -> dict:
        return super().facts() | {"side": ID_SIDE}

    def metadata(self, rename: Callable[[str], str] = lambda name: name) -> bytes:
        def write(text: TextIO) -> None:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerow(COLUMNS)
            for member in self.members:
                row = member.row.renamed(rename(member.row.file_name))
                own = {"image_sha256": self._sha256s[member.candidate_id]}
                writer.writerow([own[name] if name in own else cell(getattr(row, name)) for name in COLUMNS])

        return csv_bytes(write)


def read_source_png(member: Member) -> bytes:
    """The source photo at the working size, checked against the manifest that was written with the frozen result.

    Raises :class:`ExportError` naming the candidate when either is missing, unreadable or changed.
    """
    named = (
        f"The source photo of candidate {member.candidate_id} (source {member.row.source_name}), {member.source_png},"
    )
    remedy = "Put its folder back from a copy of the workspace, or generate the source again; then export again."
    try:
        files = json.loads((member.source_png.parent / MANIFEST).read_bytes())["files"]
        expected, result = files["raw.png"], files["result.png"]
        content = member.source_png.read_bytes()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ExportError(f"{named} cannot be read or has no {MANIFEST} beside it ({error!r}). {remedy}") from error
    if result != member.row.result_sha256 or hashlib.sha256(content).hexdigest() != expected:
        raise ExportError(f"{named} is not the one that the frozen image was made from. {remedy}")
    return content
