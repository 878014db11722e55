"""What a mask, an inpainting and a scoring backend must offer, and the values they exchange.

Pixels are ``HxWx3 uint8 RGB`` arrays and masks ``HxW uint8`` arrays (255 = labelled object, 0 =
background) throughout; a backend never changes the arrays it is given. This module imports no
model library, so the page can describe every backend without loading one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Box:
    """One detection: corners ``x0, y0, x1, y1`` in pixels of the working image, and why it is there."""

    x0: float
    y0: float
    x1: float
    y1: float
    phrase: str
    confidence: float


@dataclass(frozen=True)
class MaskRequest:
    """A working image and the class whose object is to be masked."""

    image: np.ndarray
    class_index: int
    class_name: str


@dataclass(frozen=True)
class MaskProposal:
    """A masker's answer: the mask (all 0 = nothing detected) and the boxes it came from."""

    mask: np.ndarray
    boxes: tuple[Box, ...] = ()


@dataclass(frozen=True)
class InpaintResult:
    """The filled image (same size as the input) and what happened on the way, e.g. a fallback's name."""

    image: np.ndarray
    notes: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ScoreRequest:
    """A source image and the candidate made from it, both at the working size."""

    source: np.ndarray
    candidate: np.ndarray
    class_index: int


@dataclass(frozen=True)
class Score:
    """How much evidence of the class vanished.

    ``drop`` is ``logit_source - logit_candidate`` of the true class; ``residual`` is the evidence for
    the class left in the candidate (a logit; its scale is the backend's own), ``rank`` the class's
    place among all classes on the candidate (1 = still the best guess), ``probability`` its softmax and
    ``top5`` the class indices that the candidate looks like now, best first.
    """

    logit_source: float
    logit_candidate: float
    residual: float
    rank: int
    probability: float
    top5: tuple[int, ...] = ()

    @property
    def drop(self) -> float:
        return self.logit_source - self.logit_candidate


class Backend(Protocol):
    """What every backend has: a record of itself that goes into the recipe's hash."""

    def fingerprint(self) -> dict[str, object]:
        """JSON-able: everything that changes the output: name, parameters, sha256 of the weights."""
        ...


class Masker(Backend, Protocol):
    def propose(self, requests: Sequence[MaskRequest]) -> list[MaskProposal]:
        """One proposal a request, in order. Batch-N equals batch-1."""
        ...


@runtime_checkable
class SecondLook(Protocol):
    """A masker that can look at its own result and ask for more to be masked."""

    def second_look(self, request: MaskRequest, mask: np.ndarray, inpainted: np.ndarray) -> np.ndarray | None:
        """The enlarged mask (a superset of ``mask``), or None when the object seems gone."""
        ...

    def second_look_helped(self, request: MaskRequest, first: np.ndarray, second: np.ndarray) -> bool:
        """Whether the second inpainted image holds clearly less evidence of the class than the first."""
        ...


@runtime_checkable
class ResidualDetector(Protocol):
    """A masker that can look for the object again on the finished candidate."""

    def residual_boxes(
        self, requests: Sequence[MaskRequest], candidates: Sequence[np.ndarray]
    ) -> list[tuple[Box, ...]]:
        """What is still found of each request's class on its candidate, most confident first; () is good."""
        ...


class Inpainter(Backend, Protocol):
    def inpaint(self, images: Sequence[np.ndarray], holes: Sequence[np.ndarray]) -> list[InpaintResult]:
        """Fill the pixels where the hole is 255. One result an image, in order, same sizes."""
        ...


class Scorer(Backend, Protocol):
    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        """One score a request, in order."""
        ...
