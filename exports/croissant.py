"""Croissant: the JSON-LD that describes an archive to machines, with the responsible-AI fields, and its own archive.

The images lie in zips, one FileSet over all of them; metadata.csv is joined by ``key``, the path inside the zip.
"""

from __future__ import annotations

from pathlib import Path

from db.files import sha256_file
from db.models import Build
from db.progress import Progress
from db.workspace import Workspace
from exports.builds import build_label
from exports.contents import BuildContents, json_bytes
from exports.datacard import COLUMN_MEANINGS
from exports.folder import ArchiveFolder, export_folder
from exports.members import METADATA_COLUMNS
from exports.options import ExportOptions
from exports.protocols import ExportResult
from exports.zip_parts import ZipPart, places, plan_parts, write_parts

CROISSANT_NAME = "croissant.json"
METADATA_NAME = "metadata.csv"
_FLOATS = ("drop", "residual", "probability", "area", "dilated_area")
_INTEGERS = ("class_index", "version", "rank", "accepts", "rejects")


class CroissantExporter:
    """A folder of image zips, metadata.csv and ``croissant.json``, which mlcroissant validates and iterates."""

    label = "Croissant (folder)"
    about = "Image zips and a croissant.json with the responsible-AI fields, for mlcroissant."

    def export(
        self, workspace: Workspace, build: Build, out_dir: Path, options: ExportOptions, progress: Progress
    ) -> ExportResult:
        contents = BuildContents(workspace, build, options, progress)
        parts = plan_parts(contents)

        def fill(folder: ArchiveFolder) -> None:
            write_parts(folder, parts, contents)
            place = places(parts)
            folder.write("README.md", contents.card)
            folder.write("build.json", contents.description)
            folder.write(METADATA_NAME, contents.metadata(place.__getitem__))
            folder.write(CROISSANT_NAME, croissant_json(folder, parts, contents))

        path = out_dir / f"imagenet-{contents.label}-croissant"
        return export_folder(path, options.key(build, "croissant"), contents.total, fill, progress)


def croissant_json(folder: ArchiveFolder, parts: list[ZipPart], contents: BuildContents) -> bytes:
    """croissant.json for the zips and the metadata.csv that lie finished in ``folder``."""
    import mlcroissant as mlc

    zips = [
        mlc.FileObject(
            id=f"{part.name}.zip",
            name=f"{part.name}.zip",
            content_url=f"{part.name}.zip",
            content_size=f"{folder.path(f'{part.name}.zip').stat().st_size} B",
            encoding_formats=["application/zip"],
            sha256=sha256_file(folder.path(f"{part.name}.zip")),
        )
        for part in parts
    ]
    metadata = mlc.FileObject(
        id=METADATA_NAME,
        name=METADATA_NAME,
        content_url=METADATA_NAME,
        encoding_formats=["text/csv"],
        sha256=sha256_file(folder.path(METADATA_NAME)),
    )
    images = mlc.FileSet(
        id="image-files",
        name="image-files",
        contained_in=[one.id for one in zips],
        encoding_formats=["image/png" if contents.options.images == "png" else "image/jpeg"],
        includes=[f"*/*{contents.options.coding.suffix}"],
    )
    document = mlc.Metadata(
        name=f"imagenet-{contents.label}",
        distribution=[*zips, metadata, images],
        record_sets=[_records(mlc)],
        **_facts(contents),
        **_responsible_ai(contents),
    )
    return json_bytes(document.to_json())


def _records(mlc):
    """One record an image: its pixels, its path and every column of metadata.csv."""
    in_csv = mlc.Source(file_object=METADATA_NAME, extract=mlc.Extract(column="key"))
    fields = [
        mlc.Field(
            id="images/key",
            name="key",
            description=COLUMN_MEANINGS["key"],
            data_types=mlc.DataType.TEXT,
            source=mlc.Source(file_set="image-files", extract=mlc.Extract(file_property=mlc.FileProperty.fullpath)),
            references=in_csv,
        ),
        mlc.Field(
            id="images/image",
            name="image",
            description="The image: the photo's background, its labelled object inpainted away.",
            data_types=mlc.DataType.IMAGE_OBJECT,
            source=mlc.Source(file_set="image-files", extract=mlc.Extract(file_property=mlc.FileProperty.content)),
        ),
    ]
    for column in METADATA_COLUMNS:
        if column == "key":
            continue
        kind = mlc.DataType.TEXT
        if column in _FLOATS:
            kind = mlc.DataType.FLOAT
        elif column in _INTEGERS:
            kind = mlc.DataType.INTEGER
        source = mlc.Source(file_object=METADATA_NAME, extract=mlc.Extract(column=column))
        field_id = f"images/{column}"
        fields.append(
            mlc.Field(id=field_id, name=column, description=COLUMN_MEANINGS[column], data_types=kind, source=source)
        )
    return mlc.RecordSet(id="images", name="images", description="One record an image.", fields=fields)


def _facts(contents: BuildContents) -> dict:
    build = contents.build
    return {
        "description": (
            f"{contents.total} images made from labelled ImageNet photos by masking the labelled object and inpainting "
            "it away: a test set for out-of-distribution detectors that are misled by backgrounds."
        ),
        "cite_as": f"ImageNet background set {build_label(build)}, content hash {build.content_hash}. See README.md.",
        "date_published": build.created_at,
        "license": "https://www.image-net.org/download.php",
        "version": f"{build.number}.0.0",
        "url": "https://www.image-net.org/",
        "keywords": ["out-of-distribution detection", "ImageNet", "background", "inpainting"],
    }


def _responsible_ai(contents: BuildContents) -> dict:
    summary = contents.build.summary
    backends = contents.recipe.config.get("backends", {})
    annotators = len(summary["annotators"])
    recipe = f"Recipe {contents.recipe.hash}; build.json holds every option and weight hash."
    return {
        "data_collection": "Photos of ImageNet, whose labelled object was masked and inpainted away by models.",
        "data_preprocessing_protocol": [recipe],
        "data_annotation_protocol": [
            "Annotators accept or reject each image, giving a reason for a reject, without seeing others' verdicts.",
            f"Membership rule: {contents.description_of_rule}",
        ],
        "annotations_per_item": f"{_votes(summary)} verdicts by {annotators} annotators in all, see README.md.",
        "machine_annotation_tools": [
            f"{stage}: {backend.get('name', 'unnamed')} ({backend.get('grade', 'grade not recorded')})"
            for stage, backend in sorted(backends.items())
        ],
        "data_biases": [
            "Classes whose object fills the photo or is hard to mask are under-represented; README.md has the counts.",
            "The images share their photos with ImageNet val: compare each with its own source photo.",
        ],
        "data_limitations": [
            "Inpainting leaves traces; a part of the object, its shadow or reflection may stay, more so at a low drop.",
        ],
        "data_use_cases": ["Testing whether an out-of-distribution detector takes the background for the object."],
    }


def _votes(summary: dict) -> int:
    return sum(one["accepts"] + one["rejects"] for one in summary["annotators"])
