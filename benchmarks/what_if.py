"""What the Build page waits for: the what-if route, asked as a slider asks it, over many candidates.

`uv run benchmarks/what_if.py [--candidates 50000]`. A workspace is filled as in benchmarks/review_workspace.py (tiny
pictures), with a decision for most candidates. Then the route is asked through the application, in this process, with
another threshold each time: when nothing was committed since, when something was (an annotator judging meanwhile),
with an expression, and against a frozen build.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
os.environ.setdefault("OMP_NUM_THREADS", "1")

from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.build_routes import build_router
from benchmarks.report import machine, print_figures, print_table
from benchmarks.review_workspace import fill
from db.models import Role
from db.queries import ensure_user, set_meta
from db.workspace import Workspace, open_workspace
from exports.builds import freeze
from exports.rules import PRESETS

REPEATS = 15
EXPRESSION = "rank > 20 and not (accepts < 1)"


def client(workspace: Workspace) -> TestClient:
    with workspace.write() as session:
        operator = ensure_user(session, "operator")
        operator.role = Role.ADMIN
        user_id = operator.id
    app = FastAPI()
    app.include_router(build_router(workspace, lambda: user_id))
    return TestClient(app)


def seconds(asking: TestClient, rule: dict, against: dict) -> float:
    start = time.perf_counter()
    answer = asking.post("/api/builds/what-if", json={"rule": rule, "against": against})
    answer.raise_for_status()
    return time.perf_counter() - start


def times(workspace: Workspace, asking: TestClient, *, committed: bool, against: dict, **rule: object) -> list[float]:
    """Milliseconds of each of ``REPEATS`` moves of the threshold, after one that is not counted."""
    found = []
    for move in range(REPEATS + 1):
        if committed:
            with workspace.write() as session:
                set_meta(session, "benchmark", str(time.perf_counter()))
        found.append(1000 * seconds(asking, {"drop_above": 4 + move / 10, **rule}, against))
    return found[1:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--candidates", type=int, default=50_000)
    count = parser.parse_args().candidates
    with tempfile.TemporaryDirectory(dir=".") as folder:
        workspace = open_workspace(Path(folder) / "workspace")
        fill(workspace, count, annotators=3, judged=0.8, side=16)
        asking = client(workspace)
        start = time.perf_counter()
        freeze(workspace, "bg", PRESETS["bg"])
        frozen = time.perf_counter() - start
        preset, build = {"preset": "bg"}, {"build": "bg"}
        found = {
            "nothing committed since": times(workspace, asking, committed=False, against=preset),
            "with an expression": times(workspace, asking, committed=False, against=preset, expression=EXPRESSION),
            "against a frozen build": times(workspace, asking, committed=False, against=build),
            "after a commit": times(workspace, asking, committed=True, against=preset),
            "after a commit, with an expression": times(
                workspace, asking, committed=True, against=preset, expression=EXPRESSION
            ),
        }
        workspace.close()
    print(machine())
    print(f"{count} candidates; {REPEATS} moves of a threshold each; load average {os.getloadavg()[0]:.1f}\n")
    rows = [(name, statistics.median(values), max(values)) for name, values in found.items()]
    print_table(("what-if", "median ms", "slowest ms"), rows)
    print(f"\nfreezing Bg: {frozen:.2f} s\n")
    medians = {name: statistics.median(values) for name, values in found.items()}
    print_figures({"warm_ms": medians["nothing committed since"], "cold_ms": medians["after a commit"]})


if __name__ == "__main__":
    main()
