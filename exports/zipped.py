"""Archives that are one zip: some texts, the images under a prefix, and SHA256SUMS over all of them."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Protocol

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.archive import finished, resumable_zip, standing_sha256, sums_line
from exports.contents import BuildContents
from exports.id_side import IdSideContents
from exports.options import ExportOptions
from exports.protocols import ExportResult


class Layout(Protocol):
    """Where things lie in a zip."""

    def texts(self, contents: BuildContents) -> dict[str, bytes]:
        """Every file that is not an image, by name; called once the members are listed."""
        ...

    def place(self, file_name: str) -> str:
        """Where the image that metadata calls ``images/<wnid>/<stem>.png`` lies."""
        ...


def export_zip(
    format: str,
    name: str,
    layout: Layout,
    workspace: Workspace,
    build: Build,
    out_dir: Path,
    options: ExportOptions,
    progress: Progress,
) -> ExportResult:
    """Write ``imagenet-<label><name>.zip`` and its ``.sha256``; the contract of :class:`exports.protocols.Exporter`.

    Members lie in order of their names, the images read in the order of theirs: two passes, the first for the
    sums, which reads no image that is stored as it is.
    """
    contents = (IdSideContents if options.id_side else BuildContents)(workspace, build, options, progress)
    path = out_dir / f"imagenet-{contents.label}{name}.zip"
    texts = layout.texts(contents)
    texts["SHA256SUMS"] = _sums(contents, layout, texts)
    before = standing_sha256(path)
    with resumable_zip(path, options.key(build, format)) as archive:
        waiting = sorted(texts)

        def write_texts_before(name: str | None) -> None:
            while waiting and (name is None or waiting[0] < name):
                text = waiting.pop(0)
                content = texts.pop(text)
                if not archive.has(text):
                    archive.write(text, content)

        missing = [m for m in contents.members if not archive.has(layout.place(m.row.file_name))]
        for member, content in contents.images(missing, contents.total - len(missing)):
            place = layout.place(member.row.file_name)
            write_texts_before(place)
            archive.write(place, content)
        write_texts_before(None)
        contents.done("computing the archive's sha256")
    return finished(path, contents.total, before)


def _sums(contents: BuildContents, layout: Layout, texts: dict[str, bytes]) -> bytes:
    lines = {name: hashlib.sha256(content).hexdigest() for name, content in texts.items()}
    for member, sha256 in contents.image_sums():
        lines[layout.place(member.row.file_name)] = sha256
    return b"".join(sums_line(sha256, name) for name, sha256 in sorted(lines.items()))
