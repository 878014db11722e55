"""The main job as its user does it: an empty workspace, the real server and worker, the keyboard alone."""

from __future__ import annotations

import re
import signal
import sqlite3
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.browser
PHOTOS = 20


class RunningTool:
    """``launch.py`` as a process of its own on a free port, and its workspace."""

    def __init__(self, workspace: Path) -> None:
        self.workspace = workspace
        command = [sys.executable, "launch.py", "--workspace", str(workspace), "--port", "7950"]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        first_line = self.process.stdout.readline()
        self.url = re.search(r"http://\S+", first_line)[0]

    def rows(self, query: str) -> list[tuple]:
        with sqlite3.connect(f"file:{self.workspace / 'workspace.db'}?mode=ro", uri=True) as connection:
            return connection.execute(query).fetchall()

    def wait_for(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
            assert self.process.poll() is None, self.process.stdout.read()
            time.sleep(0.2)

    def job_done(self, kind: str) -> bool:
        states = self.rows(f"SELECT state, error FROM jobs WHERE kind = '{kind}' ORDER BY id DESC LIMIT 1")
        assert not states or states[0][0] != "failed", states
        return bool(states) and states[0][0] == "done"


@pytest.fixture
def tool(tmp_path: Path) -> Iterator[RunningTool]:
    running = RunningTool(tmp_path / "workspace")
    yield running
    running.process.send_signal(signal.SIGINT)
    try:
        running.process.wait(timeout=30)
    finally:
        running.process.kill()


FOCUSED_NAME = """() => {
  const focused = document.activeElement;
  if (!focused || focused === document.body) return '';
  return (focused.getAttribute('aria-label') || focused.innerText || focused.labels?.[0]?.innerText || '').trim();
}"""


def tab_to(page, name: str, *, tag: str) -> None:
    """Press Tab until the element of that tag and name has the focus, as somebody without a mouse does."""
    for _ in range(150):
        focused = page.evaluate("document.activeElement?.tagName?.toLowerCase() ?? ''")
        if focused == tag and page.evaluate(FOCUSED_NAME) == name:
            return
        page.keyboard.press("Tab")
    raise AssertionError(f"Tab never reached the {tag} {name!r}")


def open_page(page, name: str) -> None:
    tab_to(page, name, tag="a")
    page.keyboard.press("Enter")
    page.locator(f'.site-head nav a[aria-current="page"]:text-is("{name}")').wait_for()


def press(page, name: str) -> None:
    tab_to(page, name, tag="button")
    page.keyboard.press("Enter")


def review_everything(page, tool: RunningTool) -> None:
    """Accept most, reject every fifth with a reason, and take one verdict back."""
    page.locator(".review-root .slide.on").wait_for()
    for number in range(PHOTOS):
        shown = page.locator(".review-root img:visible")
        page.wait_for_function(
            "() => { const shown = [...document.querySelectorAll('.review-root img')].filter(i => i.offsetParent);"
            " return shown.length >= 2 && shown.every(i => i.complete && i.naturalWidth > 0) }"
        )
        assert shown.count() >= 2
        if number % 5 == 4:
            page.keyboard.press("r")
            page.keyboard.press("1")
        else:
            page.keyboard.press("a")
        if number == 7:
            page.keyboard.press("u")
            page.wait_for_timeout(300)
            page.keyboard.press("a")
        page.wait_for_timeout(150)
    tool.wait_for(
        lambda: tool.rows("SELECT count(*) FROM current_verdicts")[0][0] == PHOTOS, 20, "the verdicts' arrival"
    )


def test_the_whole_job_by_keyboard_alone(tool, chromium_page):
    page = chromium_page
    page.goto(tool.url)
    page.locator('.site-head nav a[aria-current="page"]').wait_for()

    open_page(page, "Sources")
    press(page, "Import the demo photos")
    tool.wait_for(lambda: tool.job_done("import"), 60, "the import")

    open_page(page, "Generate")
    press(page, "Run all")
    tool.wait_for(lambda: tool.job_done("generate"), 300, "the generation")
    assert tool.rows("SELECT state, count(*) FROM outcomes GROUP BY state") == [("candidate", PHOTOS)]

    open_page(page, "Review")
    review_everything(page, tool)
    assert dict(tool.rows("SELECT verdict, count(*) FROM current_verdicts GROUP BY verdict")) == {
        "accept": 16,
        "reject": 4,
    }
    assert tool.rows("SELECT count(*) FROM decisions WHERE verdict = 'undo'") == [(1,)]

    open_page(page, "Build")
    page.get_by_role("rowheader", name="In the build").wait_for()
    press(page, "Freeze this build")
    tool.wait_for(lambda: tool.rows("SELECT count(*) FROM builds")[0][0] == 1, 30, "the freeze")
    assert tool.rows("SELECT name, number, item_count FROM builds") == [("bg", 1, 16)]

    open_page(page, "Export")
    page.wait_for_function("() => document.querySelector('#export-build select')?.value.startsWith('bg-v1')")
    press(page, "Export")
    tool.wait_for(lambda: tool.job_done("export"), 60, "the export")
    page.get_by_text("imagenet-bg-v1.zip").first.wait_for()

    archive = tool.workspace / "archives" / "imagenet-bg-v1.zip"
    with zipfile.ZipFile(archive) as opened:
        assert opened.testzip() is None
        images = [name for name in opened.namelist() if name.startswith("images/")]
    assert len(images) == 16
