"""benchmarks/review.py at a tiny size: it runs to its end, and no verdict is lost or doubled. Nothing here is timed."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.browser


@pytest.mark.usefixtures("chromium")
def test_it_measures_a_browser_and_clients_at_once(tmp_path):
    sizes = ["--candidates", "600", "--clients", "2", "--seconds", "3", "--side", "32"]
    command = [sys.executable, str(ROOT / "benchmarks" / "review.py"), *sizes]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    figures = json.loads(done.stdout.splitlines()[-1])
    of_keys = {"key_to_image_p95_ms", "key_to_image_p95_ms_hurried"}
    of_decisions = {"decision_p95_ms", "decision_p95_ms_hurried", "decision_p95_ms_no_pause"}
    assert set(figures) == of_keys | of_decisions
    assert all(value > 0 for value in figures.values())
    given, stored = (int(word) for word in done.stdout.splitlines()[-2].split() if word.isdigit())
    assert given == stored > 4
    assert list(tmp_path.iterdir()) == [], "the workspace is removed"
