"""MCM (Ming et al., NeurIPS 2022) and GL-MCM (Miyai et al., IJCV 2025): how sure is the best class?

    MCM    = -max_c softmax(logits / 100 / T)
    GL-MCM = MCM + w * (-max_{patch, c} softmax_c(local logits / 100 / T)),   w = 0.5

Logits are ``logit_scale * cosine``. The divisor is the constant 100 of the published code, *not* the model's
own logit scale; for OpenAI's weights the two are the same. The local maximum is over all patches and classes,
whatever the global prediction. Both lie in -1 - w .. 0; float32 throughout (half precision makes ties).
"""

from __future__ import annotations

import torch
from torch import Tensor

from ospcoop.detectors.base import ImageFeatures, Resources
from ospcoop.prompt_learner import cosine_logits

PUBLISHED_SCALE = 100.0
LOCAL_WEIGHT = 0.5
LOCAL_CHUNK = 64


def mcm_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """MCM ``[...]`` of logits ``[..., C]``; higher = more OOD."""
    return -(logits.float() / PUBLISHED_SCALE / temperature).softmax(dim=-1).amax(dim=-1)


def glmcm_score(
    logits: Tensor, logits_local: Tensor, temperature: float = 1.0, local_weight: float = LOCAL_WEIGHT
) -> Tensor:
    """GL-MCM ``[N]`` of global ``[N, C]`` and local ``[N, P, C]`` logits; higher = more OOD."""
    return mcm_score(logits, temperature) + local_weight * mcm_score(logits_local, temperature).amin(dim=-1)


class Mcm:
    """MCM on cached features."""

    name = "mcm"
    needs_local = False

    def __init__(self, resources: Resources, *, temperature: float = 1.0) -> None:
        self._text, self._scale = resources.class_features, resources.logit_scale
        self.temperature = temperature

    def score(self, images: ImageFeatures) -> Tensor:
        """See :class:`~ospcoop.detectors.base.Detector`."""
        return mcm_score(cosine_logits(images.whole, self._text, self._scale), self.temperature)


class GlMcm:
    """GL-MCM on cached features; 64 images' patches at a time."""

    name = "gl-mcm"
    needs_local = True

    def __init__(self, resources: Resources, *, temperature: float = 1.0, local_weight: float = LOCAL_WEIGHT) -> None:
        self._text, self._scale = resources.class_features, resources.logit_scale
        self.temperature, self.local_weight = temperature, local_weight

    def score(self, images: ImageFeatures) -> Tensor:
        """See :class:`~ospcoop.detectors.base.Detector`; ValueError without local features."""
        if images.local is None:
            raise ValueError("GL-MCM needs the images' local features.")
        parts = [images.whole.new_empty(0)]
        for whole, local in zip(images.whole.split(LOCAL_CHUNK), images.local.split(LOCAL_CHUNK), strict=True):
            logits = [cosine_logits(features, self._text, self._scale) for features in (whole, local)]
            parts.append(glmcm_score(*logits, self.temperature, self.local_weight))
        return torch.cat(parts)
