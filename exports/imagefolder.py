"""The ImageFolder zip: ``images/<wnid>/<source>.png``, metadata.csv, build.json, README.md, SHA256SUMS."""

from __future__ import annotations

from pathlib import Path

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.contents import BuildContents
from exports.options import ExportOptions
from exports.protocols import ExportResult
from exports.zipped import export_zip


class ImageFolderExporter:
    """A zip that ``torchvision.datasets.ImageFolder`` reads once extracted, pointed at its ``images``."""

    label = "ImageFolder zip (torchvision)"
    about = "One folder a class and metadata.csv: what torchvision and most scripts read."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        return export_zip("imagefolder", "", self, workspace, build, out_dir, options, progress)

    def texts(self, contents: BuildContents) -> dict[str, bytes]:
        return {"README.md": contents.card, "build.json": contents.description, "metadata.csv": contents.metadata()}

    def place(self, file_name: str) -> str:
        return file_name
