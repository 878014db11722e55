"""The published pipeline at its real sizes, beside the published way: CLIP scoring on the CPU, all stages on a GPU.

`uv run benchmarks/generation.py [--device auto|cpu|cuda] [--images N] [--compile] [--small]`. Models have the published
architectures and random weights (`benchmarks/random_models.py`); the published way is `benchmarks/published_clip.py`
and `benchmarks/published_scripts.py`, in the same run. Without a GPU only the CPU part runs. `--small` tries the
command with tiny models, on a CPU too: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from pathlib import Path

if (os.cpu_count() or 1) <= 4:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the worker does
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from PIL import Image

from benchmarks.clip_pair import compare_clip, print_clip
from benchmarks.gpu import BusyMeter, Stopwatch, matmul_ceiling, nvidia_smi_reader, sam_encoder_flops
from benchmarks.pipeline import write_photos
from benchmarks.published_scripts import PublishedScripts
from benchmarks.random_models import RANDOM_OPTIONS, ModelFiles, load_backends, real_models, save_clip, small_models
from benchmarks.report import machine, print_figures, print_table
from db.models import Split
from db.workspace import open_workspace
from generation.backends import Backends
from generation.classes import load_imagenet_classes
from generation.decode import resize_working
from generation.devices import dtype_name, pick_device, pick_dtype
from generation.gpu import free_memory
from generation.pipeline import GenerationResult, Selection, generate
from generation.protocols import ScoreRequest
from generation.sources import ImportSpec, import_images

WARM_UP_PHOTOS = 32
STAGE_IMAGES = 64
PUBLISHED_PHOTOS = 8
MATMUL_SIZES = (4096, 8192, 16384)


@dataclass(frozen=True)
class DeviceFigures:
    """What was measured on one device: seconds an image by stage, FLOP/s, and shares from 0 to 1."""

    stages: dict[str, float]
    published_stages: dict[str, float]
    result: GenerationResult
    published_images_per_s: float
    ceiling: float
    sam_flops_per_s: float
    busy: float | None

    @property
    def images_per_s(self) -> float:
        return self.result.images_per_s

    @property
    def speedup(self) -> float:
        return self.images_per_s / self.published_images_per_s

    @property
    def ceiling_share(self) -> float:
        return self.sam_flops_per_s / self.ceiling


def measure_device(
    files: ModelFiles,
    folder: Path,
    device: torch.device,
    photos: int,
    *,
    published_photos: int = PUBLISHED_PHOTOS,
    matmul_sizes: tuple[int, ...] = MATMUL_SIZES,
    utilisation: Callable[[], str] | None = None,
    compiled: bool = False,
) -> DeviceFigures:
    """Each stage alone, then the whole pipeline over ``photos`` photos, then a few of them the published way.

    Files go into ``folder``. Everything is warmed up before it is timed, and no model's loading is, but for
    LaMa's in the published way, which loads it for each image. Batch sizes are the tuner's own choice.
    ``utilisation`` is what a BusyMeter reads; ``compiled`` sends our models through torch.compile.
    """
    warm_up = max(1, min(WARM_UP_PHOTOS, photos // 4))
    write_photos(folder / "photos", photos + warm_up)
    paths = sorted((folder / "photos").rglob("*.JPEG"))
    ceiling = matmul_ceiling(device, pick_dtype(device), matmul_sizes)
    backends = load_backends(files, device, folder / "cache", compiled=compiled)
    with closing(open_workspace(folder / "workspace")) as workspace:
        import_images(workspace, ImportSpec("imagefolder", folder / "photos", None, Split.VAL))
        generate(workspace, RANDOM_OPTIONS, Selection(limit=warm_up), backends=backends)
        meter = BusyMeter(utilisation) if utilisation else None
        with meter or nullcontext():
            result = generate(workspace, RANDOM_OPTIONS, backends=backends)
    # After the run, at the batch sizes that it settled on.
    stages = time_stages(backends, paths[:STAGE_IMAGES], device)
    del backends
    free_memory()
    stages |= {name: result.busy_seconds[name] / result.made for name in ("decode", "write")}
    published_stages, published_seconds = time_published(files, folder, device, paths[: published_photos + 1])
    return DeviceFigures(
        stages,
        published_stages,
        result,
        published_images_per_s=1 / published_seconds,
        ceiling=ceiling,
        sam_flops_per_s=sam_encoder_flops(files.sam_variant) / stages["SAM encoder alone"],
        busy=meter.share if meter else None,
    )


def time_stages(backends: Backends, photos: Sequence[Path], device: torch.device) -> dict[str, float]:
    """Seconds an image of each model's stage: all photos in one call, batched by the backend, timed the second time."""
    classes = load_imagenet_classes()
    indices = [classes.index_of[path.parent.name] for path in photos]
    names = [classes.names[index] for index in indices]
    images = []
    for path in photos:
        with Image.open(path) as photo:
            images.append(resize_working(photo.convert("RGB"), "224"))
    detector, segmenter = backends.masker.detector, backends.masker.segmenter
    (encoder,) = segmenter.batch_knobs(images[0].shape[:2])
    stopwatch = Stopwatch(device)
    for _ in range(2):
        stopwatch.seconds.clear()
        with stopwatch("detector"):
            boxes = detector.detect(images, names)
        with stopwatch("SAM encoder"):
            embeddings = segmenter.encode(images)
        with stopwatch("SAM encoder alone"):
            for start in range(0, len(images), encoder.size.now):
                encoder.try_batch(min(encoder.size.now, len(images) - start))
        with stopwatch("mask decoder"):
            for embedding, found in zip(embeddings, boxes, strict=True):
                if found:
                    segmenter.decode(embedding, boxes=np.array([(box.x0, box.y0, box.x1, box.y1) for box in found]))
        holes = [_middle(image) for image in images]
        with stopwatch("LaMa"):
            filled = [answer.image for answer in backends.inpainter.inpaint(images, holes)]
        with stopwatch("detector, second look"):
            detector.detect(filled, names)
        with stopwatch("CLIP"):
            pairs = zip(images, filled, indices, strict=True)
            backends.scorer.score([ScoreRequest(*pair) for pair in pairs])
    return {name: seconds / len(images) for name, seconds in stopwatch.seconds.items()}


