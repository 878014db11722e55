"""Import, generation with the embedded backends, and the pipeline alone: images a second.

`uv run benchmarks/pipeline.py [--photos N]`. "The pipeline alone" runs backends that cost nothing, so what
is left is ours: decode, resize, hash, encode, write, fsync, commit; the table splits that time by stage.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
from PIL import Image

from benchmarks.report import machine, print_figures, print_table
from db.models import Split
from db.workspace import open_workspace
from generation.pipeline import GenerationResult, generate
from generation.recipe import RecipeOptions, embedded_options
from generation.sources import ImportSpec, import_images

WNIDS = ("n01440764", "n01443537", "n01484850", "n01491361")
PHOTO_SIZE = (500, 375)  # ImageNet val's most frequent size


def write_photos(root: Path, count: int) -> None:
    """``count`` distinct JPEGs with structure at every scale, about 60 kB each as ImageNet's are."""
    for number in range(count):
        draw = np.random.default_rng(number)
        image = np.zeros((*PHOTO_SIZE[::-1], 3), np.float32)
        for size in (4, 16, 64):
            noise = Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8))
            image += np.asarray(noise.resize(PHOTO_SIZE, Image.Resampling.BICUBIC), np.float32) / 3
        image += draw.normal(0, 8, image.shape)
        folder = root / WNIDS[number % len(WNIDS)]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(folder / f"photo_{number:05d}.JPEG", quality=90)


def run_import(workspace, spec: ImportSpec) -> float:
    start = time.perf_counter()
    summary = import_images(workspace, spec)
    return summary.added / (time.perf_counter() - start)


def run_generate(workspace, options: RecipeOptions) -> tuple[float, float, GenerationResult]:
    """Images a second from decode to committed row, models loaded before; seconds; and the run's result."""
    from generation.backends import load_backends

    backends = load_backends(options)
    start = time.perf_counter()
    result = generate(workspace, options, backends=backends)
    seconds = time.perf_counter() - start
    return result.made / seconds, seconds, result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=int, default=600, help="photos for import and the pipeline alone")
    arguments = parser.parse_args()
    noop = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder)
        write_photos(root / "photos", arguments.photos)
        workspace = open_workspace(root / "alone")
        import_per_s = run_import(workspace, ImportSpec("imagefolder", root / "photos", None, Split.VAL))
        pipeline_per_s, seconds, alone = run_generate(workspace, noop)
        demo = open_workspace(root / "demo")
        import_images(demo, ImportSpec("demo", None, None, Split.VAL))
        embedded_per_s, embedded_seconds, embedded = run_generate(demo, embedded_options())
    print(machine())
    print(f"{arguments.photos} photos of {PHOTO_SIZE[0]}x{PHOTO_SIZE[1]}, working size 224; 20 demo photos\n")
    print_table(
        ("what", "images/s"),
        [
            ("import (decode check, sha256, row)", import_per_s),
            ("pipeline alone (no-op backends)", pipeline_per_s),
            ("embedded backends", embedded_per_s),
        ],
    )
    print("\nbusy ms an image by stage (stages overlap, so they add up to more than the wall time)\n")
    rows = [
        (name, 1000 * alone.busy_seconds[name] / alone.made, 1000 * embedded.busy_seconds[name] / embedded.made)
        for name in alone.busy_seconds
    ]
    rows.append(("wall", 1000 * seconds / alone.made, 1000 * embedded_seconds / embedded.made))
    print_table(("stage", "pipeline alone", "embedded"), rows)
    print()
    print_figures({"import_per_s": import_per_s, "embedded_per_s": embedded_per_s, "pipeline_per_s": pipeline_per_s})


if __name__ == "__main__":
    main()
