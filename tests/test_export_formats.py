"""Every archive format, loaded by the peer's own reader."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.progress import Cancelled
from exports.builds import freeze
from exports.options import ExportOptions
from exports.protocols import Before, ExportError
from exports.registry import EXPORTERS, export_build
from exports.rules import PRESETS
from exports.splits import part_of
from tests.test_builds import CLASSES, Small, make_small
from tests.test_export_imagefolder import Watcher, extract, visible

MASKED = (2, 3, 4, 2)  # x, y, width, height of the object in every mask


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    from db.workspace import open_workspace

    made = make_small(open_workspace(tmp_path_factory.mktemp("formats") / "workspace"))
    x, y, width, height = MASKED
    mask = np.zeros((8, 8), np.uint8)
    mask[y : y + height, x : x + width] = 255
    for candidate in made.candidates.values():
        folder = made.workspace.root / candidate.folder
        Image.fromarray(mask).save(folder / "mask.png")
        Image.fromarray(np.full((8, 8), 255, np.uint8)).save(folder / "dilated.png")
    freeze(made.workspace, "bg", PRESETS["bg"])
    return made


def export(small: Small, format: str, out: Path, **options: object) -> Path:
    return export_build(small.workspace, "bg", format, out, options=ExportOptions(**options)).path


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))


def sums_hold(folder: Path) -> int:
    done = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True, text=True
    )
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != "SHA256SUMS"]
    assert len(done.stdout.splitlines()) == len(files)
    return len(files)


@pytest.mark.parametrize("format", sorted(EXPORTERS))
def test_twice_the_same_bytes_and_the_sums_hold(small, tmp_path, format):
    first = export_build(small.workspace, "bg", format, tmp_path / "a")
    previous = os.umask(0o077)
    try:
        second = export_build(small.workspace, "bg", format, tmp_path / "b")
    finally:
        os.umask(previous)
    assert first.sha256 == second.sha256
    assert first.images == 3
    assert contents(first.path) == contents(second.path)
    if first.path.is_dir():
        sums_hold(first.path)
    else:
        sums_hold(extract(first.path, tmp_path / "x"))
    assert export_build(small.workspace, "bg", format, tmp_path / "a").before == Before.IDENTICAL


def contents(path: Path) -> dict[str, bytes]:
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return {file.relative_to(path.parent).as_posix(): file.read_bytes() for file in files}


@pytest.mark.parametrize("format", sorted(EXPORTERS))
@pytest.mark.parametrize("cancel_at", [0, 2, 3])
def test_a_cancelled_export_goes_on_to_the_same_bytes(small, tmp_path, format, cancel_at):
    whole = export_build(small.workspace, "bg", format, tmp_path / "whole")
    with pytest.raises(Cancelled):
        export_build(small.workspace, "bg", format, tmp_path / "out", Watcher(cancel_at))
    assert visible(tmp_path / "out") == []
    again = export_build(small.workspace, "bg", format, tmp_path / "out")
    assert contents(again.path) == contents(whole.path)
    assert not [file for file in (tmp_path / "out").iterdir() if file.name.startswith(".")]


def test_openood_list_and_configuration(small, tmp_path):
    import yaml

    folder = extract(export(small, "openood", tmp_path), tmp_path / "x")
    config = yaml.safe_load((folder / "configs/datasets/imagenet/imagenet_bg_ood.yml").read_text())
    near = config["ood_dataset"]["nearood"]
    listed = near[near["datasets"][0]]
    lines = (folder / listed["imglist_pth"]).read_text().split("\n")
    assert lines.pop() == ""
    assert len(lines) == 3
    for line in lines:  # as OpenOOD's ImglistDataset reads them
        name, label = line.strip().split(" ", 1)
        assert int(label) == -1
        assert not name.startswith("/")
        Image.open(folder / listed["data_dir"] / name).convert("RGB").load()
    far = config["ood_dataset"]["farood"]
    small_list = (folder / far[far["datasets"][0]]["imglist_pth"]).read_text().splitlines()
    drops = {
        row["file_name"].removeprefix("data/images_largescale/"): float(row["drop"])
        for row in rows(folder / "metadata.csv")
    }
    assert {line.split()[0] for line in small_list} == {name for name, drop in drops.items() if drop > 5}


def test_pytorch_ood_labels_everything_unknown(small, tmp_path):
    from pytorch_ood.utils import ToUnknown, is_unknown
    from torch import tensor
    from torchvision.datasets import ImageFolder

    folder = extract(export(small, "openood", tmp_path), tmp_path / "x")
    data = ImageFolder(str(folder / "data/images_largescale/imagenet_bg"), target_transform=ToUnknown())
    assert len(data) == 3
    assert bool(is_unknown(tensor([label for _, label in data])).all())


def test_hugging_face_reads_images_and_metadata(small, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    import datasets

    folder = extract(export(small, "huggingface", tmp_path), tmp_path / "x")
    for how in ({"path": str(folder)}, {"path": "imagefolder", "data_dir": str(folder)}):
        data = datasets.load_dataset(**how, cache_dir=str(tmp_path / "cache"))
        assert list(data) == ["test"]
        table = data["test"]
        assert len(table) == 3
        assert {"image", "wnid", "drop", "source_name", "recipe_hash"} <= set(table.column_names)
        by_source = {row["source_name"]: row for row in table}
        for row in rows(folder / "test" / "metadata.csv"):
            loaded = by_source[row["source_name"]]
            assert loaded["drop"] == float(row["drop"])
            expected = np.asarray(Image.open(folder / "test" / row["file_name"]))
            assert np.array_equal(np.asarray(loaded["image"]), expected)


def test_webdataset_reads_the_shards(small, tmp_path):
    import webdataset as wds

    folder = export(small, "webdataset", tmp_path)
    shards = sorted(str(path) for path in folder.glob("*.tar"))
    samples = list(wds.WebDataset(shards, shardshuffle=False, empty_check=False).decode("rgb8"))
    assert len(samples) == 3
    for sample in samples:
        row = sample["json"]
        assert sample["cls"] == row["class_index"]
        assert sample["__key__"] == row["file_name"].removeprefix("images/").removesuffix(".png")
        assert sample["png"].shape == (8, 8, 3)


def test_webdataset_shards_are_cut_by_size(small, tmp_path, monkeypatch):
    monkeypatch.setattr("exports.webdataset._BLOCK", 1 << 18)
    folder = export(small, "webdataset", tmp_path, part_bytes=1 << 20)
    names = sorted(path.name for path in folder.glob("*.tar"))
    assert names == [f"imagenet-bg-v1-{number:06d}.tar" for number in range(3)]
    assert "{000000..000002}" in (folder / "README.md").read_text()


def test_coco_masks_decode_to_the_masks(small, tmp_path):
    from pycocotools.coco import COCO

    folder = extract(export(small, "coco", tmp_path), tmp_path / "x")
    coco = COCO(str(folder / "annotations/instances_bg.json"))
    assert len(coco.getImgIds()) == 3
    x, y, width, height = MASKED
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = coco.annToMask(annotation)
        assert mask.sum() == annotation["area"] == width * height
        assert annotation["bbox"] == list(MASKED)
        assert mask[y, x] == 1
        wnid = coco.loadCats(annotation["category_id"])[0]["wnid"]
        assert CLASSES[annotation["category_id"] - 1][0] == wnid


@pytest.mark.parametrize("part_bytes", [1 << 30, 1 << 20])
def test_mlcroissant_validates_and_iterates(small, tmp_path, monkeypatch, part_bytes):
    import mlcroissant as mlc

    monkeypatch.setenv("CROISSANT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("exports.zip_parts._OVERHEAD_BYTES", 600_000)
    folder = export(small, "croissant", tmp_path, part_bytes=part_bytes)
    data = mlc.Dataset(jsonld=str(folder / "croissant.json"))
    assert not data.metadata.issues.errors
    assert not data.metadata.issues.warnings
    records = list(data.records(record_set="images"))
    table = {row["source_name"]: row for row in rows(folder / "metadata.csv")}
    assert len(records) == 3
    for record in records:
        row = table[record["images/source_name"].decode()]
        assert record["images/drop"] == pytest.approx(float(row["drop"]))
        assert record["images/image"].size == (8, 8)
        assert row["key"] == record["images/key"].decode()
        assert row["file_name"] == record["images/file_name"].decode()
    document = json.loads((folder / "croissant.json").read_text())
    assert {"rai:dataCollection", "rai:dataAnnotationProtocol", "rai:dataLimitations"} <= set(document)


def test_kaggle_folder_passes_the_packages_own_checks(small, tmp_path, monkeypatch):
    folder = export(small, "kaggle", tmp_path, owner="some-lab")
    files = {path.name for path in folder.iterdir()}
    assert {"images.zip", "images_s.txt", "metadata.csv", "dataset-metadata.json", "README.md", "SHA256SUMS"} <= files
    monkeypatch.setenv("KAGGLE_USERNAME", "some-lab")
    monkeypatch.setenv("KAGGLE_KEY", "x" * 32)
    from kaggle.api.kaggle_api_extended import KaggleApi

    api = KaggleApi()
    metadata = json.loads((folder / "dataset-metadata.json").read_text())
    api.validate_resources(str(folder), metadata["resources"])
    assert 6 <= len(metadata["title"]) <= 50
    assert 20 <= len(metadata["subtitle"]) <= 80
    assert metadata["id"] == "some-lab/imagenet-bg-v1"
    assert len(metadata["licenses"]) == 1
    with Image.open(folder / "dataset-cover-image.png") as cover:
        assert cover.size == (560, 280)
    with zipfile.ZipFile(folder / "images.zip") as images:
        inside = {f"images/{name}": hashlib.sha256(images.read(name)).hexdigest() for name in images.namelist()}
    assert inside == {row["file_name"]: row["result_sha256"] for row in rows(folder / "metadata.csv")}
    listed = (folder / "images_s.txt").read_text().splitlines()
    assert listed == sorted(row["file_name"] for row in rows(folder / "metadata.csv") if float(row["drop"]) > 5)
    columns = [field["name"] for field in metadata["resources"][0]["schema"]["fields"]]
    assert columns == list(rows(folder / "metadata.csv")[0])


def test_jpeg_archives_hold_jpegs_of_the_stated_quality(small, tmp_path):
    folder = extract(export(small, "imagefolder", tmp_path, images="jpeg", quality=90), tmp_path / "x")
    table = rows(folder / "metadata.csv")
    assert len(table) == 3
    for row in table:
        with Image.open(folder / row["file_name"]) as image:
            assert image.format == "JPEG"
            assert image.size == (8, 8)
    assert "JPEG, quality 90" in (folder / "README.md").read_text()
    sums_hold(folder)


def test_the_two_parts_are_disjoint_by_source_photo_and_make_the_whole(small, tmp_path):
    whole = rows(extract(export(small, "imagefolder", tmp_path), tmp_path / "whole") / "metadata.csv")
    assert {row["part"] for row in whole} == {part_of(row["source_sha256"]) for row in whole}
    found = []
    for part in ("val", "test"):
        if part not in {row["part"] for row in whole}:
            with pytest.raises(ExportError, match=f"no member in its {part} part"):
                export(small, "imagefolder", tmp_path, part=part)
            continue
        path = export(small, "imagefolder", tmp_path, part=part)
        assert path.name == f"imagenet-bg-v1-{part}.zip"
        found += [row["source_name"] for row in rows(extract(path, tmp_path / part) / "metadata.csv")]
    assert sorted(found) == sorted(row["source_name"] for row in whole)


def test_one_photo_in_ten_is_for_validation():
    shares = [part_of(hashlib.sha256(str(number).encode()).hexdigest()) == "val" for number in range(20_000)]
    assert 0.09 < np.mean(shares) < 0.11


def test_options_outside_their_range_are_named():
    for options, says in (
        ({"images": "gif"}, "png or jpeg"),
        ({"quality": 0}, "1 to 100"),
        ({"part": "train"}, "val, test"),
        ({"part_bytes": 5}, "one MiB"),
    ):
        with pytest.raises(ExportError, match=says):
            ExportOptions(**options)
    with pytest.raises(ExportError, match="Unknown export option: colour"):
        ExportOptions.from_dict({"colour": "blue"})
