"""The ImageFolder zip: what others' tools read from it, that it is the same each time, and what stops it."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import time
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from torchvision.datasets import ImageFolder

from db.models import Reason, Verdict
from db.progress import Cancelled, NoProgress
from exports.builds import UnknownBuild, freeze, hash_items
from exports.members import METADATA_COLUMNS, file_stem
from exports.protocols import Before, ExportError
from exports.registry import EXPORTERS, export_build
from exports.rules import PRESETS, Rule
from tests.test_builds import CLASSES, Small, make_small


@pytest.fixture
def small(workspace) -> Small:
    made = make_small(workspace)
    freeze(workspace, "bg", PRESETS["bg"], created_by="Ada")
    return made


def visible(folder: Path) -> list[str]:
    """What a person sees in the folder; the hidden part of a stopped export is not among it."""
    return sorted(path.name for path in folder.glob("*") if not path.name.startswith("."))


def extract(archive: Path, target: Path) -> Path:
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(target)
    return target


def metadata(folder: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO((folder / "metadata.csv").read_text(encoding="utf-8"))))


def test_layout_and_checksums(small, tmp_path):
    result = export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    assert result.path == tmp_path / "out" / "imagenet-bg-v1.zip"
    assert (result.images, result.before) == (3, Before.NOTHING)
    assert result.bytes == result.path.stat().st_size
    assert result.sha256 == hashlib.sha256(result.path.read_bytes()).hexdigest()
    assert sorted(path.name for path in result.path.parent.iterdir()) == [
        "imagenet-bg-v1.zip",
        "imagenet-bg-v1.zip.sha256",
    ]
    subprocess.run(["sha256sum", "--strict", "-c", "imagenet-bg-v1.zip.sha256"], cwd=result.path.parent, check=True)
    with zipfile.ZipFile(result.path) as opened:
        assert opened.testzip() is None
        names = opened.namelist()
        assert names == sorted(names)
        assert {info.date_time for info in opened.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert {info.compress_type for info in opened.infolist()} == {zipfile.ZIP_STORED}
    folder = extract(result.path, tmp_path / "extracted")
    checked = subprocess.run(
        ["sha256sum", "--strict", "-c", "SHA256SUMS"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert len(checked.stdout.splitlines()) == len(names) - 1


def test_torchvision_reads_it(small, tmp_path):
    folder = extract(export_build(small.workspace, "bg", "imagefolder", tmp_path).path, tmp_path / "x")
    data = ImageFolder(str(folder / "images"))
    rows = metadata(folder)
    assert data.classes == sorted({row["wnid"] for row in rows})
    assert {path: data.classes[label] for path, label in data.samples} == {
        str(folder / row["file_name"]): row["wnid"] for row in rows
    }
    assert data[0][0].size == (8, 8)


def test_metadata_describes_the_members(small, tmp_path):
    folder = extract(export_build(small.workspace, "bg", "imagefolder", tmp_path).path, tmp_path / "x")
    rows = metadata(folder)
    assert tuple(rows[0]) == METADATA_COLUMNS
    by_name = {row["source_name"].rsplit("_", 1)[1]: row for row in rows}
    row, candidate = by_name["accepted"], small.candidates["accepted"]
    assert row["result_sha256"] == hashlib.sha256((folder / row["file_name"]).read_bytes()).hexdigest()
    assert row["result_sha256"] == candidate.result_sha256
    assert (row["wnid"], row["class_name"]) == CLASSES[2]
    assert (row["drop"], row["probability"], row["accepts"], row["rejects"]) == ("6.0", "0.123457", "1", "0")
    build = json.loads((folder / "build.json").read_text())
    rows.sort(key=lambda row: (int(row["class_index"]), row["source_name"]))
    assert build["content_hash"] == hash_items(
        (row["source_name"], int(row["class_index"]), row["kind"], int(row["version"]), row["result_sha256"])
        for row in rows
    )
    assert build["rule"] == PRESETS["bg"].to_json()
    assert build["item_count"] == 3


def test_the_card_says_what_it_must_and_names_nobody(small, tmp_path):
    folder = extract(export_build(small.workspace, "bg", "imagefolder", tmp_path).path, tmp_path / "x")
    card = (folder / "README.md").read_text()
    for words in (
        "Embedded result: not paper-grade",
        "Not audited",
        PRESETS["bg"].describe(),
        small.recipe.hash,
        "object_left | 2",
        "no_detection | 1",
        "total | 6",
        "annotator-2 | 0 | 1 | 1",
        "keep the terms",
    ):
        assert words in card, words
    for name in ("Ada", "Bob", str(small.workspace.root), "/photos"):
        assert name not in card + (folder / "build.json").read_text() + (folder / "metadata.csv").read_text()


def test_the_card_of_the_published_pipeline_claims_no_more_than_that(workspace, tmp_path):
    make_small(workspace, grade="paper")
    freeze(workspace, "bg", PRESETS["bg"])
    card = (
        extract(export_build(workspace, "bg", "imagefolder", tmp_path).path, tmp_path / "x") / "README.md"
    ).read_text()
    assert "not paper-grade" not in card
    assert "scorer_x | paper" in card


def test_twice_the_same_bytes(small, tmp_path, monkeypatch):
    first = export_build(small.workspace, "bg", "imagefolder", tmp_path / "a")
    content = first.path.read_bytes()
    for png in small.workspace.root.rglob("result.png"):
        os.utime(png, (1e9, 1e9))
    small.maker.vote(small.candidates["accepted"], "Cleo", Verdict.REJECT, Reason.UNSUITABLE)
    freeze(small.workspace, "bg", PRESETS["bg"])
    time.sleep(1.1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    previous_mask = os.umask(0o077)
    try:
        second = export_build(small.workspace, "bg-1", "imagefolder", "b")
    finally:
        os.umask(previous_mask)
        monkeypatch.undo()
        time.tzset()
    assert second.path == tmp_path / "b" / first.path.name
    assert second.path.read_bytes() == content
    assert export_build(small.workspace, "bg-1", "imagefolder", tmp_path / "a").before == Before.IDENTICAL


def test_a_damaged_archive_is_replaced(small, tmp_path):
    first = export_build(small.workspace, "bg", "imagefolder", tmp_path)
    first.path.write_bytes(b"half a file")
    again = export_build(small.workspace, "bg", "imagefolder", tmp_path)
    assert again.before == Before.REPLACED
    assert again.sha256 == first.sha256 == hashlib.sha256(again.path.read_bytes()).hexdigest()


@pytest.mark.parametrize("harm", ["changed", "missing"])
def test_a_harmed_image_stops_the_export(small, tmp_path, harm):
    candidate = small.candidates["skipped"]
    png = small.workspace.root / candidate.folder / "result.png"
    if harm == "changed":
        content = bytearray(png.read_bytes())
        content[-20] ^= 1
        png.write_bytes(content)
    else:
        png.unlink()
    with pytest.raises(ExportError, match=rf"candidate {candidate.id} .*generate the source again"):
        export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    assert visible(tmp_path / "out") == []


def test_a_failed_export_leaves_the_standing_archive(small, tmp_path):
    first = export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    content = first.path.read_bytes()
    shutil.rmtree(small.workspace.root / small.candidates["skipped"].folder)
    with pytest.raises(ExportError):
        export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    assert first.path.read_bytes() == content
    assert visible(tmp_path / "out") == ["imagenet-bg-v1.zip", "imagenet-bg-v1.zip.sha256"]


class Watcher(NoProgress):
    """Keeps what it is told and cancels at the update that asks for it."""

    def __init__(self, cancel_at: int | None = None) -> None:
        self.seen: list[tuple[int, int | None]] = []
        self._cancel_at = cancel_at

    def update(self, done: int, total: int | None, message: str = "") -> None:
        self.seen.append((done, total))
        if done == self._cancel_at:
            raise Cancelled


def test_progress_counts_the_images(small, tmp_path):
    watcher = Watcher()
    export_build(small.workspace, "bg", "imagefolder", tmp_path, watcher)
    assert watcher.seen[-4:] == [(0, 3), (1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("cancel_at", [0, 1, 2, 3])
def test_a_cancelled_export_goes_on_to_the_same_bytes(small, tmp_path, cancel_at):
    whole = export_build(small.workspace, "bg", "imagefolder", tmp_path / "whole")
    with pytest.raises(Cancelled):
        export_build(small.workspace, "bg", "imagefolder", tmp_path / "out", Watcher(cancel_at))
    assert visible(tmp_path / "out") == []
    again = export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    assert again.path.read_bytes() == whole.path.read_bytes()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == visible(tmp_path / "out")


def test_no_room_is_said_and_leaves_nothing(small, tmp_path):
    """The kernel refuses to let the file grow, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limits[1]))
    try:
        with pytest.raises(ExportError, match="no room for the archive"):
            export_build(small.workspace, "bg", "imagefolder", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "out").iterdir()) == []


