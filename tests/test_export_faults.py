"""Exports that are killed, that meet a full disk, and archives with wrong bytes: every format, whole or not there."""

from __future__ import annotations

import resource
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from db.workspace import open_workspace
from exports.builds import freeze
from exports.checking import check_archive
from exports.options import ExportOptions
from exports.protocols import NoRoom
from exports.registry import EXPORTERS, export_build
from exports.rules import PRESETS
from tests.conftest import ROOT
from tests.test_builds import Small, make_small
from tests.test_export_formats import contents

IN_PARTS = {"kaggle", "croissant", "webdataset"}


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Small:
    made = make_small(open_workspace(tmp_path_factory.mktemp("faults") / "workspace"))
    for candidate in made.candidates.values():
        for name in ("mask.png", "dilated.png"):
            Image.fromarray(np.full((8, 8), 255, np.uint8)).save(made.workspace.root / candidate.folder / name)
    freeze(made.workspace, "bg", PRESETS["bg"])
    return made


@pytest.fixture
def many_parts(monkeypatch) -> None:
    """Every image in a zip or shard of its own."""
    monkeypatch.setattr("exports.zip_parts._OVERHEAD_BYTES", 600_000)
    monkeypatch.setattr("exports.webdataset._BLOCK", 1 << 18)


def export(small: Small, format: str, out: Path) -> Path:
    return export_build(small.workspace, "bg", format, out, options=ExportOptions(part_bytes=1 << 20)).path


# ---- killed ----

KILLED = """
import os, signal, sys
from pathlib import Path
import exports.archive, exports.webdataset, exports.zip_parts
from db.progress import NoProgress
from db.workspace import open_workspace
from exports.options import ExportOptions
from exports.registry import export_build

workspace, format, out, at = sys.argv[1:]
exports.archive.CHECKPOINT_BYTES = 1
exports.zip_parts._OVERHEAD_BYTES = 600_000
exports.webdataset._BLOCK = 1 << 18

class Killer(NoProgress):
    calls = 0

    def update(self, done, total, message=""):
        if any(Path(out).glob(".*.part*")) and done == int(at):
            os.kill(os.getpid(), signal.SIGKILL)

export_build(open_workspace(workspace), "bg", format, Path(out), Killer(), ExportOptions(part_bytes=1 << 20))
"""


@pytest.mark.parametrize("at", [1, 2])
@pytest.mark.parametrize("format", ["imagefolder", "kaggle", "webdataset"])
def test_a_killed_export_goes_on_to_the_same_bytes(small, tmp_path, many_parts, format, at):
    whole = export(small, format, tmp_path / "whole")
    out = tmp_path / "out"
    out.mkdir()
    arguments = [str(small.workspace.root), format, str(out), str(at)]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT).returncode == -9
    assert all(path.name.startswith(".") for path in out.iterdir()), "nothing stands under a final name"
    left = {path.relative_to(out) for path in out.rglob("*") if path.is_file()}
    assert left, "the killed export left what the next goes on from"
    done = export(small, format, out)
    assert contents(done) == contents(whole)
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_finished_parts_of_a_killed_export_are_not_written_again(small, tmp_path, many_parts, monkeypatch):
    out = tmp_path / "out"
    out.mkdir()
    arguments = [str(small.workspace.root), "kaggle", str(out), "2"]
    assert subprocess.run([sys.executable, "-c", KILLED, *arguments], cwd=ROOT).returncode == -9
    read = []
    from exports.contents import BuildContents

    image = BuildContents.image
    monkeypatch.setattr(BuildContents, "image", lambda self, member: read.append(member) or image(self, member))
    export(small, "kaggle", out)
    assert len(read) == 1


# ---- no room ----


@contextmanager
def no_file_larger_than(size: int) -> Iterator[None]:
    """The kernel refuses to let a file grow, as it does on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.parametrize("format", sorted(EXPORTERS))
@pytest.mark.parametrize("size", [300, 2000])
def test_no_room_leaves_nothing_and_the_old_archive_whole(small, tmp_path, many_parts, format, size):
    whole = contents(export(small, format, tmp_path / "out"))
    with no_file_larger_than(size), pytest.raises(NoRoom, match="no room for the archive"):
        export(small, format, tmp_path / "new")
    assert list((tmp_path / "new").iterdir()) == []
    with no_file_larger_than(size), pytest.raises(NoRoom):
        export(small, format, tmp_path / "out")
    assert not [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".")]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    archive = next(tmp_path / "out" / name for name in names if not name.endswith(".sha256"))
    assert contents(archive) == whole
    assert contents(export(small, format, tmp_path / "new")) == whole


FULL_DISK = """
import os, subprocess, sys
from pathlib import Path
from db.workspace import open_workspace
from exports.options import ExportOptions
from exports.protocols import NoRoom
from exports.registry import export_build

workspace, format, disk = open_workspace(sys.argv[1]), sys.argv[2], Path(sys.argv[3])

def export():
    return export_build(workspace, "bg", format, disk / "out", options=ExportOptions(part_bytes=1 << 20))

subprocess.run(["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(disk)], check=True)
try:
    export()
except NoRoom as error:
    print(error)
else:
    sys.exit("the disk was not full")
assert list((disk / "out").iterdir()) == []
subprocess.run(["mount", "-o", "remount,size=64m", str(disk)], check=True)
print(export().sha256)
"""


def _own_mounts() -> bool:
    """Whether this machine lets the test mount a disk of its own, in a namespace that ends with it."""
    if shutil.which("unshare") is None:
        return False
    tried = ["unshare", "--mount", "--map-root-user", "mount", "-t", "tmpfs", "tmpfs", "/mnt"]
    return subprocess.run(tried, capture_output=True).returncode == 0


@pytest.mark.skipif(not _own_mounts(), reason="no mount namespaces here; the limits above make the same errors")
@pytest.mark.parametrize("format", ["imagefolder", "kaggle"])
def test_a_disk_that_fills_up(small, tmp_path, format):
    whole = export_build(small.workspace, "bg", format, tmp_path / "whole", options=ExportOptions(part_bytes=1 << 20))
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["unshare", "--mount", "--map-root-user", sys.executable, "-c", FULL_DISK]
    done = subprocess.run(
        [*command, str(small.workspace.root), format, str(disk)], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    said, sha256 = done.stdout.splitlines()
    assert "There is no room for the archive" in said
    assert "No space left on device" in said
    assert sha256 == whole.sha256


# ---- wrong bytes ----


@pytest.mark.parametrize("format", sorted(set(EXPORTERS) - {"coco"}))
def test_one_wrong_byte_of_an_image_is_found_and_named(small, tmp_path, many_parts, format):
    path = export(small, format, tmp_path)
    member = next(iter(small.candidates.values()))
    png = (small.workspace.root / member.folder / "result.png").read_bytes()
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    (container,) = [file for file in files if png in file.read_bytes()]
    content = bytearray(container.read_bytes())
    content[content.index(png) + len(png) // 2] ^= 1
    container.write_bytes(content)
    faults = [fault for finding in check_archive(path).findings for fault in finding.faults]
    assert any("accepted" in fault for fault in faults), faults
    assert not any("rejected" in fault or "skipped" in fault or "shallow" in fault for fault in faults)
    if format in IN_PARTS:
        assert any(fault.startswith(container.name) for fault in faults)
