"""Cached features through detectors: what every image of a set scores, and what class it is taken for."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from db.progress import NoProgress, Progress
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import ClassNames
from ospcoop.detectors import DETECTORS, Detector, Resources
from ospcoop.detectors.base import ImageFeatures
from ospcoop.evaluation.negatives import find_negatives
from ospcoop.evaluation.request import NEED_LABELS, EvaluationRequest
from ospcoop.evaluation.scores_file import ImageScores
from ospcoop.evaluation.sets import ImageSet
from ospcoop.feature_shards import FeatureSet
from ospcoop.features import FeatureCache
from ospcoop.prompt_learner import cosine_logits

BATCH = 4096
LOCAL_BATCH = 256


@dataclass
class SetFeatures:
    """The features of whole sets, computed when first asked for. ``local``: with those of patches."""

    cache: FeatureCache
    local: bool
    progress: Progress
    _found: dict[tuple[str, str], FeatureSet] = field(default_factory=dict)

    def images(self, images: ImageSet) -> FeatureSet:
        return self._ensure(images, "image")

    def photos(self, images: ImageSet) -> FeatureSet:
        """Of the photos that the set's candidates were made of."""
        return self._ensure(images, "partner")

    def _ensure(self, images: ImageSet, part: str) -> FeatureSet:
        key = (images.name, part)
        if key not in self._found:
            refs = [getattr(one, part) for one in images.images]
            self._found[key] = self.cache.ensure(refs, local=self.local, progress=self.progress)
        return self._found[key]


class Classifier:
    """What class each image of a set is taken for, by prompts alone: once for all detectors on them.

    ``text [C, D]`` are ``classes``' text features, ``scale`` the model's logit scale.
    """

    def __init__(self, features: SetFeatures, text: Tensor, scale: float, classes: ClassNames) -> None:
        self._features, self._text, self._scale = features, text, scale
        self._indices = np.array(classes.indices)
        self._done: dict[str, tuple[np.ndarray, np.ndarray]] = {}

    @torch.no_grad()
    def predictions(self, images: ImageSet) -> tuple[np.ndarray, np.ndarray]:
        """Class indices ``[N]`` and the largest softmax of the logits ``[N]``."""
        if images.name not in self._done:
            features = self._features.images(images)
            predicted, confidence = [], []
            for part in FeatureSet(features.whole, None).batches(BATCH):
                logits = cosine_logits(part.whole.to(self._text.device), self._text, self._scale)
                best = logits.softmax(dim=-1).max(dim=-1)
                predicted.append(self._indices[best.indices.cpu().numpy()])
                confidence.append(best.values.cpu().numpy())
            self._done[images.name] = np.concatenate(predicted), np.concatenate(confidence)
        return self._done[images.name]


class Scorer:
    """One detector on one set of prompts; each set goes through it once."""

    def __init__(self, features: SetFeatures, detector: Detector, classifier: Classifier, device: torch.device) -> None:
        self._features, self._detector, self._classifier, self._device = features, detector, classifier, device
        self._done: dict[str, ImageScores] = {}

    def scores(self, images: ImageSet) -> ImageScores:
        """Raises :class:`db.progress.Cancelled`, and what computing the features raises."""
        if images.name not in self._done:
            score = self._score(self._features.images(images))
            photo = self._score(self._features.photos(images)) if images.images[0].partner is not None else None
            self._done[images.name] = ImageScores(images, *self._classifier.predictions(images), score, photo)
        return self._done[images.name]

    def _score(self, features: FeatureSet) -> np.ndarray:
        return score_features(self._detector, features, self._device, self._features.progress)


def build_detector(
    name: str, request: EvaluationRequest, encoder: VisionLanguageModel, classes: ClassNames, text: Tensor
) -> Detector:
    """The detector on these text features ``[C, D]``, with negative labels where it needs them."""
    if name not in NEED_LABELS:
        return DETECTORS[name](Resources(text, encoder.logit_scale), **request.detector_options(name))
    found = find_negatives(name, Path(request.labels), classes.names, encoder.encode_text)
    resources = Resources(
        text,
        encoder.logit_scale,
        classes.names,
        found.features.to(text.device),
        found.names,
        encoder.encode_text,
    )
    return DETECTORS[name](resources, groups=found.groups, **request.detector_options(name))


@torch.no_grad()
def score_features(
    detector: Detector,
    features: FeatureSet,
    device: torch.device | str = "cpu",
    progress: Progress | None = None,
) -> np.ndarray:
    """``[N]`` float32, higher = more OOD, of features as they lie in the cache; patches only if they are looked at."""
    progress = progress or NoProgress()
    parts, size = (features, LOCAL_BATCH) if detector.needs_local else (FeatureSet(features.whole, None), BATCH)
    scores = [np.empty(0, np.float32)]
    for number, part in enumerate(parts.batches(size)):
        progress.update(number * size, len(features), f"Scoring images by {detector.name}")
        local = None if part.local is None else part.local.to(device)
        scores.append(detector.score(ImageFeatures(part.whole.to(device), local)).float().cpu().numpy())
    return np.concatenate(scores)
