"""What a device can do and how busy it is: the measured matmul ceiling, a model's FLOPs, utilisation, a stopwatch.

Everything but the utilisation works on a CPU too, so that a run without a GPU tries the same code.
"""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch

SAMPLE_SECONDS = 0.25
SAM_SIDE = 1024


def synchronise(device: torch.device) -> None:
    """Wait for everything the device was told to do; nothing to wait for on a CPU."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


class Stopwatch:
    """Seconds by name, added up over every ``with stopwatch(name):``; the device is waited for at both ends."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = defaultdict(float)

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        synchronise(self._device)
        start = time.perf_counter()
        yield
        synchronise(self._device)
        self.seconds[name] += time.perf_counter() - start


def matmul_ceiling(
    device: torch.device, dtype: torch.dtype, sizes: Sequence[int] = (4096, 8192, 16384), seconds: float = 0.5
) -> float:
    """The most FLOP/s that a product of two square matrices of ``dtype`` reached, over the given sides.

    Each side runs for about ``seconds`` after a warm-up; a product of side n counts ``2 n^3``.
    """
    best = 0.0
    for size in sizes:
        left = torch.randn(size, size, device=device, dtype=dtype)
        right = torch.randn(size, size, device=device, dtype=dtype)
        out = torch.empty_like(left)
        once = _mean_seconds(device, lambda a=left, b=right, c=out: torch.mm(a, b, out=c), 3)
        repeats = max(3, int(seconds / once))
        mean = _mean_seconds(device, lambda a=left, b=right, c=out: torch.mm(a, b, out=c), repeats)
        best = max(best, 2 * size**3 / mean)
    return best


def _mean_seconds(device: torch.device, run: Callable[[], object], repeats: int) -> float:
    run()
    synchronise(device)
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    synchronise(device)
    return (time.perf_counter() - start) / repeats


def sam_encoder_flops(variant: str) -> int:
    """FLOPs (two a multiply-add) of SAM's image encoder on one 1024x1024 image, of every matmul and convolution.

    Counted over a forward pass of segment-anything's own module without data ("meta" device), so whatever
    shortcuts ours takes do not change what the work counts for.
    """
    from segment_anything import sam_model_registry
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device("meta"):
        encoder = sam_model_registry[variant]().image_encoder
        pixels = torch.empty(1, 3, SAM_SIDE, SAM_SIDE)
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        encoder(pixels)
    return counter.get_total_flops()


def nvidia_smi_reader(device: torch.device) -> Callable[[], str] | None:
    """A function that asks nvidia-smi for the GPU's utilisation now; None where there is no nvidia-smi."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    identifier = f"GPU-{str(torch.cuda.get_device_properties(device).uuid).removeprefix('GPU-')}"
    command = [program, "-i", identifier, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    return lambda: subprocess.run(command, capture_output=True, text=True, check=True).stdout


class BusyMeter:
    """Samples ``read`` four times a second from entering to leaving; :attr:`share` is the mean, 0 to 1.

    ``read`` answers a percentage as nvidia-smi prints it: the share of its last sample period (1/6 s to 1 s)
    in which at least one kernel ran. An answer that is no number ("[N/A]", on a partitioned GPU) is passed over.
    """

    def __init__(self, read: Callable[[], str]) -> None:
        self._read = read
        self._samples: list[float] = []
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._sample, name="busy-meter", daemon=True)

    def __enter__(self) -> BusyMeter:
        self._read()  # what cannot work at all fails here, in the caller's thread
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._left.set()
        self._thread.join()

    @property
    def share(self) -> float | None:
        """None when nothing was measured."""
        return sum(self._samples) / len(self._samples) / 100 if self._samples else None

    def _sample(self) -> None:
        while not self._left.is_set():
            answer = self._read().strip()
            if answer.isdecimal():
                self._samples.append(float(answer))
            self._left.wait(SAMPLE_SECONDS)
