"""Backends that know which of them are in memory, for the tests of low-memory runs; registered by name for a test.

What they answer depends on the image alone: some photos end as no_detection, mask_too_small or failed, on some
the object is found again, some masks are enlarged at the second look.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field

import numpy as np
import pytest

from generation.inpainting.noop import GreyInpainter
from generation.masking.noop import CentreMasker
from generation.protocols import Box, MaskProposal
from generation.registry import INPAINTERS, MASKERS, SCORERS, BackendEntry
from generation.scoring.noop import PixelScorer


@dataclass
class Watch:
    """What is alive, what was loaded in which order, and which kinds were in memory together when one worked."""

    alive: weakref.WeakSet = field(default_factory=weakref.WeakSet)
    loaded: list[str] = field(default_factory=list)
    together: dict[str, set[frozenset[str]]] = field(default_factory=dict)

    def begin(self) -> None:
        self.loaded.clear()
        self.together.clear()

    def born(self, backend: object, kind: str) -> None:
        backend.kind = kind
        self.alive.add(backend)
        self.loaded.append(kind)
        self.note("loading")

    def note(self, work: str) -> None:
        self.together.setdefault(work, set()).add(frozenset(one.kind for one in self.alive))


WATCH = Watch()


def lot(image: np.ndarray) -> int:
    """A number from 0 to 9 that the image draws."""
    return int(image.astype(np.int64).sum()) % 10


class TrackedMasker(CentreMasker):
    version = 1

    def __init__(self, *, detector_only: bool = False) -> None:
        WATCH.born(self, "detector" if detector_only else "masker")

    def fingerprint(self) -> dict[str, object]:
        whole = {} if self.kind == "detector" else {"segmenter": 7}
        return {"name": type(self).__name__, "version": self.version, **whole}

    def propose(self, requests):
        WATCH.note("propose")
        return [self._one(request) for request in requests]

    def _one(self, request):
        drawn = lot(request.image)
        if drawn == 0:
            return MaskProposal(np.zeros(request.image.shape[:2], np.uint8))
        proposal = self._propose(request)
        if drawn == 1:
            proposal.mask[:] = 0
            proposal.mask[100:110, 100:110] = 255
        return proposal


class Detecting:
    """Finds the object again where the candidate draws an even number."""

    def residual_boxes(self, requests, candidates):
        WATCH.note("residual")
        box = Box(1.5, 2, 9, 9, "tench", 0.7)
        return [(box,) if lot(candidate) % 2 == 0 else () for candidate in candidates]


class LookingAgain:
    """Wants a wider mask for six photos of ten; it helps half of those."""

    def second_look(self, request, mask, inpainted):
        WATCH.note("second look")
        larger = np.roll(mask, 12, axis=1) | mask
        return larger if lot(request.image) >= 4 else None

    def second_look_helped(self, request, first, second):
        return lot(request.image) >= 7


class DetectingMasker(TrackedMasker, Detecting):
    pass


class LookingMasker(TrackedMasker, LookingAgain):
    pass


class BothMasker(TrackedMasker, Detecting, LookingAgain):
    pass


class Cursed(ArithmeticError):
    pass


class TrackedInpainter(GreyInpainter):
    def __init__(self) -> None:
        WATCH.born(self, "inpainter")

    def inpaint(self, images, holes):
        WATCH.note("inpaint")
        if any(lot(image) == 3 for image in images):
            raise Cursed("the picture is cursed")
        return super().inpaint(images, holes)


class TrackedScorer(PixelScorer):
    def __init__(self) -> None:
        WATCH.born(self, "scorer")

    def score(self, requests):
        WATCH.note("score")
        return super().score(requests)


NAMES = {"plain": TrackedMasker, "detecting": DetectingMasker, "looking": LookingMasker, "both": BothMasker}


@pytest.fixture
def tracked(monkeypatch: pytest.MonkeyPatch) -> Watch:
    """The maskers of ``NAMES``, and an inpainter and a scorer called "tracked", in the registry for one test."""

    def entry(cls: type, *, detects_alone: bool = False) -> BackendEntry:
        return BackendEntry(f"{__name__}:{cls.__name__}", cls.__name__, "test", detects_alone=detects_alone)

    for name, cls in NAMES.items():
        monkeypatch.setitem(MASKERS, name, entry(cls, detects_alone=issubclass(cls, Detecting)))
    monkeypatch.setitem(INPAINTERS, "tracked", entry(TrackedInpainter))
    monkeypatch.setitem(SCORERS, "tracked", entry(TrackedScorer))
    WATCH.begin()
    return WATCH
