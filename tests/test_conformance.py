"""The golden vectors, where they are at hand, and the command's own honesty.

The vectors are no part of the repository; they lie beside it, in ``../shared/conformance/public``. Without them
the comparison is skipped, but never under CI.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from ospcoop.conformance.__main__ import FILES, main
from ospcoop.conformance.vectors import Vectors
from tests.conftest import ROOT

PUBLIC = ROOT.parent / "shared" / "conformance" / "public"


@pytest.fixture
def public():
    if not PUBLIC.is_dir():
        reason = "the golden vectors (../shared/conformance/public) are not here"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return PUBLIC


@pytest.fixture
def copy(public, tmp_path):
    folder = tmp_path / "vectors"
    shutil.copytree(public, folder)
    return folder


def rewrite(path, change):
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    change(arrays)
    np.savez(path, **arrays)


def test_every_array_matches(public):
    command = [sys.executable, "-m", "ospcoop.conformance", str(public)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " FAIL" not in done.stdout
    for name in FILES:
        with np.load(public / name) as archive:
            assert archive.files
        assert name in done.stdout
    assert done.stdout.rstrip().endswith(" 0 failed.")


def test_a_wrong_number_and_a_wrong_word_are_found(copy, capsys):
    def wrong_number(arrays):
        arrays["only_id.grad_output_local"][0, 0, 0] += 1e-6

    def wrong_word(arrays):
        arrays["mine.selected_nouns_q1"][:2] = arrays["mine.selected_nouns_q1"][1::-1]

    rewrite(copy / "losses.npz", wrong_number)
    rewrite(copy / "negrefine.npz", wrong_word)
    (copy / "trajectory.npz").unlink()
    assert main([str(copy)]) == 1
    failed = [line.split()[:2] for line in capsys.readouterr().out.splitlines() if " FAIL" in line]
    assert failed == [
        ["trajectory.npz", "-"],
        ["negrefine.npz", "mine.selected_nouns_q1"],
        ["losses.npz", "only_id.grad_output_local"],
    ]


def test_missing_and_foreign_files_and_arrays_are_found(copy, capsys):
    for name in FILES:
        if name not in ("losses.npz", "geometry_scripts.npz"):
            (copy / name).unlink()

    def drop_case(arrays):
        for name in [name for name in arrays if name.startswith("mixed_L49.")]:
            del arrays[name]

    rewrite(copy / "losses.npz", drop_case)
    rewrite(copy / "geometry_scripts.npz", lambda arrays: arrays.update(foreign=np.zeros(1)))
    np.savez(copy / "foreign.npz", a=np.zeros(1))
    assert main([str(copy)]) == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if " FAIL" in line]
    assert sum("the file is missing" in line for line in failed) == len(FILES) - 2
    assert any(line.startswith("losses.npz") and "mixed_L49" in line for line in failed)
    assert any("foreign.npz" in line and "no case covers this file" in line for line in failed)
    assert any("geometry_scripts.npz" in line and "no case covers this array" in line for line in failed)
    assert len(failed) == len(FILES) + 1


def test_an_empty_folder_and_a_damaged_file_fail(tmp_path, capsys):
    (tmp_path / "losses.npz").write_bytes(b"no archive")
    assert main([str(tmp_path)]) == 1
    printed = capsys.readouterr().out
    assert printed.count("the file is missing") == len(FILES) - 1
    assert "cannot be read" in printed


@pytest.mark.parametrize(
    ("value", "tolerance", "passed"),
    [
        ([1.0, np.nan, np.inf], {}, True),
        ([1.0, np.nan, 5.0], {}, False),
        ([1.0, 0.0, np.inf], {"abs": 10.0}, False),
        ([1.1, np.nan, np.inf], {"rel": 0.11}, True),
        ([1.1, np.nan, np.inf], {"abs": 0.05}, False),
        ([1.0, np.nan], {}, False),
    ],
)
def test_comparison(tmp_path, value, tolerance, passed):
    np.savez(tmp_path / "a.npz", a=np.array([1.0, np.nan, np.inf]))
    vectors = Vectors(tmp_path / "a.npz")
    vectors.check("a", value, **tolerance)
    assert [row.passed for row in vectors.rows] == [passed]


def test_pickles_are_refused(tmp_path, capsys):
    np.savez(tmp_path / "losses.npz", a=np.array([object()]))
    assert main([str(tmp_path)]) == 1
    assert "cannot be read" in capsys.readouterr().out
