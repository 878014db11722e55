"""NegRefine (Ansari et al., ICCV 2025): NegLabel, and a second look for images that hold an ID object *and* more.

For the image's ``k_pos`` nearest classes ``p`` and ``k_neg`` nearest negative labels ``n``, the text "p and n"
is held against ``n`` alone::

    multi = max_{p, n} sigmoid(100 cos(image, "p and n") - 100 cos(image, n))
    final = neglabel + 2 multi                                               (published: higher = ID)
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ospcoop.detectors.base import ImageFeatures, Resources
from ospcoop.detectors.labels import NOUN_TEMPLATES, label_features
from ospcoop.detectors.neglabel import GROUPS, SCALE, label_groups, neglabel_score

K_POS = 5
K_NEG = 5
MULTI_WEIGHT = 2.0


def nearest_labels(images: Tensor, labels: Tensor, k: int) -> Tensor:
    """The ``min(k, count)`` nearest labels of each image, nearest first: int64 ``[N, k]`` for unit features."""
    return (images @ labels.T).topk(min(k, len(labels)), dim=1).indices


def pair_texts(positives: Sequence[str], negatives: Sequence[str]) -> list[str]:
    """ "p and n" of every pair, ``p`` in the outer loop."""
    return [f"{positive} and {negative}" for positive in positives for negative in negatives]


def multi_matching_score(images: Tensor, pairs: Tensor, negatives: Tensor) -> Tensor:
    """``multi`` of the module's equations, ``[N]`` in 0..1, for unit features.

    ``images [N, D]``, ``negatives [N, k_neg, D]`` and ``pairs [N, k_pos * k_neg, D]``, ordered as
    :func:`pair_texts`.
    """
    with_pair = torch.einsum("nd,npd->np", images, pairs)
    alone = torch.einsum("nd,nkd->nk", images, negatives)
    alone = alone.repeat(1, pairs.shape[1] // negatives.shape[1])
    return torch.sigmoid(SCALE * with_pair - SCALE * alone).amax(dim=1)


class NegRefine:
    """The final NegRefine score, negated: **higher = more OOD** (-3..0).

    Pair texts are encoded once, however many images ask for them. ``score`` is therefore not safe to call from
    two threads at once.
    """

    name = "negrefine"
    needs_local = False

    def __init__(
        self,
        resources: Resources,
        *,
        groups: int = GROUPS,
        k_pos: int = K_POS,
        k_neg: int = K_NEG,
        templates: Sequence[str] = NOUN_TEMPLATES,
        as_published: bool = False,
    ) -> None:
        if resources.negative_features is None or resources.encode_text is None:
            raise ValueError("NegRefine needs negative labels and a text encoder.")
        if len(resources.class_names) != len(resources.class_features):
            raise ValueError("NegRefine needs the name of every class.")
        if len(resources.negative_names) != len(resources.negative_features):
            raise ValueError("NegRefine needs the name of every negative label.")
        self._resources = resources
        self._positives = F.normalize(resources.class_features, dim=-1)
        self._negatives = F.normalize(resources.negative_features, dim=-1)
        self._groups = label_groups(len(self._negatives), groups, as_published=as_published)
        self._templates = tuple(templates)
        self.k_pos, self.k_neg = k_pos, k_neg
        self._pairs: dict[str, Tensor] = {}

    def texts_of(self, images: Tensor) -> tuple[list[list[str]], Tensor]:
        """Each image's pair texts, and the indices ``[N, k_neg]`` of its negatives, for unit features."""
        nearest = nearest_labels(images, self._positives, self.k_pos)
        negatives = nearest_labels(images, self._negatives, self.k_neg)
        texts = [
            pair_texts(
                [self._resources.class_names[index] for index in row_pos],
                [self._resources.negative_names[index] for index in row_neg],
            )
            for row_pos, row_neg in zip(nearest.tolist(), negatives.tolist(), strict=True)
        ]
        return texts, negatives

    def pair_features(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """Unit features ``[N, pairs, D]`` of :meth:`texts_of`'s texts, from the cache where they are there."""
        new = sorted({text for row in texts for text in row} - self._pairs.keys())
        if new:
            features = label_features(self._resources.encode_text, new, self._templates)
            self._pairs.update(zip(new, features, strict=True))
        return torch.stack([torch.stack([self._pairs[text] for text in row]) for row in texts])

    def score(self, images: ImageFeatures) -> Tensor:
        """See :class:`~ospcoop.detectors.base.Detector`."""
        unit = F.normalize(images.whole, dim=-1)
        if not len(unit):
            return unit.new_empty(0)
        texts, negatives = self.texts_of(unit)
        multi = multi_matching_score(unit, self.pair_features(texts), self._negatives[negatives])
        return -(neglabel_score(unit, self._positives, self._negatives, self._groups) + MULTI_WEIGHT * multi)
