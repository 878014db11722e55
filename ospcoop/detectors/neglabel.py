"""NegLabel (Jiang et al., ICLR 2024): the image against ID classes and, in groups, against far-away labels.

With ``s = 100 cosine`` and ``G`` groups of ``m`` negative labels::

    score = mean_j  sum_pos e^s / (sum_pos e^s + sum_{group j} e^s)          (published: higher = ID)

Evaluated as ``sigmoid(logsumexp_pos - logsumexp_group)``: the published ``exp`` overflows float32 above a
cosine of 0.887.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ospcoop.detectors.base import ImageFeatures, Resources

SCALE = 100.0
GROUPS = 100
CHUNK = 1024


def group_permutation(count: int) -> Tensor:
    """The stored order of ``count`` labels: ``torch.randperm`` on the CPU with seed 0, int64 ``[count]``.

    Drawn from a generator of its own, so no global random state moves; the same on every device.
    """
    return torch.randperm(count, generator=torch.Generator().manual_seed(0))


def label_groups(count: int, groups: int, *, as_published: bool = False) -> Tensor:
    """Which negative labels form each group: int64 ``[groups, count // groups]``, no label twice.

    The ``count % groups`` labels that fit nowhere are random ones; ``as_published`` drops the *last* ones before
    the draw, which are always adjectives. Without a remainder both are the same. ValueError when a group
    would be empty.
    """
    if groups < 1 or count < groups:
        raise ValueError(f"{count} negative labels cannot fill {groups} groups.")
    used = count - count % groups
    order = group_permutation(used) if as_published else group_permutation(count)[:used]
    return order.view(groups, -1)


def neglabel_score(images: Tensor, positives: Tensor, negatives: Tensor, groups: Tensor) -> Tensor:
    """The published score ``[N]`` in 0..1, **higher = ID**, of unit features ``[N, D]``, ``[C, D]``, ``[K, D]``.

    ``groups`` as of :func:`label_groups`.
    """
    groups = groups.to(negatives.device)
    parts = [images.new_empty(0)]
    for chunk in images.split(CHUNK):
        positive = (SCALE * chunk @ positives.T).logsumexp(dim=1, keepdim=True)
        negative = (SCALE * chunk @ negatives.T)[:, groups].logsumexp(dim=2)
        parts.append(torch.sigmoid(positive - negative).mean(dim=1))
    return torch.cat(parts)


class NegLabel:
    """Grouped NegLabel; the negated published score, so **higher = more OOD** (-1..0)."""

    name = "neglabel"
    needs_local = False

    def __init__(self, resources: Resources, *, groups: int = GROUPS, as_published: bool = False) -> None:
        if resources.negative_features is None:
            raise ValueError("NegLabel needs negative labels.")
        self._positives = F.normalize(resources.class_features, dim=-1)
        self._negatives = F.normalize(resources.negative_features, dim=-1)
        self._groups = label_groups(len(self._negatives), groups, as_published=as_published)

    def score(self, images: ImageFeatures) -> Tensor:
        """See :class:`~ospcoop.detectors.base.Detector`."""
        return -neglabel_score(F.normalize(images.whole, dim=-1), self._positives, self._negatives, self._groups)


class Csp(NegLabel):
    """CSP (Chen et al., NeurIPS 2024): NegLabel's score, on labels whose adjectives describe a superclass."""

    name = "csp"
