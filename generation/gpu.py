"""What a run asks a GPU about itself: its memory, its name. Loads nothing: without torch in use there is no GPU."""

from __future__ import annotations

import gc
import sys
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class GpuMemory:
    """Bytes of the card of that name: held by tensors now, at most since the run began, and there are."""

    name: str
    allocated: int
    peak: int
    total: int


class Card(Protocol):
    """A GPU as the probe of :mod:`generation.tuning` sees it."""

    name: str
    total_bytes: int

    def used_share(self) -> float:
        """How much of its memory is taken, by whomever, 0 to 1."""
        ...

    def empty(self) -> None:
        """Give back what the allocator keeps for later."""
        ...

    def ran_out(self, error: RuntimeError) -> bool:
        """Whether the error says that memory ran out."""
        ...


class CudaCard:
    """The current CUDA device, a :class:`Card`."""

    def __init__(self) -> None:
        import torch

        properties = torch.cuda.get_device_properties(torch.cuda.current_device())
        self.name: str = properties.name
        self.total_bytes: int = properties.total_memory

    def used_share(self) -> float:
        import torch

        free, total = torch.cuda.mem_get_info()
        return 1 - free / total

    def empty(self) -> None:
        free_memory()

    def ran_out(self, error: RuntimeError) -> bool:
        from generation.devices import is_out_of_memory

        return is_out_of_memory(error)


def gpu_memory() -> GpuMemory | None:
    """The current GPU's memory; None when this process uses none."""
    torch = _torch_on_gpu()
    if torch is None:
        return None
    card = torch.cuda.get_device_properties(torch.cuda.current_device())
    return GpuMemory(card.name, torch.cuda.memory_allocated(), torch.cuda.max_memory_allocated(), card.total_memory)


def forget_peak() -> None:
    """Begin :attr:`GpuMemory.peak` anew."""
    torch = _torch_on_gpu()
    if torch is not None:
        torch.cuda.reset_peak_memory_stats()


def free_memory() -> None:
    """Collect what nobody refers to any more, and give a GPU's freed memory back to it."""
    gc.collect()
    torch = _torch_on_gpu()
    if torch is not None:
        torch.cuda.empty_cache()


def _torch_on_gpu():
    """The torch module when this process has used a GPU with it, else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and torch.cuda.is_initialized() else None
