"""CLIP's image preprocessing: bicubic resize of the short side, centre crop, RGB, mean and deviation.

Built without a model, so an evaluation that reads cached features never loads one for its transform.
"""

from __future__ import annotations

import numpy as np
import torch
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def resize_and_crop(image: np.ndarray, size: int = 224) -> np.ndarray:
    """``size x size x 3 uint8 RGB``: the short side resized to ``size`` (Pillow bicubic), then the centre.

    ``image`` is ``HxWx3`` (RGB) or ``HxW`` (grey) uint8; a grey image is resized as grey, then copied to
    three channels. The long side is ``int(size * long / short)`` and the crop starts at the rounded half
    of what is left, as in torchvision. ValueError for another shape or dtype.
    """
    if image.dtype != np.uint8 or not (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)):
        raise ValueError(f"Expected an HxWx3 or HxW uint8 image, got {image.dtype} {image.shape}.")
    picture = Image.fromarray(image)
    width, height = picture.size
    short = min(width, height)
    if short != size:
        width, height = int(size * width / short), int(size * height / short)
        picture = picture.resize((width, height), Image.Resampling.BICUBIC)
    left, top = round((width - size) / 2), round((height - size) / 2)
    return np.asarray(picture.crop((left, top, left + size, top + size)).convert("RGB"))


def to_tensor(image: np.ndarray) -> Tensor:
    """``HxWx3 uint8`` to ``[3, H, W]`` float32 in 0..1, *not* normalised."""
    return torch.from_numpy(np.array(image, copy=True)).permute(2, 0, 1).contiguous().float().div(255)


def normalise(pixels: Tensor) -> Tensor:
    """``[..., 3, H, W]`` in 0..1 to the network's input: minus CLIP's mean, over its standard deviation."""
    mean = torch.tensor(CLIP_MEAN, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
    std = torch.tensor(CLIP_STD, dtype=pixels.dtype, device=pixels.device).view(3, 1, 1)
    return (pixels - mean) / std
