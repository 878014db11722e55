"""What a detector takes and gives. **Higher = more OOD**, for every detector.

A detector is built once from :class:`Resources` (the text side, computed once) and then scores cached image
features: no image and no image tower is needed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True)
class ImageFeatures:
    """Features of ``N`` images: ``whole [N, D]`` and, for detectors that look at patches, ``local [N, P, D]``.

    Any length: detectors normalise. float32.
    """

    whole: Tensor
    local: Tensor | None = None


@dataclass(frozen=True)
class Resources:
    """The text side of one model and one ID set; what a detector does not use may be left out.

    ``class_features [C, D]`` are the ID classes' text features (of learned or fixed prompts) and
    ``negative_features [K, D]`` those of the mined labels, all on one device; ``encode_text`` gives ``[N, D]``.
    """

    class_features: Tensor
    logit_scale: float = 100.0
    class_names: tuple[str, ...] = ()
    negative_features: Tensor | None = None
    negative_names: tuple[str, ...] = ()
    encode_text: Callable[[Sequence[str]], Tensor] | None = None


class Detector(Protocol):
    """A scorer of images. ``needs_local`` says whether ``ImageFeatures.local`` must be there."""

    name: str
    needs_local: bool

    def score(self, images: ImageFeatures) -> Tensor:
        """``[N]`` float32 on the features' device, higher = more OOD; an image's score is its own alone."""
        ...
