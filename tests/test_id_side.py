"""The ID side of a build: the photos its candidates were made from, in the same coding, for the format-cue control."""

from __future__ import annotations

import csv
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from db.models import Candidate, Kind
from db.workspace import open_workspace
from exports.builds import freeze
from exports.checking import check_archive
from exports.id_side import COLUMNS
from exports.options import ExportOptions
from exports.protocols import ExportError
from exports.registry import EXPORTERS, export_build
from exports.rules import PRESETS, Rule
from tests.test_builds import CLASSES, Small, make_small
from tests.test_export_imagefolder import extract


def add_photos(small: Small) -> dict[str, np.ndarray]:
    """A raw.png beside each result, and the manifest that generation writes; gives the photos' pixels by name."""
    photos = {}
    for number, (name, candidate) in enumerate(small.candidates.items()):
        folder = small.workspace.root / candidate.folder
        photos[name] = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        cv2.imwrite(str(folder / "raw.png"), photos[name][:, :, ::-1])
        names = ("raw.png", "result.png")
        files = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
        (folder / "candidate.json").write_text(json.dumps({"files": files}))
    return photos


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    made = make_small(open_workspace(tmp_path_factory.mktemp("id") / "workspace"))
    freeze(made.workspace, "bg", PRESETS["bg"])
    return made


@pytest.fixture(scope="module", autouse=True)
def photos(small) -> dict[str, np.ndarray]:
    return add_photos(small)


def export(small: Small, format: str, out: Path, **options: object) -> Path:
    return export_build(small.workspace, "bg", format, out, options=ExportOptions(id_side=True, **options)).path


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "metadata.csv").open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_imagefolder_gives_the_photos_with_their_classes(small, photos, tmp_path):
    path = export(small, "imagefolder", tmp_path)
    assert path.name == "imagenet-bg-v1-id.zip"
    folder = extract(path, tmp_path / "x")
    data = ImageFolder(folder / "images")
    by_name = {Path(file).stem: (np.asarray(Image.open(file)), label) for file, label in data.samples}
    members = ("accepted", "skipped", "shallow")
    assert len(by_name) == len(members)
    for name in members:
        source = next(row for row in rows(folder) if row["source_name"].endswith(name))
        pixels, label = by_name[Path(source["file_name"]).stem]
        assert (pixels == photos[name]).all()
        class_index = small.candidates[name].class_index
        assert data.classes[label] == source["wnid"] == CLASSES[class_index][0]
        assert source["class_index"] == str(class_index)
        assert source["result_sha256"] == small.candidates[name].result_sha256
    description = json.loads((folder / "build.json").read_text())
    assert (description["side"], description["label"], description["archived_count"]) == ("id", "bg-v1", 3)
    card = (folder / "README.md").read_text()
    assert "ID side of `bg-v1`" in card and all(f"{column} | " in card for column in COLUMNS)
    assert check_archive(folder, small.workspace).ok


@pytest.mark.parametrize("coding", [{"images": "png"}, {"images": "jpeg", "quality": 80}])
def test_nothing_in_the_coding_tells_the_sides_apart(small, tmp_path, coding):
    id_folder = extract(export(small, "imagefolder", tmp_path / "a", **coding), tmp_path / "id")
    ood = export_build(small.workspace, "bg", "imagefolder", tmp_path / "b", options=ExportOptions(**coding)).path
    ood_folder = extract(ood, tmp_path / "ood")
    names = sorted(file.relative_to(id_folder).as_posix() for file in (id_folder / "images").rglob("*.*"))
    assert names == sorted(file.relative_to(ood_folder).as_posix() for file in (ood_folder / "images").rglob("*.*"))
    for name in names:
        one, other = Image.open(id_folder / name), Image.open(ood_folder / name)
        assert (one.format, one.size, one.mode) == (other.format, other.size, other.mode)
        if one.format == "JPEG":
            assert one.quantization == other.quantization
            assert one.layer == other.layer  # the subsampling


