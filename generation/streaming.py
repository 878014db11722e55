"""Stages that work at the same time on a stream of items, joined by bounded queues, order kept.

Each stage has a thread of its own (or a pool of them), so a decoder, a network and an encoder overlap;
a full queue makes the faster stage wait, so memory stays flat however long the stream is.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
_POLL_SECONDS = 0.2


@dataclass
class Stage(Generic[T]):
    """One step. ``run`` changes a batch of items in place and must not raise for a single bad item.

    ``batch`` is the most items taken at once (whatever waits, at least one). ``workers`` > 1 runs
    single items on a pool instead; the order of the stream is kept either way. ``busy_seconds`` adds up
    the time spent inside ``run`` over all workers.
    """

    name: str
    run: Callable[[list[T]], None]
    batch: int = 1
    workers: int = 1
    busy_seconds: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, items: list[T]) -> None:
        start = time.perf_counter()
        try:
            self.run(items)
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.busy_seconds += elapsed

    def one(self, item: T) -> T:
        self([item])
        return item


class _End:
    """The last thing in a queue: the stream is over, because of ``error`` if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Stopped(Exception):
    """The consumer is gone; threads unwind with this."""


class _Link(Generic[T]):
    """A bounded queue whose waits end when the stream is stopped."""

    def __init__(self, size: int, stopped: threading.Event) -> None:
        self._queue: queue.Queue = queue.Queue(size)
        self._stopped = stopped

    def put(self, value: T | Future[T] | _End) -> None:
        while not self._stopped.is_set():
            try:
                return self._queue.put(value, timeout=_POLL_SECONDS)
            except queue.Full:
                continue
        raise _Stopped

    def get(self) -> T | _End:
        while not self._stopped.is_set():
            try:
                value = self._queue.get(timeout=_POLL_SECONDS)
            except queue.Empty:
                continue
            return value.result() if isinstance(value, Future) else value
        raise _Stopped

    def get_batch(self, size: int) -> tuple[list[T], _End | None]:
        """At least one item, and as many more as wait already, up to ``size``; and the end if it came."""
        items: list[T] = []
        value = self.get()
        while True:
            if isinstance(value, _End):
                return items, value
            items.append(value)
            if len(items) >= size or self._queue.empty():
                return items, None
            value = self.get()


def stream(items: Iterable[T], stages: list[Stage[T]], *, queue_size: int = 16) -> Iterator[T]:
    """Pass every item through every stage, yielding them in their order as the last stage is done.

    An exception in ``items`` or in a stage is raised here. Leaving the loop early, for whatever reason,
    stops the threads after the batch they are in.
    """
    stopped = threading.Event()
    links: list[_Link[T]] = [_Link(queue_size, stopped) for _ in range(len(stages) + 1)]
    pools = [ThreadPoolExecutor(s.workers, thread_name_prefix=s.name) if s.workers > 1 else None for s in stages]

    def feed() -> None:
        for item in items:
            links[0].put(item)
        links[0].put(_End())

    def work(index: int) -> None:
        stage, pool, source, sink = stages[index], pools[index], links[index], links[index + 1]
        while True:
            batch, end = source.get_batch(1 if pool else stage.batch)
            if pool is not None:
                for item in batch:
                    sink.put(pool.submit(stage.one, item))
            elif batch:
                stage(batch)
                for item in batch:
                    sink.put(item)
            if end is not None:
                sink.put(end)
                return

    def guarded(target: Callable[..., None], sink: _Link[T], *arguments: int) -> None:
        try:
            target(*arguments)
        except _Stopped:
            return
        except BaseException as error:  # handed to the consumer, which raises it
            try:
                sink.put(_End(error))
            except _Stopped:
                return

    threads = [threading.Thread(target=guarded, args=(feed, links[0]), name="feed", daemon=True)]
    threads += [
        threading.Thread(target=guarded, args=(work, links[i + 1], i), name=stage.name, daemon=True)
        for i, stage in enumerate(stages)
    ]
    for thread in threads:
        thread.start()
    try:
        while not isinstance(item := links[-1].get(), _End):
            yield item
        if item.error is not None:
            raise item.error
    finally:
        stopped.set()
        for thread in threads:
            thread.join()
        for pool in pools:
            if pool is not None:
                pool.shutdown(cancel_futures=True)
