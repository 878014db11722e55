"""The embedded scorer: the published drop on the embedded dual encoder, the residual on its classifier.

Masker and scorer share the image network here, so the scores are partly circular; every record says
``"grade": "embedded"``. Measured (docs/embedded.md): full removals drop by about 7, and the residual
goes best with what the eye says.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.classes import load_imagenet_classes
from generation.protocols import Score, ScoreRequest
from ospcoop.clip.embedded import PROMPT_TEMPLATE, EmbeddedDualEncoder


class EmbeddedDualScorer:
    """Scores on the 1000 ImageNet classes.

    ``logit_source`` and ``logit_candidate`` are ``34 * cosine`` of the image with "a photo of a {class}";
    ``residual``, ``rank``, ``probability`` and ``top5`` come from EfficientNet-Lite0's own 1000 logits on the
    candidate. The text features are computed once here; ``cache_dir`` keeps what is slow about them.
    Thread-safe; images are scored one by one, so a batch equals its images.
    """

    def __init__(self, *, cache_dir: Path | str | None = None) -> None:
        self._classes = load_imagenet_classes()
        self._encoder = EmbeddedDualEncoder(self._classes.names, cache_dir=Path(cache_dir) if cache_dir else None)
        self._text = self._encoder.class_features

    def fingerprint(self) -> dict[str, object]:
        return {
            "name": "embedded_dual",
            "grade": "embedded",
            "logit_scale": self._encoder.logit_scale,
            "prompt_template": PROMPT_TEMPLATE,
            "classes_sha256": self._classes.sha256,
            "weights_sha256": self._encoder.weights_sha256,
        }

    def score(self, requests: Sequence[ScoreRequest]) -> list[Score]:
        return [self._score(request) for request in requests]

    def _score(self, request: ScoreRequest) -> Score:
        index = request.class_index
        pooled = self._pooled(request.candidate)
        logits = self._encoder.image_tower.logits(pooled)
        return Score(
            logit_source=self._clip_logit(self._pooled(request.source), index),
            logit_candidate=self._clip_logit(pooled, index),
            residual=float(logits[index]),
            rank=int((logits > logits[index]).sum()) + 1,
            probability=float(logits.softmax(0)[index]),
            top5=tuple(logits.topk(5).indices.tolist()),
        )

    def _pooled(self, image: np.ndarray) -> Tensor:
        return self._encoder.image_tower.features(self._encoder.preprocess(image)).pooled

    def _clip_logit(self, pooled: Tensor, index: int) -> float:
        return self._encoder.logit_scale * float(torch.dot(F.normalize(pooled, dim=0), self._text[index]))
