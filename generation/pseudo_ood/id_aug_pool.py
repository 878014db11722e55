"""The backgrounds that objects are set on: who gets which, drawn by seed, none given twice in a pass."""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np

from db.models import Candidate
from db.workspace import Workspace
from generation.pseudo_ood.committing import DamagedCandidate, read_images

log = logging.getLogger(__name__)


class Ground(NamedTuple):
    """A background that was drawn: its place in the pool, its candidate and its pixels (``HxWx3 uint8``)."""

    index: int
    candidate: Candidate
    pixels: np.ndarray


class GroundPool:
    """Candidates to set objects on. One that was drawn stays out until its round ends, and if kept, until the pass
    ends.

    The order is that of the candidates' content, so neither ids nor imports matter to a draw. Not thread-safe.
    """

    def __init__(self, workspace: Workspace, candidates: Sequence[Candidate]) -> None:
        self._workspace = workspace
        self._candidates = sorted(candidates, key=lambda one: one.folder)
        self._class_index = np.array([one.class_index for one in self._candidates], dtype=np.int64)
        self._usable = np.ones(len(self._candidates), dtype=bool)
        self.start_pass()

    def start_pass(self) -> None:
        """Every usable background may be drawn again."""
        self._free = self._usable.copy()
        self._out = np.zeros_like(self._usable)

    def draw(self, rng: np.random.Generator, class_index: int, tried: Collection[int]) -> Ground | None:
        """A background of another class, not among those ``tried``, or None when none is free.

        One that is all white or all black, or whose files are damaged, leaves the pool unseen.
        """
        while True:
            places = np.flatnonzero(self._fitting(self._free, class_index, tried))
            if not len(places):
                return None
            index = int(rng.choice(places))
            self._free[index] = False
            pixels = self._read(self._candidates[index])
            if pixels is not None:
                self._out[index] = True
                return Ground(index, self._candidates[index], pixels)
            self._usable[index] = False

    def may_come_back(self, class_index: int, tried: Collection[int]) -> bool:
        """Whether a background that would do is only out for this round."""
        return bool(self._fitting(self._out, class_index, tried).any())

    def end_round(self, returned: Collection[int]) -> None:
        """Those returned are free again; the others that are out were kept."""
        self._free[list(returned)] = True
        self._out[:] = False

    def _fitting(self, among: np.ndarray, class_index: int, tried: Collection[int]) -> np.ndarray:
        fitting = among & (self._class_index != class_index)
        fitting[list(tried)] = False
        return fitting

    def _read(self, candidate: Candidate) -> np.ndarray | None:
        try:
            (pixels,) = read_images(self._workspace, candidate, "result")
        except DamagedCandidate as error:
            log.warning("Not used as a background: %s", error)
            return None
        return None if pixels.min() == 255 or pixels.max() == 0 else pixels
