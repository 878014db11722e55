"""Fixtures that many test files share."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# Before anything imports a math library or gradio: one thread on a small machine, no telemetry.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from db.workspace import Workspace, open_workspace
from tests.browser import chromium, chromium_page

__all__ = ["chromium", "chromium_page"]

ROOT = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--run-slow", action="store_true", help="run the tests marked slow too")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """A test's server ends before its page does: what the page was still loading then is no fault of its."""
    page = getattr(item, "funcargs", {}).get("chromium_page")
    if page is not None and not page.is_closed():
        page.wait_for_timeout(1)  # what was reported until now counts
        page.expect_network_errors = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--run-slow"):
        return
    skip = pytest.mark.skip(reason="slow: writes gigabytes and takes minutes; run it with --run-slow")
    for item in items:
        if item.get_closest_marker("slow"):
            item.add_marker(skip)


@pytest.fixture
def workspace(tmp_path: Path) -> Iterator[Workspace]:
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def write_photos(root: Path, count: int, *, classes: tuple[str, ...] = ("n01440764", "n01443537")) -> Path:
    """An ImageFolder of ``count`` distinct noisy JPEGs, 96x80 pixels, spread over the wnids."""
    for number in range(count):
        folder = root / classes[number % len(classes)]
        folder.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(number).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(noise).resize((96, 80), Image.Resampling.BICUBIC).save(folder / f"photo_{number:04d}.jpg")
    return root


@pytest.fixture(scope="session")
def demo_workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo made once by its own command, with the real embedded backends. Copy it before changing it."""
    folder = tmp_path_factory.mktemp("demo") / "workspace"
    command = [sys.executable, "launch.py", "demo", "--no-serve", "--workspace", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout + done.stderr
    (folder.parent / "output.txt").write_text(done.stdout)
    return folder
