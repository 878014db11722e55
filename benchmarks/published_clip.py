"""How the published script scores with CLIP (Inpainting/get_clip_score.py of OSPCoOp): the text tower, every time.

Written from reading that script and the CLIP beside it (clip_w_local, taken from LoCoOp), on open_clip's modules.
For each single image the text tower encodes all class prompts again, padded to 77 tokens. In *every* block of
both towers it computes, beside the block itself, a "value path" (query, key and value through the output
projection, the value through the MLP too), of which only the image tower's last is ever used. It also compares
every patch with every class and looks at none of it. That is the work done here, no more. The text tower's
attention goes through the same torch function as the script's: its mask is one of floats, so open_clip's
batch-first modules take no short cut with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import build_model_from_openai_state_dict
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.preprocess import normalise, resize_and_crop, to_tensor
from ospcoop.clip.scores import DROP_TEMPLATE
from ospcoop.clip.weights import read_state_dict


class PublishedClip:
    """CLIP weights (a ViT) and class prompts; keeps the prompts' word embeddings, as the script does.

    ``dtype`` float32, or float16 as the script has it on a GPU (it loads OpenAI's weights without ``.float()``).
    """

    def __init__(
        self, weights: Path, class_names: Sequence[str], device: torch.device, dtype: torch.dtype = torch.float32
    ) -> None:
        self._clip = _load(weights, dtype).requires_grad_(False).to(device)
        self._device, self._dtype = device, dtype
        tokenizer = SimpleTokenizer(context_length=self._clip.context_length)
        tokens = tokenizer([DROP_TEMPLATE.format(name.replace("_", " ")) for name in class_names]).to(device)
        self._end = tokens.argmax(dim=-1)
        self._prompts = self._clip.token_embedding(tokens).to(dtype)
        self._size = int(np.max(self._clip.visual.image_size))

    @torch.no_grad()
    def logits(self, image: np.ndarray) -> tuple[Tensor, Tensor]:
        """Logits ``[C]`` of one ``HxWx3 uint8`` image over all classes and ``[P, C]`` of its patches."""
        pixels = normalise(to_tensor(resize_and_crop(image, self._size)))[None].to(self._device, self._dtype)
        whole, local = self._image_tower(pixels)
        text = F.normalize(self._text_tower(), dim=-1)
        scale = self._clip.logit_scale.exp()
        return tuple((scale * F.normalize(features, dim=-1) @ text.t())[0] for features in (whole, local))

    def _text_tower(self) -> Tensor:
        tokens = self._prompts + self._clip.positional_embedding.to(self._dtype)
        for block in self._clip.transformer.resblocks:
            tokens, _ = block_and_value_path(block, tokens, self._clip.attn_mask.to(self._dtype))
        ends = self._clip.ln_final(tokens)[torch.arange(len(tokens), device=self._device), self._end]
        return ends @ self._clip.text_projection

    def _image_tower(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        visual = self._clip.visual
        tokens = visual._embeds(pixels)
        values = tokens
        for block in visual.transformer.resblocks:
            tokens, values = block_and_value_path(block, tokens, None)
        return visual.ln_post(tokens[:, 0]) @ visual.proj, visual.ln_post(values)[:, 1:] @ visual.proj


def _load(weights: Path, dtype: torch.dtype) -> nn.Module:
    if dtype is torch.float32:
        return OpenClipModel.from_file(weights).model
    return build_model_from_openai_state_dict(read_state_dict(weights), quick_gelu=True, cast_dtype=dtype)


def block_and_value_path(block: ResidualAttentionBlock, tokens: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
    """One block on tokens ``[N, T, W]``: what goes on to the next block, and its value path (same shape)."""
    packed = F.linear(block.ln_1(tokens), block.attn.in_proj_weight, block.attn.in_proj_bias)
    query, key, value = packed.chunk(3, dim=-1)
    together = F.linear(torch.cat([query, key, value]), block.attn.out_proj.weight, block.attn.out_proj.bias)
    value = together.chunk(3)[2] + tokens
    value = value + block.mlp(block.ln_2(value))
    return block(tokens, attn_mask=mask), value
