"""Scores of an image pair: how far the true class's logit falls, and how alike two images are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ospcoop.clip.preprocess import to_tensor
from ospcoop.clip.protocol import VisionLanguageModel

DROP_TEMPLATE = "a photo of a {}"


def class_text_features(
    model: VisionLanguageModel, class_names: Sequence[str], template: str = DROP_TEMPLATE
) -> Tensor:
    """Unit text features ``[C, D]`` of the class prompts ("_" read as a blank); compute them once a run."""
    return F.normalize(model.encode_text([template.format(name.replace("_", " ")) for name in class_names]), dim=-1)


def class_drop(
    model: VisionLanguageModel,
    sources: Sequence[np.ndarray],
    candidates: Sequence[np.ndarray],
    class_index: Sequence[int],
    text_features: Tensor,
) -> np.ndarray:
    """``logit_source - logit_candidate`` of each pair's true class, ``[N]`` float64; larger = better removed.

    Logits are ``logit_scale * cosine`` in float32. ``text_features`` as of :func:`class_text_features`.
    """
    logits = []
    for images in (sources, candidates):
        features, _ = model.encode_image(images)
        cosine = F.normalize(features, dim=-1) @ text_features.T
        logits.append(model.logit_scale * cosine[torch.arange(len(cosine)), torch.as_tensor(class_index)])
    return (logits[0] - logits[1]).double().cpu().numpy()


def image_similarity(
    model: VisionLanguageModel, image: np.ndarray, other: np.ndarray, *, as_published: bool = False
) -> float:
    """Cosine of two images' global features, -1 to 1; the ID augmentation keeps composites at 0.7 and above.

    ``as_published`` feeds the pixels in 0..1 without the network's mean and deviation, as the reference does;
    that moves the cosine and so which composites pass. Both images are then of the network's size already.
    """
    pair = [to_tensor(one) if as_published else model.preprocess(one) for one in (image, other)]
    features, _ = model.encode_image(torch.stack(pair))
    return float(F.cosine_similarity(features[0], features[1], dim=0))
