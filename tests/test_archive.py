"""The resumable zip: the same bytes however it was stopped, and nothing half-written under its name."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from exports import archive
from exports.archive import resumable_zip
from exports.protocols import ExportError
from tests.conftest import ROOT

MEMBERS = {f"images/{number:04d}.png": random.Random(number).randbytes(100 + 37 * number) for number in range(40)}


class Stop(Exception):
    pass


def write(path: Path, key: str = "k", stop_before: int | None = None) -> int:
    """Write all members that are not there, or stop before one of them; gives how many were written."""
    written = 0
    with resumable_zip(path, key) as target:
        for number, (name, content) in enumerate(MEMBERS.items()):
            if number == stop_before:
                raise Stop
            if not target.has(name):
                target.write(name, content)
                written += 1
    return written


@pytest.fixture
def whole(tmp_path) -> bytes:
    write(tmp_path / "whole.zip")
    return (tmp_path / "whole.zip").read_bytes()


@pytest.mark.parametrize("checkpoint", [1, 5_000, 1 << 20])
@pytest.mark.parametrize("stop_before", [0, 1, 20, 39])
def test_a_stopped_zip_goes_on_to_the_same_bytes(tmp_path, whole, monkeypatch, checkpoint, stop_before):
    monkeypatch.setattr(archive, "CHECKPOINT_BYTES", checkpoint)
    path = tmp_path / "a.zip"
    with pytest.raises(Stop):
        write(path, stop_before=stop_before)
    assert not path.exists()
    assert write(path) == len(MEMBERS) - stop_before
    assert path.read_bytes() == whole
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "whole.zip"]
    with zipfile.ZipFile(path) as opened:
        assert opened.testzip() is None
        assert {name: opened.read(name) for name in opened.namelist()} == MEMBERS


@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, 40_000), noise=st.binary(max_size=300))
def test_whatever_a_kill_left_after_a_checkpoint_is_cut_off(tmp_path_factory, cut, noise):
    folder = tmp_path_factory.mktemp("zip")
    path = folder / "a.zip"
    with pytest.raises(Stop):
        write(path, stop_before=25)
    part = next(file for file in folder.iterdir() if file.suffix == ".part")
    saved = int.from_bytes(part.with_name(f"{part.name}.directory").read_bytes()[:8], "big")
    content = part.read_bytes()
    part.write_bytes(content[: max(saved, cut)] + noise)
    write(path)
    with zipfile.ZipFile(path) as opened:
        assert {name: opened.read(name) for name in opened.namelist()} == MEMBERS


def test_a_part_shorter_than_its_checkpoint_is_begun_anew(tmp_path, whole):
    path = tmp_path / "a.zip"
    with pytest.raises(Stop):
        write(path, stop_before=30)
    part = next(file for file in tmp_path.iterdir() if file.suffix == ".part")
    part.write_bytes(part.read_bytes()[:500])
    assert write(path) == len(MEMBERS)
    assert path.read_bytes() == whole


def test_another_key_begins_anew_and_clears_the_old_part(tmp_path, whole):
    path = tmp_path / "a.zip"
    with pytest.raises(Stop):
        write(path, "one", stop_before=30)
    assert write(path, "two") == len(MEMBERS)
    assert path.read_bytes() == whole
    assert not [file for file in tmp_path.iterdir() if file.name.startswith(".")]


def test_a_killed_process_leaves_a_part_that_is_gone_on_with(tmp_path, whole):
    path = tmp_path / "a.zip"
    code = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from exports import archive\n"
        "from tests.test_archive import MEMBERS\n"
        "archive.CHECKPOINT_BYTES = 3000\n"
        "with archive.resumable_zip(Path(sys.argv[1]), 'k') as target:\n"
        "    for number, (name, content) in enumerate(MEMBERS.items()):\n"
        "        if number == 22:\n"
        "            os.kill(os.getpid(), signal.SIGKILL)\n"
        "        target.write(name, content)\n"
    )
    assert subprocess.run([sys.executable, "-c", code, str(path)], cwd=ROOT).returncode == -9
    assert not path.exists()
    assert 0 < write(path) < len(MEMBERS)
    assert path.read_bytes() == whole


def test_a_full_disk_leaves_nothing(tmp_path, monkeypatch):
    path = tmp_path / "out" / "a.zip"

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(zipfile.ZipFile, "writestr", full)
    with pytest.raises(ExportError, match="no room for the archive"):
        write(path)
    assert list((tmp_path / "out").iterdir()) == []


def test_names_must_rise_and_stay_inside(tmp_path):
    for names in (["b", "a"], ["a", "a"], ["/a"], ["a/../b"], ["a\\b"]):
        with pytest.raises(ValueError, match="cannot follow"), resumable_zip(tmp_path / "a.zip", "k") as target:
            for name in names:
                target.write(name, b"")


def test_what_was_torn_off_with_a_checkpoint_is_cleared(tmp_path, whole):
    path = tmp_path / "a.zip"
    with pytest.raises(Stop):
        write(path, stop_before=30)
    part = next(file for file in tmp_path.iterdir() if file.suffix == ".part")
    (tmp_path / f".{part.name}.directory.0123abcd.part").write_bytes(b"torn")
    assert write(path) == 10
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.zip", "whole.zip"]