def time_published(
    files: ModelFiles, folder: Path, device: torch.device, photos: Sequence[Path]
) -> tuple[dict[str, float], float]:
    """Seconds an image by step and in all, over all photos but the first, which warms up."""
    classes = load_imagenet_classes()
    stopwatch = Stopwatch(device)
    scripts = PublishedScripts(files, folder / "published", device, stopwatch)
    first, *rest = photos
    scripts.run(first, classes.index_of[first.parent.name])
    stopwatch.seconds.clear()
    start = time.perf_counter()
    for photo in rest:
        scripts.run(photo, classes.index_of[photo.parent.name])
    seconds = (time.perf_counter() - start) / len(rest)
    return {name: total / len(rest) for name, total in stopwatch.seconds.items()}, seconds


def _middle(image: np.ndarray) -> np.ndarray:
    """A hole of a quarter of the image."""
    height, width = image.shape[:2]
    hole = np.zeros((height, width), np.uint8)
    hole[height // 4 : 3 * height // 4, width // 4 : 3 * width // 4] = 255
    return hole


def print_device(figures: DeviceFigures, device: torch.device) -> None:
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    print(f"\nThe whole pipeline on {name}, {figures.result.made} photos of 500x375, working size 224\n")
    names = [*figures.stages, *(name for name in figures.published_stages if name not in figures.stages)]
    rows = [
        (name, *(1000 * side[name] if name in side else "-" for side in (figures.stages, figures.published_stages)))
        for name in names
    ]
    rows.append(("whole, wall", 1000 / figures.images_per_s, 1000 / figures.published_images_per_s))
    print_table(("ms an image", "this tool", "published"), rows)
    print(
        "\nThis tool's models one after the other over the same photos, in batches; decode and write are thread time of"
    )
    print(
        "the whole run, in which stages overlap. The encoder alone is without resizing to 1024 pixels on the CPU, which"
    )
    print("the run does while the GPU works.")
    print(f"Outcomes: {figures.result.states}")
    sizes = ", ".join(f"{part} {chosen['batch']} ({chosen['from']})" for part, chosen in figures.result.tuning.items())
    print(f"Batch sizes: {sizes}")
    dtype = dtype_name(pick_dtype(device))
    print(f"{figures.images_per_s:.3g} images/s, {figures.speedup:.3g} times the published way's.")
    print(f"Largest {dtype} matmul rate {figures.ceiling / 1e12:.3g} TFLOP/s; SAM's encoder alone", end=" ")
    print(f"{figures.sam_flops_per_s / 1e12:.3g} TFLOP/s, {figures.ceiling_share:.0%} of it.")
    if device.type == "cuda":
        busy = "not measured (no answer of nvidia-smi)" if figures.busy is None else f"{figures.busy:.0%}"
        print(f"GPU busy, nvidia-smi's utilisation sampled four times a second over the run: {busy}.")
        print(f"Most GPU memory allocated in the run: {figures.result.gpu['peak'] / 2**30:.1f} GiB.")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda (default: auto)")
    parser.add_argument("--images", type=int, default=None, help="photos for the whole pipeline (default: 1024)")
    parser.add_argument("--compile", action="store_true", help="our models through torch.compile")
    parser.add_argument("--small", action="store_true", help="tiny models and 8 photos, for trying the command")
    options = parser.parse_args(arguments)
    device = pick_device(options.device)
    photos = options.images or (8 if options.small else 1024)
    # The models' libraries warn of their own old ways (TorchScript, meshgrid, checkpointing without gradients).
    warnings.simplefilter("ignore")
    print(f"{machine()}, {torch.get_num_threads()} thread(s) in torch; random weights")
    if options.small:
        print("Tiny models: these figures mean nothing.")
    with tempfile.TemporaryDirectory(dir=".") as name:
        print_figures(run(Path(name), device, photos, small=options.small, compiled=options.compile))


def run(folder: Path, device: torch.device, photos: int, *, small: bool, compiled: bool) -> dict[str, float | None]:
    """Measure and print what can run here; the figures for the last line."""
    whole = small or device.type == "cuda"
    files = small_models(folder / "models") if small else real_models(folder / "models") if whole else None
    clip = compare_clip(files.clip if files else save_clip(folder / "clip.pt"), folder / "cache")
    print_clip(clip)
    figures: dict[str, float | None] = {"clip_pair_speedup": clip.speedup}
    if files is None:
        print("\nThe other stages need a GPU at these sizes, and there is none here: they were not run.\n")
        return figures
    few = {"published_photos": 1, "matmul_sizes": (256,)} if small else {}
    utilisation = nvidia_smi_reader(device) if device.type == "cuda" else None
    measured = measure_device(files, folder, device, photos, utilisation=utilisation, compiled=compiled, **few)
    print_device(measured, device)
    print()
    return figures | device_figures(measured) if device.type == "cuda" else figures


def device_figures(measured: DeviceFigures) -> dict[str, float | None]:
    """What a GPU adds to the last line; None is what could not be measured."""
    return {
        "pipeline_speedup": measured.speedup,
        "sam_ceiling_share": measured.ceiling_share,
        "gpu_busy": measured.busy,
        "images_per_s": measured.images_per_s,
    }


if __name__ == "__main__":
    main()
