"""How alike two images are to the embedded image tower."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from ospcoop.clip.efficientnet import file_sha256, load_efficientnet_lite0, to_input, weights_path


class EmbeddedSimilarity:
    """EfficientNet-Lite0's pooled features, the embedded dual encoder's image tower, with its own preprocessing."""

    def __init__(self) -> None:
        self._network = load_efficientnet_lite0()

    def fingerprint(self) -> dict[str, object]:
        path = weights_path()
        return {"name": "embedded_dual", "grade": "embedded", "weights_sha256": {path.name: file_sha256(path)}}

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        pooled = [self._network.features(to_input(image)).pooled for image in images]
        return F.normalize(torch.stack(pooled), dim=-1).numpy()
