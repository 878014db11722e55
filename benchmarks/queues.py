"""How a stage's patience and its number of workers fill a GPU: the real queues around a simulated device.

`uv run benchmarks/queues.py [--images N]`. The device is a lock: one batch at a time, each taking a fixed time and a
time an image, while images are decoded and prepared by threads that only wait. So it runs anywhere, and says how the
queues behave, not how fast any model is.
"""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.report import print_figures, print_table
from generation.passes import FILL_SECONDS, GPU_WORKERS
from generation.streaming import Stage, stream

BATCH = 8
IO_WORKERS = 8
DECODE_SECONDS = 0.02
WRITE_SECONDS = 0.003


@dataclass(frozen=True)
class Model:
    """Seconds: on the device a batch and an image, beside it an image (resizing and the like)."""

    batch: float
    image: float
    prepare: float


MODELS = {
    "mask": Model(0.020, 0.006, 0.015),
    "inpaint": Model(0.010, 0.002, 0.007),
    "score": Model(0.010, 0.001, 0.007),
}


class Device:
    """What all models share. ``busy`` is seconds."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.busy = 0.0

    def runs(self, model: Model) -> Callable[[list[object]], None]:
        def run(items: list[object]) -> None:
            time.sleep(model.prepare * len(items))
            with self._lock:
                start = time.perf_counter()
                time.sleep(model.batch + model.image * len(items))
                self.busy += time.perf_counter() - start

        return run


def measure(images: int, workers: int, fill_seconds: float) -> tuple[float, float, float]:
    """Images a second, the share of the time that the device was busy, and the mean batch of the first model."""
    device = Device()
    models = [
        Stage(name, device.runs(model), batch=BATCH, workers=workers, fill_seconds=fill_seconds)
        for name, model in MODELS.items()
    ]
    decode = Stage("decode", lambda items: time.sleep(DECODE_SECONDS), workers=IO_WORKERS)
    write = Stage("write", lambda items: time.sleep(WRITE_SECONDS), workers=IO_WORKERS)
    start = time.perf_counter()
    done = sum(1 for _ in stream((object() for _ in range(images)), [decode, *models, write]))
    seconds = time.perf_counter() - start
    return done / seconds, device.busy / seconds, models[0].mean_batch


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    images = parser.parse_args().images
    rows = []
    for workers in (1, 2, 3):
        for fill_seconds in (0.0, 0.05, 0.1, 0.3):
            per_second, busy, batch = measure(images, workers, fill_seconds)
            rows.append((f"{workers} at once, waits {fill_seconds:g} s", per_second, 100 * busy, batch))
    print_table((f"batches of {BATCH}", "images/s", "device busy, %", "mean batch"), rows)
    plain, *_ = measure(images, 1, 0.0)
    chosen, busy, _ = measure(images, GPU_WORKERS, FILL_SECONDS)
    print(f"\nChosen for a GPU: {GPU_WORKERS} at once, {FILL_SECONDS:g} s.\n")
    print_figures({"queue_speedup": chosen / plain, "simulated_busy": busy})


if __name__ == "__main__":
    main()
