"""Where models run and in what precision, how pixels get there, and what happens when memory runs out."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.backends import cudnn

Precision = Literal["auto", "float32", "bfloat16", "float16"]

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)
_exact_lock = threading.Lock()


class DeviceUnavailable(RuntimeError):
    """The device asked for is not on this machine, or cannot do what is asked of it."""


def pick_device(requested: torch.device | str = "auto") -> torch.device:
    """The device to run on; "auto" is the current CUDA device if there is one, else the CPU.

    DeviceUnavailable for a CUDA device that is not there.
    """
    if requested == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(requested)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        found = f"{torch.cuda.device_count()} CUDA device(s)"
        raise DeviceUnavailable(f"{device} is not available: this machine has {found}. Use 'auto' or 'cpu'.")
    return device


def pick_dtype(device: torch.device, precision: Precision = "auto") -> torch.dtype:
    """The dtype for the parts of a model that bear low precision.

    "auto" is bfloat16 on a GPU that has it, float16 on an older one and float32 on a CPU.
    DeviceUnavailable for float16 on a CPU, where half of the operators lack it.
    """
    if precision == "auto":
        if device.type != "cuda":
            return torch.float32
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}.get(precision)
    if dtype is None:
        raise ValueError(f"The precision is auto, float32, bfloat16 or float16, not {precision!r}.")
    if dtype is torch.float16 and device.type == "cpu":
        raise DeviceUnavailable("float16 needs a GPU; use float32 or bfloat16 on the CPU.")
    return dtype


def dtype_name(dtype: torch.dtype) -> str:
    """ "bfloat16" for ``torch.bfloat16``: what goes into a fingerprint."""
    return str(dtype).removeprefix("torch.")


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager:
    """Autocast to ``dtype`` on ``device``; does nothing for float32."""
    return nullcontext() if dtype is torch.float32 else torch.autocast(device.type, dtype=dtype)


@contextmanager
def exact_float32() -> Iterator[None]:
    """float32 convolutions on a GPU with all their bits, one thread at a time.

    By default cuDNN rounds their inputs to TensorFloat-32, little better than half precision. The switch
    belongs to the process; another thread's convolutions are at worst slower for the moment.
    """
    with _exact_lock:
        # While the newer ``fp32_precision`` is set, whoever reads ``allow_tf32`` gets an error.
        before = cudnn.allow_tf32
        cudnn.allow_tf32 = False
        try:
            yield
        finally:
            cudnn.allow_tf32 = before


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """``tensor`` on ``device``: to a GPU through pinned memory and without waiting for the copy."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def lay_out_convolutions(module: nn.Module, channels_last: bool) -> None:
    """Keep the weights of the module's convolutions in channels_last, so that cuDNN computes them so; or not.

    The other four-dimensional tensors (SAM's table of positions) stay as they are. Values do not change.
    """
    layout = torch.channels_last if channels_last else torch.contiguous_format
    for one in module.modules():
        if isinstance(one, (nn.Conv2d, nn.ConvTranspose2d)):
            one.to(memory_format=layout)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a GPU's memory ran out. TorchScript and the CUDA libraries say so in a plain RuntimeError."""
    signs = ("out of memory", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in signs)


def run_in_batches(
    fn: Callable[[Sequence[Item]], Sequence[Result]],
    items: Sequence[Item],
    batch_size: int,
    *,
    on_oom: Callable[[int], None] | None = None,
    what: str = "items",
) -> list[Result]:
    """``fn`` over ``items``, at most ``batch_size`` at a time; one result an item, in order.

    When a batch does not fit into the GPU's memory it is halved, and what is left goes on at that size: the
    log says so, naming ``what``, and ``on_oom`` gets the new size (to start there the next time). A single
    item that does not fit raises as it came; ValueError for a batch size below 1 or when ``fn`` gives another
    number of results.
    """
    if batch_size < 1:
        raise ValueError(f"The batch size must be at least 1, got {batch_size}.")
    results: list[Result] = []
    while len(results) < len(items):
        batch = items[len(results) : len(results) + batch_size]
        made = _unless_out_of_memory(fn, batch)
        if made is None:
            batch_size = len(batch) // 2
            log.warning("Out of GPU memory with %d %s at once: going on with %d.", len(batch), what, batch_size)
            if on_oom is not None:
                on_oom(batch_size)
            continue
        if len(made) != len(batch):
            raise ValueError(f"A batch of {len(batch)} {what} gave {len(made)} results.")
        results.extend(made)
    return results


def _unless_out_of_memory(
    fn: Callable[[Sequence[Item]], Sequence[Result]], batch: Sequence[Item]
) -> Sequence[Result] | None:
    """``fn(batch)``, or None when memory ran out and the batch can still be halved."""
    try:
        return fn(batch)
    except RuntimeError as error:
        if len(batch) == 1 or not is_out_of_memory(error):
            raise
    # Outside the handler: until it ends, the error's traceback keeps the failed batch's tensors alive.
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return None
