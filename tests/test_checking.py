"""The checker: good archives pass, every sort of damage is named."""

from __future__ import annotations

import json
import shutil
import zipfile
from pathlib import Path

import pytest
from PIL import Image

from db.workspace import open_workspace
from exports.builds import freeze
from exports.checking import check_archive
from exports.opened import ArchiveDamaged
from exports.options import ExportOptions
from exports.registry import EXPORTERS, export_build
from exports.rules import PRESETS, Rule
from tests.test_builds import Small, make_small
from tests.test_export_imagefolder import extract


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    made = make_small(open_workspace(tmp_path_factory.mktemp("checking") / "workspace"))
    for candidate in made.candidates.values():
        for name in ("mask.png", "dilated.png"):
            Image.new("L", (8, 8), 255).save(made.workspace.root / candidate.folder / name)
    freeze(made.workspace, "bg", PRESETS["bg"])
    return made


@pytest.fixture
def folder(small, tmp_path) -> Path:
    """An extracted ImageFolder archive."""
    return extract(export_build(small.workspace, "bg", "imagefolder", tmp_path / "a").path, tmp_path / "x")


def faults(path: Path, workspace=None) -> str:
    report = check_archive(path, workspace)
    assert report.ok == all(not finding.faults for finding in report.findings)
    return "\n".join(fault for finding in report.findings for fault in finding.faults)


@pytest.mark.parametrize("format", sorted(EXPORTERS))
@pytest.mark.parametrize("images", ["png", "jpeg"])
def test_our_own_archives_are_in_order(small, tmp_path, format, images):
    path = export_build(small.workspace, "bg", format, tmp_path, options=ExportOptions(images=images)).path
    assert faults(path, small.workspace) == ""
    report = check_archive(path, small.workspace)
    looked_at = {finding.what: finding.looked_at for finding in report.findings}
    assert looked_at["checksums (SHA256SUMS)"] >= 3
    if format != "coco":
        assert looked_at["images: there, decodable, 8-bit RGB, as named"] == 3
        assert looked_at["the workspace's build"] == 3


def test_an_extracted_archive_is_in_order(folder, small):
    assert faults(folder, small.workspace) == ""


def first_image(folder: Path) -> Path:
    return sorted(folder.rglob("images/*/*.png"))[0]


def test_a_changed_byte(folder):
    content = bytearray(first_image(folder).read_bytes())
    content[-20] ^= 1
    first_image(folder).write_bytes(content)
    said = faults(folder)
    assert "its bytes are not those that were written" in said
    assert first_image(folder).name in said


def test_a_missing_and_an_unknown_file(folder):
    image = first_image(folder)
    image.rename(image.with_name("other.png"))
    said = faults(folder)
    assert "listed, but not there" in said
    assert "other.png: there, but not listed" in said
    assert "an image that metadata.csv does not know" in said


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: Image.new("RGBA", (8, 8)).save(path), "mode RGBA"),
        (lambda path: Image.new("RGB", (8, 8)).save(path, "JPEG"), "holds JPEG"),
        (lambda path: path.write_bytes(b"no image"), "cannot be decoded"),
        (lambda path: Image.new("RGB", (8, 8)).save(path), "not the image that metadata.csv names"),
    ],
)
def test_a_wrong_image(folder, damage, says):
    damage(first_image(folder))
    assert says in faults(folder)


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("file_name,key", "name,key", "its columns are"),
        (",background,", ",texture,", "content hash"),
        ("images/n01", "/etc/n01", "plain relative name"),
        ("6.0", "six", "not a number"),
    ],
)
def test_wrong_metadata(folder, old, new, says):
    path = folder / "metadata.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    assert says in faults(folder)


def test_a_line_too_few(folder):
    path = folder / "metadata.csv"
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    assert "has 2 lines, build.json says 3" in faults(folder)


def test_another_build_of_the_same_name(folder, tmp_path):
    other = make_small(open_workspace(tmp_path / "other"))
    freeze(other.workspace, "bg", Rule(verdicts="any"))
    assert "another content hash" in faults(folder, other.workspace)


def test_a_list_that_names_what_is_not_there(small, tmp_path):
    archive = export_build(small.workspace, "bg", "openood", tmp_path).path
    folder = extract(archive, tmp_path / "x")
    path = folder / "data/benchmark_imglist/imagenet/test_imagenet_bg.txt"
    path.write_text(path.read_text().replace(" -1", " 0", 1) + "imagenet_bg/n/none.png -1\n")
    said = faults(folder)
    assert "the label must be -1, not '0'" in said
    assert "'imagenet_bg/n/none.png' is no image of the archive" in said


def test_kaggles_rules(small, tmp_path):
    folder = export_build(small.workspace, "bg", "kaggle", tmp_path).path
    path = folder / "dataset-metadata.json"
    metadata = json.loads(path.read_text())
    metadata |= {"title": "short", "id": "Nobody/No", "licenses": [], "resources": [{"path": "gone.csv"}] * 2}
    path.write_text(json.dumps(metadata))
    said = faults(folder)
    for words in ("title: must have", "id: must be", "licenses: must", "'gone.csv' is not there", "named twice"):
        assert words in said, words


def test_containers_that_cannot_be_read(small, tmp_path):
    with pytest.raises(ArchiveDamaged, match="nothing at"):
        check_archive(tmp_path / "none")
    (tmp_path / "a.zip").write_bytes(b"PK but no zip")
    with pytest.raises(ArchiveDamaged, match="no readable zip"):
        check_archive(tmp_path / "a.zip")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as target:
        target.writestr("../evil.txt", "x")
    with pytest.raises(ArchiveDamaged, match="leads out"):
        check_archive(tmp_path / "b.zip")
    whole = export_build(small.workspace, "bg", "imagefolder", tmp_path).path
    shutil.copy(whole, tmp_path / "c.zip")
    content = bytearray((tmp_path / "c.zip").read_bytes())
    content[600] ^= 255
    (tmp_path / "c.zip").write_bytes(content)
    assert "cannot be read" in faults(tmp_path / "c.zip") or "not those that were written" in faults(tmp_path / "c.zip")
