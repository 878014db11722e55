"""Writing an archive against plain copying: images a second, MB a second, peak memory.

`uv run benchmarks/export.py [--images 48000] [--format imagefolder]`. A workspace is filled with candidates whose
result is a 224-pixel PNG of about 100 kB; then, side by side in one run, `cp -r` of the same PNGs followed by
`sha256sum` of every copy, and the export, which checks every image against its frozen sha256, writes the archive and
hashes it. Both end with a sync of the file system. The export runs in a process of its own, whose peak resident memory
is reported, and once more with a tenth of the images, to see what memory grows with.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cv2
import numpy as np
from sqlalchemy import insert

from benchmarks.report import machine, print_figures, print_table
from db.models import Candidate, ImageClass, Kind, Recipe, SourceImage, Split, utcnow
from db.queries import ACTIVE_RECIPE, set_meta
from db.workspace import Workspace, open_workspace
from exports.builds import freeze
from exports.rules import Rule

SIDE = 224
DISTINCT = 64
CLASSES = 1000


def photo_like_png(number: int) -> bytes:
    """A 224-pixel PNG of about 90 kB: structure at several scales and a little noise, as inpainted photos have."""
    draw = np.random.default_rng(number)
    pixels = np.zeros((SIDE, SIDE, 3), np.float32)
    for size in (4, 14, 56):
        noise = draw.integers(0, 256, (size, size, 3)).astype(np.float32)
        pixels += cv2.resize(noise, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) / 3
    pixels += draw.normal(0, 6, pixels.shape)
    return cv2.imencode(".png", pixels.clip(0, 255).astype(np.uint8), [cv2.IMWRITE_PNG_COMPRESSION, 1])[1].tobytes()


def fill(workspace: Workspace, images: int) -> int:
    """``images`` candidates over 1,000 classes, frozen as build bg; gives the bytes of their PNGs."""
    pngs = [photo_like_png(number) for number in range(DISTINCT)]
    sums = [hashlib.sha256(png).hexdigest() for png in pngs]
    sources, candidates = [], []
    total = 0
    for number in range(images):
        png, sha256 = pngs[number % DISTINCT], sums[number % DISTINCT]
        key = hashlib.sha256(f"candidate {number}".encode()).hexdigest()
        folder = f"candidates/{key[:2]}/{key}"
        path = workspace.root / folder / "result.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(png)
        total += len(png)
        shared = {"id": number + 1, "class_index": number % CLASSES, "width": SIDE, "height": SIDE}
        name = f"ILSVRC2012_val_{number + 1:08d}"
        place = {"root": str(workspace.root), "path": f"{folder}/raw.png", "bytes": 1}
        sources.append({**shared, **place, "name": name, "split": Split.VAL, "sha256": key, "imported_at": utcnow()})
        scores = {"logit_source": 25.0, "logit_candidate": 19.0, "drop": 6.0, "residual": 19.0, "rank": 40}
        areas = {"probability": 0.01, "area": 0.2, "dilated_area": 0.25, "phash": key[:16]}
        texts = {"boxes": [], "timings": {}, "notes": {}, "details": {}, "top5": [], "version": 1, "variant": 0}
        made = {"source_id": number + 1, "recipe_id": 1, "kind": Kind.BACKGROUND, "folder": folder}
        candidates.append(
            {**shared, **scores, **areas, **texts, **made, "result_sha256": sha256, "created_at": utcnow()}
        )
    with workspace.write() as session:
        for index in range(CLASSES):
            session.add(ImageClass(class_index=index, wnid=f"n{index:08d}", name=f"class {index}"))
        session.add(Recipe(id=1, hash="f" * 64, config={"backends": {}, "options": {}}))
        session.flush()
        set_meta(session, ACTIVE_RECIPE, "1")
        session.execute(insert(SourceImage), sources)
        session.execute(insert(Candidate), candidates)
    freeze(workspace, "bg", Rule(verdicts="any"))
    return total


def copy_and_sum(workspace: Workspace, target: Path) -> float:
    """Seconds for `cp -r` of every candidate's folder, `sha256sum` of every copy and a sync."""
    start = time.perf_counter()
    subprocess.run(["cp", "-r", str(workspace.root / "candidates"), str(target)], check=True)
    command = f"find '{target}' -name result.png -print0 | xargs -0 sha256sum > '{target}.sums'"
    subprocess.run(["sh", "-c", command], check=True)
    subprocess.run(["sync", "-f", str(target)], check=True)
    return time.perf_counter() - start


def export_in_process(workspace: Workspace, format: str, out: Path) -> dict:
    """Seconds and peak resident MB of an export in a new process, synced too."""
    command = [sys.executable, __file__, "--export-only", str(workspace.root), format, str(out)]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def export_only(root: str, format: str, out: str) -> None:
    from exports.registry import export_build

    workspace = open_workspace(root, create=False)
    start = time.perf_counter()
    result = export_build(workspace, "bg", format, out)
    subprocess.run(["sync", "-f", out], check=True)
    seconds = time.perf_counter() - start
    print(json.dumps({"seconds": seconds, "peak_mb": peak_resident_mb(), "images": result.images}))


def peak_resident_mb() -> float:
    """Of this process alone: getrusage's would be no less than what its parent held when it was started."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=48_000)
    parser.add_argument("--format", default="imagefolder")
    parser.add_argument("--export-only", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.export_only:
        export_only(*arguments.export_only)
        return
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder).resolve()
        few = open_workspace(root / "few")
        fill(few, max(1, arguments.images // 10))
        few_result = export_in_process(few, arguments.format, root / "few-out")
        workspace = open_workspace(root / "many")
        size = fill(workspace, arguments.images)
        os.sync()
        copied = copy_and_sum(workspace, root / "copy")
        exported = export_in_process(workspace, arguments.format, root / "out")
    seconds = exported["seconds"]
    print(machine())
    print(f"{arguments.images} images of {SIDE} px, {size / 1e6:.0f} MB; format {arguments.format}\n")
    rows = [
        ("cp -r, sha256sum, sync", copied, arguments.images / copied, size / 1e6 / copied),
        ("export", seconds, arguments.images / seconds, size / 1e6 / seconds),
    ]
    print_table(("what", "seconds", "images/s", "MB/s"), rows)
    print(f"\npeak memory: {exported['peak_mb']:.0f} MB; with a tenth of the images {few_result['peak_mb']:.0f} MB\n")
    figures = {"share_of_copy": copied / seconds, "peak_mb": exported["peak_mb"]}
    print_figures({**figures, "images_per_s": arguments.images / seconds})


if __name__ == "__main__":
    main()
