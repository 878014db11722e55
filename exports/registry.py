"""Every archive format by name, and the one call that exports a build. A new format is its file and one line here."""

from __future__ import annotations

from pathlib import Path

from db.progress import NoProgress, Progress
from db.workspace import Workspace
from exports.builds import find_build
from exports.coco import CocoExporter
from exports.croissant import CroissantExporter
from exports.huggingface import HuggingFaceExporter
from exports.id_side import ID_SIDE_FORMATS
from exports.imagefolder import ImageFolderExporter
from exports.kaggle import KaggleExporter
from exports.openood import OpenOodExporter
from exports.options import ExportOptions
from exports.protocols import Exporter, ExportError, ExportResult
from exports.webdataset import WebDatasetExporter

EXPORTERS: dict[str, Exporter] = {
    "imagefolder": ImageFolderExporter(),
    "kaggle": KaggleExporter(),
    "openood": OpenOodExporter(),
    "huggingface": HuggingFaceExporter(),
    "webdataset": WebDatasetExporter(),
    "croissant": CroissantExporter(),
    "coco": CocoExporter(),
}


def export_build(
    workspace: Workspace,
    build_ref: str,
    format: str,
    out_dir: Path | str,
    progress: Progress | None = None,
    options: ExportOptions | None = None,
) -> ExportResult:
    """Write the archive of a build (``bg``, ``bg-2``) into ``out_dir``, a folder made if missing.

    The same build gives the same bytes every time. A file that already has the archive's name is replaced
    in one step; the result says whether it held the same bytes. Raises
    :class:`~exports.builds.UnknownBuild`, :class:`~exports.protocols.ExportError` and, through
    ``progress``, :class:`~db.progress.Cancelled`; then nothing new stands under the archive's name, and the
    same call goes on where this one stopped.
    """
    exporter = EXPORTERS.get(format)
    if exporter is None:
        raise ExportError(f"There is no archive format {format!r}. Choose one of: {', '.join(EXPORTERS)}.")
    options = options or ExportOptions()
    if options.id_side and format not in ID_SIDE_FORMATS:
        raise ExportError(f"The ID side is written as {' or '.join(ID_SIDE_FORMATS)}, not as {format}.")
    folder = Path(out_dir).expanduser().resolve()
    if folder.exists() and not folder.is_dir():
        raise ExportError(f"{folder} is a file, not a folder; choose another place for the archive.")
    with workspace.read() as session:
        build = find_build(session, build_ref)
    return exporter.export(workspace, build, folder, options, progress or NoProgress())
