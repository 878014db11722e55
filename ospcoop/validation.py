"""How well prompts tell held-out photos from their own backgrounds: what an epoch may be chosen by.

The held-out photos are train photos that the run does not see, so no test set takes part in the choice.
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor

from db.progress import Progress
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import TrainingSet
from ospcoop.detectors.base import ImageFeatures, Resources
from ospcoop.detectors.mcm import GlMcm
from ospcoop.features import FeatureCache
from ospcoop.metrics import auroc


class EpochMetrics(Protocol):
    """Metrics of the prompts after an epoch. The epoch with the highest ``best`` is chosen, the first of equals."""

    best: str

    def __call__(self, text: Tensor) -> dict[str, float]:
        """By name, of the prompts' text features ``[C, D]``."""
        ...


class HeldOut:
    """GL-MCM's AUROC of held-out photos against the backgrounds made of them."""

    best = "held_out_auroc"

    def __init__(
        self, data: TrainingSet, encoder: VisionLanguageModel, cache: FeatureCache, progress: Progress
    ) -> None:
        self._scale = encoder.logit_scale
        self._features = {
            kind: cache.ensure([one.image for one in data.held_out if one.kind == kind], progress=progress)
            for kind in ("id", "background")
        }

    def __call__(self, text: Tensor) -> dict[str, float]:
        """See :class:`EpochMetrics`."""
        detector = GlMcm(Resources(text, logit_scale=self._scale))

        def scores(kind: str) -> list[float]:
            parts = (
                detector.score(ImageFeatures(part.whole.to(text.device), part.local.to(text.device)))
                for part in self._features[kind].batches()
            )
            return [score for part in parts for score in part.tolist()]

        return {self.best: auroc(scores("id"), scores("background"))}
