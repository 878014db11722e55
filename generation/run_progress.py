"""How far a run is, in numbers and in a sentence: recent images a second, time left, GPU memory, states."""

from __future__ import annotations

import logging
import queue
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from db.models import State
from db.progress import Progress
from generation.gpu import GpuMemory, gpu_memory
from generation.tuning import Clock

WINDOW_SECONDS = 30.0
WINDOW_ITEMS = 16
REFRESH_SECONDS = 0.5
GIB = 1 << 30
# What these say is for the operator: a batch was halved, a compiler gave up.
TOLD_LOGGERS = ("generation.devices", "generation.compiling")


class RateMeter:
    """Items a second over the last half minute, or over the last 16 items where those took longer."""

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._count = 0
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def add(self) -> None:
        self._count += 1
        now = self._clock()
        self._marks.append((now, self._count))
        while len(self._marks) > WINDOW_ITEMS and self._marks[1][0] <= now - WINDOW_SECONDS:
            self._marks.popleft()

    def per_second(self) -> float | None:
        """None before the first item."""
        since, count = self._marks[0]
        seconds = self._clock() - since
        return (self._count - count) / seconds if self._count and seconds > 0 else None


class RunProgress:
    """Counts sources through the passes of a run and tells ``progress``; new words come at most twice a second.

    ``done`` and ``total`` count every pass: a source that ends in an earlier one leaves the later ones' total.
    """

    def __init__(
        self,
        progress: Progress,
        passes: int,
        *,
        clock: Clock = time.monotonic,
        memory: Callable[[], GpuMemory | None] = gpu_memory,
    ) -> None:
        self._progress = progress
        self._passes = passes
        self._clock = clock
        self._memory = memory
        self._number = 0
        self._label = ""
        self._done = 0
        self._left = 0
        self._meter = RateMeter(clock)
        self._words = ""
        self._worded_at = -REFRESH_SECONDS
        self._warnings: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.counts = dict.fromkeys(State, 0)

    def say(self, text: str) -> None:
        """Something that takes a while and cannot be counted. Raises :class:`db.progress.Cancelled`."""
        self._progress.update(self._done, None, self._label + text)

    def begin_pass(self, name: str, sources: int) -> None:
        """The next pass over ``sources``; it and those after it are what is left."""
        self._number += 1
        self._label = f"Pass {self._number} of {self._passes}, {name}: " if self._passes > 1 else ""
        self._left = sources * (self._passes - self._number + 1)
        self._meter = RateMeter(self._clock)
        self._words = f"{sources} sources to do"
        self._tell()

    def advance(self, state: State | None) -> None:
        """One more source is through the pass; ``state`` is None where a later pass goes on with it.

        Raises :class:`db.progress.Cancelled`.
        """
        self._done += 1
        self._left -= 1
        if state is not None:
            self.counts[state] += 1
            self._left -= self._passes - self._number
        self._meter.add()
        if self._clock() - self._worded_at >= REFRESH_SECONDS or not self._left:
            self._worded_at = self._clock()
            self._words = self._describe()
        self._tell()

    def log(self, line: str) -> None:
        self._progress.log(line)

    @contextmanager
    def warnings_told(self) -> Iterator[None]:
        """Keep with the job what models warn of meanwhile, from whichever thread."""
        handler = _Collector(self._warnings)
        loggers = [logging.getLogger(name) for name in TOLD_LOGGERS]
        for logger in loggers:
            logger.addHandler(handler)
        try:
            yield
        finally:
            for logger in loggers:
                logger.removeHandler(handler)
            self._tell_warnings()

    def _tell(self) -> None:
        self._tell_warnings()
        self._progress.update(self._done, self._done + self._left, self._label + self._words)

    def _tell_warnings(self) -> None:
        while not self._warnings.empty():
            self._progress.log(self._warnings.get())

    def _describe(self) -> str:
        rate = self._meter.per_second()
        parts = [] if rate is None else [rate_text(rate)]
        if rate and self._left:
            parts.append(f"about {duration_text(self._left / rate)} left")
        memory = self._memory()
        if memory is not None:
            parts.append(memory_text(memory))
        states = ", ".join(
            f"{count:,} {state.value.replace('_', ' ')}" for state, count in self.counts.items() if count
        )
        return "; ".join(part for part in (", ".join(parts), states) if part)


class _Collector(logging.Handler):
    def __init__(self, lines: queue.SimpleQueue[str]) -> None:
        super().__init__(logging.WARNING)
        self._lines = lines

    def emit(self, record: logging.LogRecord) -> None:
        self._lines.put(record.getMessage())


def rate_text(per_second: float) -> str:
    """``"12.3 images/s"``, or by the minute where that is less than one in ten seconds."""
    return f"{per_second:.1f} images/s" if per_second >= 0.1 else f"{60 * per_second:.1f} images/min"


def duration_text(seconds: float) -> str:
    """``"40 s"``, ``"12 min"``, ``"3 h 5 min"``."""
    if seconds < 60:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def memory_text(memory: GpuMemory) -> str:
    """Of the whole card, in GiB."""
    now, peak, total = (size / GIB for size in (memory.allocated, memory.peak, memory.total))
    return f"GPU memory {now:.1f} of {total:.0f} GiB (at most {peak:.1f})"
