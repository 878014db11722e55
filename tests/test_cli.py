"""The commands as a user types them: the demo end to end, resume, export, clear errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import ROOT, write_photos


def run(*arguments: str, expect: int = 0, **environment: str) -> str:
    """Output of ``launch.py arguments``, stdout and stderr together; the exit code is checked."""
    done = subprocess.run(
        [sys.executable, "launch.py", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "COLUMNS": "160", **environment},
    )
    assert done.returncode == expect, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture
def demo(demo_workspace: Path, tmp_path: Path) -> Path:
    shutil.copytree(demo_workspace, tmp_path / "demo")
    return tmp_path / "demo"


def _rows(workspace: Path, query: str) -> list[tuple]:
    with sqlite3.connect(f"file:{workspace / 'workspace.db'}?mode=ro", uri=True) as connection:
        return connection.execute(query).fetchall()


def test_the_demo_makes_scored_candidates_of_twenty_photos(demo_workspace):
    output = (demo_workspace.parent / "output.txt").read_text()
    counts = {name: int(count) for name, count in re.findall(r"^(\w+) +(\d+)$", output, re.MULTILINE)}
    assert counts.pop("together") == 20
    assert sum(counts.values()) == 20
    assert counts["candidate"] >= 18
    rows = _rows(demo_workspace, 'SELECT area, "drop", folder FROM candidates')
    assert len(rows) == counts["candidate"]
    assert all(area > 0 and np.isfinite(drop) for area, drop, _ in rows)
    assert np.mean([drop for _, drop, _ in rows]) > 4
    for _, _, folder in rows:
        raw, dilated, result = (
            np.asarray(Image.open(demo_workspace / folder / f"{name}.png")) for name in ("raw", "dilated", "result")
        )
        assert np.array_equal(raw[dilated == 0], result[dilated == 0])
        assert not np.array_equal(raw, result)


def test_a_second_demo_does_nothing_and_says_so(demo):
    before = {path: path.stat().st_mtime_ns for path in (demo / "candidates").rglob("*.png")}
    assert "Nothing to do" in run("demo", "--no-serve", "--workspace", str(demo))
    assert {path: path.stat().st_mtime_ns for path in (demo / "candidates").rglob("*.png")} == before


def test_export_freezes_the_preset_and_torchvision_reads_it(demo, tmp_path):
    from torchvision.datasets import ImageFolder

    output = run("export", "--workspace", str(demo), "--build", "bg", "--out", str(tmp_path / "out"))
    assert "bg-v1" in output
    archive = next((tmp_path / "out").glob("*.zip"))
    first = hashlib.sha256(archive.read_bytes()).hexdigest()
    assert first in output
    with zipfile.ZipFile(archive) as opened:
        opened.extractall(tmp_path / "extracted")
    read = ImageFolder(tmp_path / "extracted" / "images")
    candidates = _rows(demo, "SELECT count(*) FROM candidates")[0][0]
    assert len(read) == candidates
    wnids = {row[0] for row in _rows(demo, "SELECT wnid FROM classes JOIN candidates USING (class_index)")}
    assert set(read.classes) == wnids
    assert read[0][0].size == (224, 224)

    archive.unlink()
    run("export", "--workspace", str(demo), "--build", "bg", "--out", str(tmp_path / "out"))
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == first


def test_build_numbers_and_lists(demo):
    first = run("build", "--workspace", str(demo))
    assert "bg-v1: " in first
    assert "no new number" in run("build", "--workspace", str(demo))
    small = run("build", "--workspace", str(demo), "--name", "bg_s")
    assert "bg_s-v1: " in small
    own = run("build", "-w", str(demo), "--name", "mine", "--preset", "custom", "--drop-at-least", "9")
    assert int(re.search(r"mine-v1: (\d+) images", own)[1]) < int(re.search(r"bg_s-v1: (\d+) images", small)[1])
    listed = run("build", "--workspace", str(demo), "--list")
    assert all(label in listed for label in ("bg-v1", "bg_s-v1", "mine-v1"))


def test_status_adds_up(demo):
    output = run("status", "--workspace", str(demo))
    assert re.search(r"together +20", output)
    assert "generate" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status",), "There is no workspace"),
        (("generate",), "There is no workspace"),
        (("import", "/nowhere/at/all"), "/nowhere/at/all"),
        (("--host", "0.0.0.0"), "0.0.0.0"),
    ],
)
def test_errors_are_sentences(tmp_path, arguments, message):
    output = run("--workspace", str(tmp_path / "w"), *arguments, expect=1)
    assert message in output
    assert "Traceback" not in output


def test_an_unknown_backend_or_option_is_named(demo):
    assert "embedded_cam" in run("generate", "-w", str(demo), "--masker", "sam9", expect=1)
    assert "min_area" in run("generate", "-w", str(demo), "--min-area", "2", expect=1)
    assert "n99999999" in run("generate", "-w", str(demo), "--classes", "n99999999", expect=2)


def test_import_says_what_it_skipped(tmp_path):
    photos = write_photos(tmp_path / "photos", 5)
    (photos / "n01440764" / "broken.jpg").write_bytes(b"not a picture")
    output = run("import", str(photos), "--workspace", str(tmp_path / "w"))
    assert "6 files: 5 added, 0 there already, 1 skipped." in output
    assert "broken.jpg" in output
    assert "6 files: 0 added, 5 there already, 1 skipped." in run(
        "import", str(photos), "--workspace", str(tmp_path / "w")
    )


NOOP = ("--masker", "noop", "--inpainter", "noop", "--scorer", "noop")


def test_ctrl_c_stops_and_the_same_command_goes_on(tmp_path):
    photos = write_photos(tmp_path / "photos", 300)
    workspace = tmp_path / "w"
    run("import", str(photos), "--workspace", str(workspace))
    command = [sys.executable, "launch.py", "generate", "--workspace", str(workspace), *NOOP]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    while child.poll() is None and _rows(workspace, "SELECT count(*) FROM outcomes")[0][0] == 0:
        time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    time.sleep(0.05)
    child.send_signal(signal.SIGINT)  # one press, passed on by `uv run` as well
    output, _ = child.communicate(timeout=30)
    assert child.returncode == 130, output
    assert "goes on from there" in output
    done = _rows(workspace, "SELECT count(*) FROM outcomes")[0][0]
    assert 0 < done < 300
    assert _rows(workspace, "SELECT state FROM jobs ORDER BY id DESC LIMIT 1") == [("cancelled",)]
    run("generate", "--workspace", str(workspace), *NOOP)
    assert _rows(workspace, "SELECT state, count(*) FROM outcomes GROUP BY state") == [("candidate", 300)]


def test_a_killed_commands_job_is_taken_up_at_once(tmp_path):
    photos = write_photos(tmp_path / "photos", 300)
    workspace = tmp_path / "w"
    run("import", str(photos), "--workspace", str(workspace))
    command = [sys.executable, "launch.py", "generate", "--workspace", str(workspace), *NOOP]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while child.poll() is None and _rows(workspace, "SELECT count(*) FROM outcomes")[0][0] == 0:
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert _rows(workspace, "SELECT state FROM jobs WHERE kind = 'generate'") == [("running",)]
    assert "cut off" in run("status", "--workspace", str(workspace))
    run("worker", "--until-idle", "--workspace", str(workspace))
    assert _rows(workspace, "SELECT state, attempts FROM jobs WHERE kind = 'generate'") == [("done", 2)]
    assert _rows(workspace, "SELECT count(*) FROM outcomes") == [(300,)]


def test_doctor_reports_and_needs_no_network():
    output = run("doctor", HF_HUB_OFFLINE="1")
    assert re.search(r"ok +torch", output)
    assert "Offline" in output


def test_the_options_json_is_validated(demo):
    options = json.dumps({"dilatation": 3})
    assert "dilatation" in run("generate", "--workspace", str(demo), "--options", options, expect=1)