def test_awkward_source_names_become_safe_distinct_files(workspace, tmp_path):
    small = make_small(workspace)
    names = ["a/b", "a__b", "a b.c", "a_b_c", "../../evil", "käse", "n01440764/ILSVRC2012_val_1", "x" * 250]
    for name in names:
        small.maker.candidate(small.maker.source(name), small.recipe)
    freeze(workspace, "bg", Rule(verdicts="any"))
    folder = extract(export_build(workspace, "bg", "imagefolder", tmp_path).path, tmp_path / "x")
    rows = metadata(folder)
    assert len({row["file_name"] for row in rows}) == len(rows) == len(names) + 5
    assert {row["source_name"] for row in rows} >= set(names)
    stems = {row["source_name"]: Path(row["file_name"]).stem for row in rows}
    assert stems["a/b"] == "a__b"
    assert stems["n01440764/ILSVRC2012_val_1"] == "n01440764__ILSVRC2012_val_1"
    subprocess.run(["sha256sum", "--strict", "--quiet", "-c", "SHA256SUMS"], cwd=folder, check=True)


@given(st.lists(st.text(alphabet="aB9_-/. \\é", max_size=12), unique=True, min_size=2, max_size=40))
def test_file_stems_are_safe_and_distinct(names):
    stems = [file_stem(name) for name in names]
    assert len(set(stems)) == len(names)
    for stem in stems:
        assert stem
        assert set(stem) <= set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-")


def test_unknown_build_or_format_names_the_known_ones(small, tmp_path):
    with pytest.raises(ExportError, match="imagefolder"):
        export_build(small.workspace, "bg", "floppy", tmp_path)
    with pytest.raises(UnknownBuild, match="bg-v1"):
        export_build(small.workspace, "bg-7", "imagefolder", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(ExportError, match="not a folder"):
        export_build(small.workspace, "bg", "imagefolder", tmp_path / "file")
    assert all(exporter.label for exporter in EXPORTERS.values())
