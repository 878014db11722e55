"""How fast reviewing is with ten annotators at once: from a key to the next image in Chromium, and the decision route.

`uv run benchmarks/review.py [--candidates N] [--clients N] [--seconds S]`. Fills a workspace (benchmarks/
review_workspace.py says with what), starts `launch.py` on it as a process, and measures three times: everybody, the
browser's keyboard too, gives a verdict a second (3,600 an hour each); the keyboard hurries, a verdict every 0.35 s; and
then the clients decide without a pause as well.

The time of a key is counted in the page: from the keydown event's own time stamp to the moment at which the next result
is complete, decoded, and the frame with it has been made (requestAnimationFrame, then a message). The browser's own
Event Timing, from the event to the frame's presentation in steps of 8 ms, is printed beside it. The JSON line has the
larger of the two 95 % quantiles. The time of a decision is a client's: from before the request to the answer read. The
JSON line has both of the first measurement, and those of the others by their names.

Goals on 2 cores with 50,000 candidates and 10 annotators at once: 50 ms and 15 ms.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from sqlalchemy import func, select

from app.accounts.sessions import cookie_name, start_session
from benchmarks.report import machine, print_figures, print_table
from benchmarks.review_clients import Measured, Plan, run
from benchmarks.review_workspace import SIDE, fill
from db.models import Decision, Job
from db.workspace import Workspace, open_workspace

ROOT = Path(__file__).resolve().parent.parent
A_SECOND = 1.0
HURRIED_S = 0.35
FLAT_OUT_SHARE = 0.25
KEYS = ("a", "a", "a", "r1", "a", "a", "s", "a")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM_ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
SEEN = (
    "() => { const i = document.querySelector('.slide.on .pane-result img'); return i?.complete && i.naturalWidth > 0 }"
)
DELIVERED = "() => !Object.keys(localStorage).some((key) => key.startsWith('imagenet-bg.outbox.'))"
WATCH = """() => {
  const shown = () => document.querySelector('.slide.on');
  window.measured = { painted: [], presented: [] };
  document.addEventListener('keydown', (event) => {
    if (!/^[as1]$/.test(event.key)) return;
    const before = shown()?.dataset.candidate;
    const look = async () => {
      const slide = shown();
      const image = slide?.querySelector('.pane-result img');
      const same = slide?.dataset.candidate === before;
      if (same || !image?.complete || !image.naturalWidth) return requestAnimationFrame(look);
      await image.decode();
      const { port1, port2 } = new MessageChannel();
      port1.onmessage = () => window.measured.painted.push(performance.now() - event.timeStamp);
      requestAnimationFrame(() => port2.postMessage(''));
    };
    requestAnimationFrame(look);
  }, true);
  new PerformanceObserver((list) => {
    const keys = list.getEntries().filter((entry) => entry.name === 'keydown');
    window.measured.presented.push(...keys.map((entry) => entry.duration));
  }).observe({ type: 'event', durationThreshold: 16 });
}"""


@dataclass(frozen=True)
class Phase:
    """What was measured while the clients kept one pace. Times in ms; ``presented`` leaves out those below 16."""

    name: str
    painted: list[float]
    presented: list[float]
    verdicts: int
    clients: Measured


@contextmanager
def serving(workspace: Workspace) -> Iterator[str]:
    """The server as a process, as its users start it; gives its address."""
    command = [sys.executable, "launch.py", "--workspace", str(workspace.root), "--port", "7970"]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r"http://\S+", server.stdout.readline())
        if address is None:
            raise SystemExit("The server did not start.")
        yield address[0]
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(timeout=60)


@contextmanager
def reviewing(url: str, name: str, token: str) -> Iterator:
    """The Review page in Chromium, signed in, with its first image seen and watched for what comes."""
    from playwright.sync_api import sync_playwright

    chromium = next(filter(None, map(shutil.which, CHROMIUM)), None)
    if chromium is None:
        raise SystemExit("There is no Chromium on this machine.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=CHROMIUM_ARGUMENTS)
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.add_cookies([{"name": name, "value": token, "url": url}])
        page = context.new_page()
        page.goto(f"{url}/#review")
        page.wait_for_selector(".review-root .slide.on", timeout=120_000)
        page.wait_for_function(SEEN)
        page.wait_for_timeout(2000)
        page.evaluate(WATCH)
        yield page
        browser.close()


def measure(page, name: str, key_pause_s: float, plan: Plan, pool: ProcessPoolExecutor) -> Phase:
    """Give verdicts by the keyboard, ``key_pause_s`` apart, while the clients do, until they end."""
    page.evaluate("() => { window.measured.painted = []; window.measured.presented = [] }")
    clients = pool.submit(run, plan)
    verdicts = 0
    while not clients.done():
        begun = time.perf_counter()
        page.wait_for_function(SEEN)  # a person does not judge what they cannot see
        for key in KEYS[verdicts % len(KEYS)]:
            page.keyboard.press(key)
        verdicts += 1
        page.wait_for_timeout(max(0.0, 1000 * (key_pause_s - (time.perf_counter() - begun))))
    page.wait_for_function(DELIVERED, timeout=60_000)
    found = page.evaluate("window.measured")
    return Phase(name, found["painted"], found["presented"], verdicts, clients.result())


def measure_all(workspace: Workspace, arguments: argparse.Namespace, user_ids: list[int]) -> list[Phase]:
    """A verdict a second, a hurried keyboard, and clients without a pause."""
    *tokens, own = [start_session(workspace, user_id) for user_id in user_ids]
    name = cookie_name(workspace)
    cookies = [f"{name}={token}" for token in tokens]
    seconds = arguments.seconds
    paces = (
        ("a verdict a second each", A_SECOND, seconds, A_SECOND),
        ("a hurried keyboard", HURRIED_S, seconds, A_SECOND),
        ("no pause", HURRIED_S, FLAT_OUT_SHARE * seconds, 0.0),
    )
    spawning = multiprocessing.get_context("spawn")
    with serving(workspace) as url, ProcessPoolExecutor(1, spawning) as pool, reviewing(url, name, own) as page:
        return [
            measure(page, title, key_pause, Plan(url, cookies, length, pause, seed), pool)
            for seed, (title, key_pause, length, pause) in enumerate(paces)
        ]


def quantile(values: list[float], share: float) -> float:
    return float(np.quantile(values, share)) if values else float("nan")


def key_to_image_p95(phase: Phase) -> float:
    """The larger of what the page and what the browser itself counts."""
    return max(quantile(phase.painted, 0.95), quantile(_presented(phase), 0.95))


def _presented(phase: Phase) -> list[float]:
    """One value a verdict: the browser does not report those under 16 ms, and reports the R before a reason too."""
    return [*phase.presented, *[16.0] * max(0, phase.verdicts - len(phase.presented))]


def print_phase(phase: Phase) -> None:
    clients = phase.clients
    rate = clients.stored / clients.seconds
    print(f"\n{phase.name}: {phase.verdicts} verdicts by keyboard, {clients.stored} by clients, {rate:.1f} a second\n")
    rows = (
        ("key to next image, frame made", phase.painted),
        ("key to presentation, steps of 8", _presented(phase)),
        ("POST decisions", clients.decision_ms),
        ("GET queue, 60 leased", clients.queue_ms),
    )
    shares = (0.5, 0.95, 0.99)
    table = [(name, len(values), *(quantile(values, share) for share in shares)) for name, values in rows]
    print_table(("ms", "n", "p50", "p95", "p99"), table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50_000)
    parser.add_argument("--clients", type=int, default=10, help="annotators besides the one in the browser")
    parser.add_argument("--seconds", type=float, default=90.0, help="of the first two; a quarter of it without a pause")
    parser.add_argument("--side", type=int, default=SIDE, help="pixels of an image's side")
    arguments = parser.parse_args()
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(dir=".") as folder:
        workspace = open_workspace(Path(folder) / "workspace")
        filled = fill(workspace, arguments.candidates, arguments.clients + 1, side=arguments.side)
        phases = measure_all(workspace, arguments, filled.user_ids)
        with workspace.read() as session:
            stored = session.scalar(select(func.count()).select_from(Decision)) - filled.decisions
            trainings = session.scalar(select(func.count()).select_from(Job).where(Job.kind == "triage"))
        workspace.close()
    given = sum(phase.verdicts + phase.clients.stored for phase in phases)
    print(machine())
    print(
        f"{arguments.candidates} candidates of {arguments.side} px, {arguments.clients} clients and a browser; ", end=""
    )
    print(f"load average {load_before:.1f} before; training of triage queued {trainings} times meanwhile")
    for phase in phases:
        print_phase(phase)
    print(f"\n{given} verdicts were given, {stored} are stored.")
    calm, hurried, no_pause = phases
    print_figures(
        {
            "key_to_image_p95_ms": key_to_image_p95(calm),
            "decision_p95_ms": quantile(calm.clients.decision_ms, 0.95),
            "key_to_image_p95_ms_hurried": key_to_image_p95(hurried),
            "decision_p95_ms_hurried": quantile(hurried.clients.decision_ms, 0.95),
            "decision_p95_ms_no_pause": quantile(no_pause.clients.decision_ms, 0.95),
        }
    )
    if given != stored:
        raise SystemExit("Verdicts were lost or doubled.")


if __name__ == "__main__":
    main()
