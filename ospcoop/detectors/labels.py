"""Text features of labels under several templates, as NegLabel, CSP and NegRefine compute them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor

NOUN_TEMPLATES = (
    "a close-up photo of the nice {}.",
    "a photo with the nice {}.",
    "a good photo with the nice {}.",
    "a photo of the nice {}.",
    "{}",
    "the {}",
    "the good {}",
    "the nice {}",
)
ADJECTIVE_TEMPLATES = ("{}", "a nice photo of {}", "a good photo of {}", "a close-up photo of {}")


def mean_over_templates(features: Tensor) -> Tensor:
    """``[..., T, D]`` un-normalised prompt features to unit label features ``[..., D]``.

    The mean is taken *before* normalising, as published, so longer features weigh more.
    """
    return F.normalize(features.mean(dim=-2), dim=-1)


def label_features(
    encode_text: Callable[[Sequence[str]], Tensor], labels: Sequence[str], templates: Sequence[str] = NOUN_TEMPLATES
) -> Tensor:
    """Unit features ``[K, D]`` of ``K`` labels; ``encode_text`` sees ``K * T`` texts in one call."""
    texts = [template.format(label) for label in labels for template in templates]
    features = encode_text(texts)
    return mean_over_templates(features.view(len(labels), len(templates), features.shape[-1]))
