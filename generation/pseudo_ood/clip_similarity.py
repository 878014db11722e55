"""How alike two images are to CLIP: the published measure of an ID augmentation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from generation.checkpoints import find_checkpoint
from generation.devices import exact_float32, pick_device, run_in_batches
from generation.weights import WrongWeights
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.preprocess import normalise, resize_and_crop, to_tensor


class ClipSimilarity:
    """CLIP's global image features, in float32.

    As published its input is the pixels in 0..1, without CLIP's mean and deviation: that moves the cosine and so
    which composites pass the published 0.7. ``normalise`` feeds it properly instead. ``variant`` and
    ``weights`` as in :class:`generation.scoring.clip.ClipScorer`, with its errors.
    """

    def __init__(
        self,
        weights: Path | str | None = None,
        *,
        variant: str = "clip_vit_b_16",
        normalise: bool = False,
        batch_size: int = 64,
        device: torch.device | str = "auto",
    ) -> None:
        self._normalise = normalise
        self._batch_size = batch_size
        self._checkpoint = find_checkpoint(variant, weights)
        try:
            self._model = OpenClipModel.from_file(self._checkpoint.path, device=pick_device(device))
        except ValueError as error:
            raise WrongWeights(f"{self._checkpoint.path} is not CLIP's weights: {error}") from error

    def fingerprint(self) -> dict[str, object]:
        return {
            "name": "clip",
            "grade": "paper",
            "input": "normalised" if self._normalise else "0..1, as published",
            "image_size": self._model.image_size,
            "weights_sha256": {"clip": self._checkpoint.sha256},
        }

    def features(self, images: Sequence[np.ndarray]) -> np.ndarray:
        return np.stack(run_in_batches(self._encode, images, self._batch_size, on_oom=self._shrink, what="images"))

    def _shrink(self, batch_size: int) -> None:
        self._batch_size = batch_size

    @torch.inference_mode()
    def _encode(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        with exact_float32():
            features, _ = self._model.encode_image(torch.stack([self._input(image) for image in images]))
        return list(F.normalize(features, dim=-1).cpu().numpy())

    def _input(self, image: np.ndarray) -> Tensor:
        pixels = to_tensor(resize_and_crop(image, self._model.image_size))
        return normalise(pixels) if self._normalise else pixels
