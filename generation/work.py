"""One image on its way through the steps, and the guard that lets one bad image cost one image."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from db.models import SourceImage, State
from generation.decode import UnreadableImage
from generation.protocols import Box, MaskRequest, Score
from generation.sources import SourceChanged

log = logging.getLogger(__name__)


@dataclass
class Work:
    """A source on its way. Pixels are uint8 (``raw``, ``result`` HxWx3 RGB; masks HxW 0/255); ``state`` comes last."""

    source: SourceImage
    class_name: str
    raw: np.ndarray | None = None
    raw_sha256: str = ""
    boxes: tuple[Box, ...] = ()
    mask: np.ndarray | None = None
    dilated: np.ndarray | None = None
    result: np.ndarray | None = None
    score: Score | None = None
    residual_boxes: tuple[Box, ...] | None = None
    key: str = ""
    manifest: dict | None = None
    phash: str = ""
    notes: dict[str, str] = field(default_factory=dict)
    timings: dict[str, float] = field(default_factory=dict)
    state: State | None = None
    reason: str = ""

    @property
    def open(self) -> bool:
        return self.state is None

    @property
    def request(self) -> MaskRequest:
        return MaskRequest(self.raw, self.source.class_index, self.class_name)

    def end(self, state: State, reason: str = "") -> None:
        self.state = state
        self.reason = reason

    def snapshot(self) -> dict[str, object]:
        """What :meth:`restore` needs. Steps replace the arrays, so these need no copy; they add to the notes."""
        return {**vars(self), "notes": dict(self.notes), "timings": dict(self.timings)}

    def restore(self, snapshot: dict[str, object]) -> None:
        """Undo what a step did before it raised."""
        vars(self).update(snapshot)

    def forget_pixels(self) -> None:
        """Free the arrays once they are on disk; a queue of finished work should weigh nothing."""
        self.raw = self.mask = self.dilated = self.result = None


def guarded(name: str, step: Callable[[list[Work]], None]) -> Callable[[list[Work]], None]:
    """``step`` for the open items of a batch, timed, with one bad image costing one image.

    When a batch raises, its images go through one by one, each as if the batch had never been tried.
    """

    def run(batch: list[Work]) -> None:
        items = [item for item in batch if item.open]
        if not items:
            return
        before = [item.snapshot() for item in items] if len(items) > 1 else []
        start = time.perf_counter()
        try:
            step(items)
        except (UnreadableImage, SourceChanged) as error:
            if len(items) == 1:
                items[0].end(State.FAILED, f"{name}: {error}")
        except Exception as error:  # any backend may raise anything; the reason is kept with the image
            if len(items) == 1:
                log.exception("%s failed for %s", name, items[0].source.name)
                items[0].end(State.FAILED, f"{name}: {type(error).__name__}: {error}")
        else:
            seconds = (time.perf_counter() - start) / len(items)
            for item in items:
                item.timings[name] = round(item.timings.get(name, 0.0) + seconds, 4)
            return
        for item, snapshot in zip(items, before, strict=False):  # none for an item alone: it has ended
            item.restore(snapshot)
            run([item])

    return run