def test_openood_list_has_class_labels(small, tmp_path):
    path = export(small, "openood", tmp_path)
    folder = extract(path, tmp_path / "x")
    lists = folder / "data/benchmark_imglist/imagenet"
    lines = (lists / "test_imagenet_bg_id.txt").read_text().splitlines()
    found = {}
    for line in lines:  # as OpenOOD's ImglistDataset reads it
        image_name, extra = line.strip("\n").split(" ", 1)
        assert (folder / "data/images_largescale" / image_name).is_file()
        found[image_name] = int(extra)
    labels = {row["file_name"].removeprefix("data/images_largescale/"): int(row["class_index"]) for row in rows(folder)}
    assert found == labels and set(found.values()) <= set(CLASSES)
    assert all(name.startswith("imagenet_bg_id/n") for name in found)
    small_list = (lists / "test_imagenet_bg_id_s.txt").read_text().splitlines()
    assert set(small_list) == {line for line in lines if "shallow" not in line}
    assert check_archive(path, small.workspace).ok


@pytest.mark.parametrize("format", ["imagefolder", "openood"])
def test_the_same_bytes_twice_and_the_checker_is_content(small, tmp_path, format):
    for coding in ({}, {"images": "jpeg"}):
        first = export(small, format, tmp_path / "a", **coding)
        second = export(small, format, tmp_path / "b", **coding)
        assert first.read_bytes() == second.read_bytes()
        report = check_archive(first, small.workspace)
        assert report.ok, [finding.faults for finding in report.findings]
        looked_at = {finding.what: finding.looked_at for finding in report.findings}
        assert looked_at["content hash of the build"] == 1
        assert looked_at["the workspace's build"] == 3


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("data/benchmark_imglist/imagenet/test_imagenet_bg_id.txt", " 2\n", " -1\n", "the label must be 2, not '-1'"),
        ("metadata.csv", "image_sha256", "picture_sha256", "its columns are"),
        ("build.json", '"side": "id"', '"side": "ood"', "its columns are"),
    ],
)
def test_the_checker_sees_what_is_wrong(small, tmp_path, file, old, new, says):
    folder = extract(export(small, "openood", tmp_path), tmp_path / "x")
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    faults = [fault for finding in check_archive(folder).findings for fault in finding.faults]
    assert any(says in fault for fault in faults), faults


def test_an_exchanged_photo_is_found(small, tmp_path):
    folder = extract(export(small, "imagefolder", tmp_path), tmp_path / "x")
    one, other = sorted((folder / "images").rglob("*.png"))[:2]
    other.write_bytes(one.read_bytes())
    faults = [fault for finding in check_archive(folder).findings for fault in finding.faults]
    assert any("not the image that metadata.csv names" in fault for fault in faults)


def test_a_photo_that_changed_or_is_gone_stops_the_export(workspace, tmp_path):
    small = make_small(workspace)
    add_photos(small)
    freeze(workspace, "bg", PRESETS["bg"])
    folder = workspace.root / small.candidates["accepted"].folder
    Image.new("RGB", (8, 8)).save(folder / "raw.png")
    with pytest.raises(ExportError, match="is not the one that the frozen image was made from"):
        export(small, "imagefolder", tmp_path)
    (folder / "candidate.json").unlink()
    with pytest.raises(ExportError, match=r"has no candidate.json beside it"):
        export(small, "imagefolder", tmp_path)
    assert not list(tmp_path.glob("*.zip"))


def test_what_has_no_id_side_is_refused(small, workspace, tmp_path):
    for format in set(EXPORTERS) - {"imagefolder", "openood"}:
        with pytest.raises(ExportError, match="The ID side is written as imagefolder or openood"):
            export(small, format, tmp_path)
    other = make_small(workspace)
    with workspace.write() as session:
        for candidate in session.query(Candidate):
            candidate.kind = Kind.TEXTURE
    freeze(workspace, "bg", Rule(kind=Kind.TEXTURE))
    with pytest.raises(ExportError, match="only backgrounds have an ID side"):
        export(other, "imagefolder", tmp_path)


def test_the_name_says_part_side_and_coding():
    assert ExportOptions(part="val", id_side=True, images="jpeg", quality=80).suffix == "-val-id-jpeg80"
    assert ExportOptions(id_side=True).suffix == "-id"
    assert ExportOptions(part="test").suffix == "-test"
