"""What happens to one composite of an ID augmentation: load, compose, compare, score, write."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from db.models import Kind
from db.workspace import Workspace
from generation.artifacts import pixels_sha256
from generation.id_aug import on_background
from generation.protocols import Scorer
from generation.pseudo_ood.committing import CommonSteps, TrainingWork
from generation.pseudo_ood.id_aug_options import IdAugOptions
from generation.pseudo_ood.id_aug_pool import Ground
from generation.pseudo_ood.models import Similarity
from generation.steps import guarded
from generation.streaming import Stage

SIMILARITY_DECIMALS = 4


def generator(seed: int, option: int, repeat: int, attempt: int, photo_sha256: str) -> np.random.Generator:
    """The random draws of one try, which depend on nothing else."""
    return np.random.default_rng([seed, option, repeat, attempt, int(photo_sha256, 16)])


@dataclass
class Try(TrainingWork):
    """One composite of one image. ``known`` was kept by an earlier run; ``rejected`` is too unlike the photo."""

    ground: Ground | None = None
    known: bool = False
    rejected: bool = False

    @property
    def open(self) -> bool:
        return super().open and not (self.rejected or self.known)


class IdAugSteps(CommonSteps):
    def __init__(self, workspace: Workspace, options: IdAugOptions, similarity: Similarity, scorer: Scorer) -> None:
        super().__init__(workspace, Kind.ID_AUG, scorer)
        self._options = options
        self._similarity = similarity
        self._photo_features: dict[str, np.ndarray] = {}

    def stages(self) -> list[Stage[Try]]:
        workers = max(2, min(8, os.cpu_count() or 2))
        return [
            Stage("load", guarded("load", self.load), workers=workers),
            Stage("compose", guarded("compose", self.compose), workers=workers),
            Stage("compare", guarded("compare", self.compare), batch=32),
            Stage("score", guarded("score", self.score), batch=8),
            Stage("write", guarded("write", self.write), workers=workers),
        ]

    def compose(self, items: list[Try]) -> None:
        for item in items:
            (one,) = item.variants
            ground = item.ground.pixels if item.ground else self._noise(item, one.details)
            one.result = on_background(item.raw, item.mask, ground)
            one.replaced = 255 - item.mask
            one.key = self.variant_key(item, ground=pixels_sha256(ground))

    def _noise(self, item: Try, details: dict) -> np.ndarray:
        rng = generator(self._options.seed, details["option"], details["repeat"], details["try"], item.source.sha256)
        return rng.integers(0, 256, item.raw.shape, dtype=np.uint8)

    def compare(self, items: list[Try]) -> None:
        """Reject what is too unlike its photo. Each photo's own features are computed once a run."""
        missing = {item.raw_sha256: item.raw for item in items if item.raw_sha256 not in self._photo_features}
        images = [*missing.values(), *(item.variants[0].result for item in items)]
        features = self._similarity.features(images)
        self._photo_features.update(zip(missing, features, strict=False))
        for item, made in zip(items, features[len(missing) :], strict=True):
            similarity = round(float(self._photo_features[item.raw_sha256] @ made), SIMILARITY_DECIMALS)
            item.variants[0].details["similarity"] = similarity
            item.rejected = not similarity >= self._options.min_similarity  # so that nan is rejected
