"""Make the pictures in docs/images/ from a real workspace: `uv run docs/screenshots.py --workspace W`.

Needs Chromium. Starts its own server on the workspace (make one with `launch.py demo --no-serve`).
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
from io import BytesIO
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
PAGES = (
    "overview",
    "sources",
    "generate",
    "review",
    "duplicates",
    "adjudication",
    "agreement",
    "triage",
    "audit",
    "build",
    "export",
)
SIZE = {"width": 1280, "height": 800}
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
]


def save(png: bytes, path: Path) -> None:
    """With a palette: a third of the size, and the page's few colours stay what they are."""
    with Image.open(BytesIO(png)) as image:
        small = image.convert("RGB").quantize(256, dither=Image.Dither.FLOYDSTEINBERG)
        small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} kB")


def take(url: str) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine.")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport=SIZE, color_scheme=scheme)
            for name in PAGES:
                page.goto(f"{url}/#{name}")
                page.reload()
                page.locator(f'.site-head nav a[href="#{name}"][aria-current="page"]').wait_for()
                page.wait_for_timeout(3000)
                ending = "" if scheme == "light" else "-dark"
                save(page.screenshot(), IMAGES / f"{name}{ending}.png")
                if name == "review":
                    take_review_views(page, ending)
            page.close()
        browser.close()


def take_review_views(page, ending: str) -> None:
    """The review page's grid with two marks, and a candidate's history."""
    page.keyboard.press("g")
    page.locator(".sheet .tile").first.wait_for()
    page.wait_for_timeout(1000)
    for key in ("ArrowRight", "1", "ArrowDown", "5"):
        page.keyboard.press(key)
    save(page.screenshot(), IMAGES / f"review-grid{ending}.png")
    page.keyboard.press("h")
    page.locator(".drawer .drawer-body h4").first.wait_for()
    page.wait_for_timeout(300)
    save(page.screenshot(), IMAGES / f"review-history{ending}.png")
    page.keyboard.press("Escape")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workspace", required=True)
    arguments = parser.parse_args()
    command = [sys.executable, "launch.py", "--workspace", arguments.workspace, "--port", "7990"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        take(re.search(r"http://\S+", server.stdout.readline())[0])
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


if __name__ == "__main__":
    main()
