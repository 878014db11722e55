"""The models that training candidates need, one by one: no masker, and for id_aug no inpainter either.

The last one of each stays loaded, for the next job of the process.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np

from generation.protocols import Backend, Inpainter, Scorer
from generation.recipe import RecipeError
from generation.registry import BackendEntry, UnknownBackend, find_backend

_CLIP = "generation.pseudo_ood.clip_similarity:ClipSimilarity"


class Similarity(Backend, Protocol):
    """Global features of a vision-language model, to tell how alike two images are."""

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        """Unit vectors ``[N, D]`` float32 of ``HxWx3 uint8`` images; their dot products are cosines."""
        ...


SIMILARITIES: dict[str, BackendEntry] = {
    "embedded_dual": BackendEntry(
        "generation.pseudo_ood.embedded_similarity:EmbeddedSimilarity", "Embedded: EfficientNet-Lite0", "embedded"
    ),
    "clip": BackendEntry(_CLIP, "CLIP ViT-B/16, OpenAI weights (as published)", "paper"),
    "clip_b32": BackendEntry(_CLIP, "CLIP ViT-B/32", "paper", parameters={"variant": "clip_vit_b_32"}),
    "clip_rn50": BackendEntry(_CLIP, "CLIP RN50", "paper", parameters={"variant": "clip_rn50"}),
    "noop": BackendEntry(
        "generation.pseudo_ood.pixel_similarity:PixelSimilarity", "Coarse pixels (benchmarks)", "test"
    ),
}
"""By the name of the scorer whose image tower it is: a recipe's candidates are judged by one model throughout."""


@lru_cache(maxsize=1)
def load_inpainter(name: str) -> Inpainter:
    return find_backend("inpainter", name).load()


@lru_cache(maxsize=1)
def load_scorer(name: str, cache_dir: Path | None = None) -> Scorer:
    entry = find_backend("scorer", name)
    return entry.load(**({"cache_dir": cache_dir} if entry.keeps_cache and cache_dir else {}))


@lru_cache(maxsize=1)
def load_similarity(name: str, *, normalise: bool = False) -> Similarity:
    """``normalise`` matters to CLIP alone: whether it gets its mean and deviation, which the published script omits."""
    try:
        entry = SIMILARITIES[name]
    except KeyError:
        known = ", ".join(SIMILARITIES)
        raise UnknownBackend(f"There is no similarity called {name!r}. Choose one of: {known}.") from None
    if entry.target == _CLIP:
        return entry.load(normalise=normalise)
    if normalise:
        raise RecipeError(f"normalise is for CLIP; {name} has a preprocessing of its own.")
    return entry.load()
