"""Stages that work at the same time on a stream of items, joined by bounded queues, order kept.

Each stage has a thread of its own (or a pool of them), so a decoder, a network and an encoder overlap;
a full queue makes the faster stage wait, so memory stays flat however long the stream is.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")


@dataclass
class Stage(Generic[T]):
    """One step. ``run`` changes a batch of items in place and must not raise for a single bad item.

    ``batch`` is the most items taken at once: at least one, then what is ready already, and what becomes ready
    within ``fill_seconds``. A model on a GPU wastes itself on small batches; elsewhere 0 is best.
    ``workers`` > 1 runs that many batches at once on a pool (one may prepare its images while another
    computes); the order of the stream is kept either way.

    ``busy_seconds`` adds up the time spent inside ``run`` over all workers, ``batches`` and ``items`` what it got.
    """

    name: str
    run: Callable[[list[T]], None]
    batch: int = 1
    workers: int = 1
    fill_seconds: float = 0.0
    busy_seconds: float = 0.0
    batches: int = 0
    items: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __call__(self, items: list[T]) -> list[T]:
        start = time.perf_counter()
        try:
            self.run(items)
        finally:
            elapsed = time.perf_counter() - start
            with self._lock:
                self.busy_seconds += elapsed
                self.batches += 1
                self.items += len(items)
        return items

    @property
    def mean_batch(self) -> float:
        """Items a batch so far; 0 before the first."""
        return self.items / self.batches if self.batches else 0.0


class _End:
    """The last thing in a queue: the stream is over, because of ``error`` if there is one."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.error = error


class _Stopped(Exception):
    """The consumer is gone; threads unwind with this."""


class _Link(Generic[T]):
    """A queue of at most ``size`` items between one producer and one consumer.

    Items come in chunks, finished lists or futures of them. A chunk larger than ``size`` goes in alone.
    """

    def __init__(self, size: int) -> None:
        self._size = size
        self._changed = threading.Condition()
        self._chunks: deque[tuple[list[T] | Future[list[T]] | _End, int]] = deque()
        self._held = 0
        self._stopped = False
        self._ready: deque[T] = deque()  # the consumer's own: what is left of the chunk it opened

    def stop(self) -> None:
        """Make every wait here, present and future, raise ``_Stopped``."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def put(self, chunk: list[T] | Future[list[T]] | _End, count: int = 0) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or not self._held or self._held + count <= self._size)
            if self._stopped:
                raise _Stopped
            self._chunks.append((chunk, count))
            self._held += count
            self._changed.notify_all()

    def get(self, deadline: float | None = None) -> T | _End | None:
        """The next item or the end; None when there is none by ``deadline`` (``time.monotonic()``)."""
        if not self._ready:
            chunk = self._open_chunk(deadline)
            if chunk is None or isinstance(chunk, _End):
                return chunk
            self._ready.extend(chunk)
        item = self._ready.popleft()
        with self._changed:
            self._held -= 1
            self._changed.notify_all()
        return item

    def _open_chunk(self, deadline: float | None) -> list[T] | _End | None:
        with self._changed:
            self._changed.wait_for(lambda: self._stopped or self._chunks, _left(deadline))
            if self._stopped:
                raise _Stopped
            if not self._chunks:
                return None
            chunk = self._chunks[0][0]
        if isinstance(chunk, Future):
            try:
                chunk.exception(_left(deadline))  # what the stage raised is not this wait's TimeoutError
            except TimeoutError:
                return None
            chunk = chunk.result()
        with self._changed:
            self._chunks.popleft()
        return chunk

    def get_batch(self, size: int, fill_seconds: float) -> tuple[list[T], _End | None]:
        """At least one item and at most ``size``, the later ones within ``fill_seconds``; and the end if it came."""
        items: list[T] = []
        deadline = None
        while len(items) < size:
            value = self.get(deadline)
            if value is None:
                break
            if isinstance(value, _End):
                return items, value
            items.append(value)
            deadline = deadline or time.monotonic() + fill_seconds
        return items, None


def _left(deadline: float | None) -> float | None:
    return None if deadline is None else max(0.0, deadline - time.monotonic())


def stream(items: Iterable[T], stages: list[Stage[T]], *, queue_size: int = 16) -> Iterator[T]:
    """Pass every item through every stage, yielding them in their order as the last stage is done.

    Before each stage wait at most ``queue_size`` items, or one of its batches if that is more.
    An exception in ``items`` or in a stage is raised here. Leaving the loop early, for whatever reason,
    stops the threads after the batch they are in.
    """
    links: list[_Link[T]] = [_Link(max(queue_size, stage.batch)) for stage in stages] + [_Link(queue_size)]
    pools = [ThreadPoolExecutor(s.workers, thread_name_prefix=s.name) if s.workers > 1 else None for s in stages]

    def feed() -> None:
        for item in items:
            links[0].put([item], 1)
        links[0].put(_End())

    def work(index: int) -> None:
        stage, pool, source, sink = stages[index], pools[index], links[index], links[index + 1]
        end = None
        while end is None:
            batch, end = source.get_batch(stage.batch, stage.fill_seconds)
            if batch:
                sink.put(stage(batch) if pool is None else pool.submit(stage, batch), len(batch))
        sink.put(end)

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
        for link in links:
            link.stop()
        for pool in pools:
            if pool is not None:
                pool.shutdown(wait=False, cancel_futures=True)
        for thread in threads:
            thread.join()
        for pool in pools:
            if pool is not None:
                pool.shutdown()
