"""A CLIP of random weights, small enough for a test: open_clip's own classes, OpenAI's key names."""

from __future__ import annotations

import torch
from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg
from torch import Tensor


def tiny_state_dict(*, resnet: bool = False) -> dict[str, Tensor]:
    """A ViT/32 of width 64 and depth 3 (or a ResNet of width 2), a text tower of width 64, depth 2; features of 32."""
    torch.manual_seed(0)
    vision = (
        CLIPVisionCfg(layers=(1, 1, 1, 1), width=2, image_size=224)
        if resnet
        else CLIPVisionCfg(layers=3, width=64, patch_size=32, image_size=224)
    )
    text = CLIPTextCfg(context_length=77, vocab_size=49408, width=64, heads=1, layers=2)
    state = CLIP(32, vision, text, quick_gelu=True).state_dict()
    # Biases start at zero; noise keeps a forgotten one from passing unseen.
    noisy = {key: value + 0.02 * torch.rand_like(value) for key, value in state.items() if value.ndim}
    return {key: noisy.get(key, value).clone() for key, value in state.items()}
