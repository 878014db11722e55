"""Make the pictures in docs/images/: `uv run docs/screenshots.py --workspace W [--only PAGE ...]`.

W is a demo (`launch.py demo --no-serve --workspace W`), which is left as it is: the pages are shown of a copy with
verdicts on it, and those with figures of a workspace of made-up numbers (docs/reviewed_workspaces.py). Train and
Evaluate are shown of W-training, if it is there (`demo-train`, `train`, `evaluate`). Needs Chromium.
"""

from __future__ import annotations

import argparse
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from PIL import Image
from playwright.sync_api import sync_playwright

from app.accounts.sessions import cookie_name, start_session
from db.workspace import Workspace, open_workspace
from docs.reviewed_workspaces import judged_demo, numbers

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "docs" / "images"
DEMO_PAGES = ("overview", "sources", "generate", "review", "duplicates", "adjudication", "audit", "build", "export")
FIGURE_PAGES = ("agreement", "triage", "accounts")
TRAINING_PAGES = ("train", "evaluate")
# What is there once a page has its data; the others are drawn by Gradio with theirs.
READY = {
    "review": ".slide.on",
    "duplicates": ".group",
    "adjudication": ".slide.on",
    "audit": "table",
    "agreement": "table",
    "triage": "svg",
    "accounts": "table",
    "train": "svg",
    "evaluate": "table",
}
SEEN = (
    "(page) => [...document.querySelectorAll(`#page-${page} .slide.on img, #page-${page} .tile img`)]"
    ".every((image) => image.complete)"
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


def take(url: str, names: Sequence[str], cookie: dict | None = None) -> None:
    """Each page in light and dark; ``cookie`` is that of somebody who is signed in."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.exit("There is no Chromium on this machine.")
    IMAGES.mkdir(exist_ok=True)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        for scheme in ("light", "dark"):
            context = browser.new_context(viewport=SIZE, color_scheme=scheme, locale="en-GB")
            if cookie is not None:
                context.add_cookies([{**cookie, "url": url}])
            page = context.new_page()
            for name in names:
                page.goto(f"{url}/#{name}")
                page.reload()
                page.locator(f'.site-head nav a[href="#{name}"][aria-current="page"]').wait_for(timeout=60_000)
                if name in READY:
                    page.locator(f"#page-{name} {READY[name]}").first.wait_for(timeout=60_000)
                page.wait_for_timeout(3000)
                page.wait_for_function(SEEN, arg=name)
                ending = "" if scheme == "light" else "-dark"
                save(page.screenshot(), IMAGES / f"{name}{ending}.png")
                if name == "review":
                    take_review_views(page, ending)
                if name == "audit":
                    take_audit_views(page, ending)
            context.close()
        browser.close()


def take_audit_views(page, ending: str) -> None:
    """Judging a sample blind."""
    page.get_by_role("button", name="Judge audit").first.click()
    page.locator("#page-audit .slide.on").wait_for()
    page.wait_for_function(SEEN, arg="audit")
    page.wait_for_timeout(500)
    save(page.screenshot(), IMAGES / f"audit-judging{ending}.png")


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


@contextmanager
def serving(workspace: Workspace) -> Iterator[str]:
    """Its own server on the workspace; gives the address."""
    command = [sys.executable, "launch.py", "--workspace", str(workspace.root), "--port", "7990"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        yield re.search(r"http://\S+", server.stdout.readline())[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=30)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workspace", type=Path, required=True)
    every = (*DEMO_PAGES, *FIGURE_PAGES, *TRAINING_PAGES)
    parser.add_argument("--only", nargs="+", choices=every, default=every, metavar="PAGE")
    arguments = parser.parse_args()
    of_demo = [name for name in DEMO_PAGES if name in arguments.only]
    of_figures = [name for name in FIGURE_PAGES if name in arguments.only]
    of_training = [name for name in TRAINING_PAGES if name in arguments.only]
    trained = Path(f"{arguments.workspace}-training")
    if of_training and trained.exists():
        with serving(open_workspace(trained, create=False)) as url:
            take(url, of_training)
    with tempfile.TemporaryDirectory() as folder:
        if of_demo:
            workspace = judged_demo(arguments.workspace, Path(folder) / "demo")
            with serving(workspace) as url:
                take(url, of_demo)
        if of_figures:
            workspace, admin_id = numbers(Path(folder) / "numbers")
            cookie = {"name": cookie_name(workspace), "value": start_session(workspace, admin_id)}
            with serving(workspace) as url:
                take(url, of_figures, cookie)


if __name__ == "__main__":
    main()
