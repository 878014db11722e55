"""The Hugging Face imagefolder: images and metadata.csv under ``test/``, named in the card's YAML.

Names with ``_val_`` in them (ImageNet's own) make ``datasets`` infer a split "validation" and silently ignore a
metadata.csv at the root; under ``test/`` and with ``data_files`` spelled out, nothing is inferred.
"""

from __future__ import annotations

import json
from pathlib import Path

from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.contents import BuildContents
from exports.members import IMAGES_FOLDER
from exports.options import ExportOptions
from exports.protocols import ExportResult
from exports.zipped import export_zip

SPLIT = "test"
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


class HuggingFaceExporter:
    """A zip to extract and give to ``datasets.load_dataset``, or to push as it is."""

    label = "Hugging Face imagefolder (zip)"
    about = 'Images with metadata.csv that datasets.load_dataset("imagefolder") keeps.'

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        return export_zip("huggingface", "-huggingface", self, workspace, build, out_dir, options, progress)

    def texts(self, contents: BuildContents) -> dict[str, bytes]:
        return {
            "README.md": _front_matter(contents).encode() + contents.card,
            "build.json": contents.description,
            f"{SPLIT}/metadata.csv": contents.metadata(_below_images),
        }

    def place(self, file_name: str) -> str:
        return f"{SPLIT}/{_below_images(file_name)}"


def _below_images(file_name: str) -> str:
    return file_name.removeprefix(f"{IMAGES_FOLDER}/")


def _front_matter(contents: BuildContents) -> str:
    size = next((words for limit, words in _SIZES if contents.total < limit), "n>1M")
    name = json.dumps(f"ImageNet background set {contents.label}")
    return (
        "---\n"
        f"pretty_name: {name}\n"
        "license: other\n"
        "license_name: imagenet-terms-of-access\n"
        "task_categories:\n- image-classification\n"
        f"size_categories:\n- {size}\n"
        "configs:\n"
        "- config_name: default\n"
        "  data_files:\n"
        f"  - split: {SPLIT}\n"
        f'    path: ["{SPLIT}/metadata.csv", "{SPLIT}/**/*{contents.options.coding.suffix}"]\n'
        "---\n\n"
    )
