"""CLIP through open_clip, with the published *local* features, for ViT-B/16, ViT-B/32 and RN50.

Local features (GL-MCM and LoCoOp; OSPCoOp uses the same) replace the last block's attention by its value
path. With ``X`` the tokens entering that block, ``W_v, b_v`` the last third of its packed in-projection and
``W_o, b_o`` its out-projection::

    U     = X + (LN1(X) W_v^T + b_v) W_o^T + b_o
    V     = U + MLP(LN2(U))
    local = LN_post(V)[patch tokens] @ proj

For the ResNet, ``local_ij = c_proj(v_proj(x_ij))`` on the last feature map: no position, no mean token. The
model's own forward parts are called one by one; nothing of open_clip is copied or patched.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.model import CLIP, build_model_from_openai_state_dict
from open_clip.modified_resnet import ModifiedResNet
from open_clip.tokenizer import SimpleTokenizer
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor

from ospcoop.clip.prefix_tower import PrefixTower
from ospcoop.clip.preprocess import normalise, resize_and_crop, to_tensor
from ospcoop.clip.weights import read_state_dict

IMAGE_CHUNK = 64
TEXT_CHUNK = 256


def value_path(block: ResidualAttentionBlock, tokens: Tensor) -> Tensor:
    """``V`` of the module's equations for tokens ``[N, T, W]`` entering ``block``: its attention as identity."""
    _, _, weight = block.attn.in_proj_weight.chunk(3)
    _, _, bias = block.attn.in_proj_bias.chunk(3)
    value = F.linear(F.linear(block.ln_1(tokens), weight, bias), block.attn.out_proj.weight, block.attn.out_proj.bias)
    mixed = tokens + block.ls_1(value)
    return mixed + block.ls_2(block.mlp(block.ln_2(mixed)))


def tokens_before_last_block(visual: VisionTransformer, pixels: Tensor) -> Tensor:
    """``X`` of the module's equations, ``[N, 1 + P, W]``, for network inputs ``[N, 3, S, S]``."""
    tokens = visual._embeds(pixels)
    for block in visual.transformer.resblocks[:-1]:
        tokens = block(tokens)
    return tokens


def _vit_features(visual: VisionTransformer, pixels: Tensor) -> tuple[Tensor, Tensor]:
    tokens = tokens_before_last_block(visual, pixels)
    last = visual.transformer.resblocks[-1]
    whole = visual.ln_post(last(tokens)[:, 0]) @ visual.proj
    local = visual.ln_post(value_path(last, tokens)[:, 1:]) @ visual.proj
    return whole, local


def _resnet_features(visual: ModifiedResNet, pixels: Tensor) -> tuple[Tensor, Tensor]:
    maps = visual.layer4(visual.layer3(visual.layer2(visual.layer1(visual.stem(pixels)))))
    pool = visual.attnpool
    return pool(maps), pool.c_proj(pool.v_proj(maps.flatten(2).transpose(1, 2)))


class OpenClipModel:
    """A frozen CLIP in float32, fitting :class:`~ospcoop.clip.protocol.VisionLanguageModel`.

    ``state_dict`` is in OpenAI key naming (open_clip's own naming for these models is the same); the sizes
    are read off it. ``quick_gelu`` must be True for OpenAI's weights and for those trained from them.
    ValueError when keys or shapes are not a CLIP's. Features are un-normalised.
    """

    grade = "paper"

    def __init__(
        self,
        state_dict: Mapping[str, Tensor],
        *,
        quick_gelu: bool = True,
        device: torch.device | str = "cpu",
        source: str = "state dict",
    ) -> None:
        weights = dict(state_dict)
        try:
            model = build_model_from_openai_state_dict(dict(weights), quick_gelu=quick_gelu, cast_dtype=torch.float32)
            # The builder rounds to half precision on its way; weights that never were half are loaded anew.
            model.float().load_state_dict(weights)
        except (KeyError, RuntimeError, ZeroDivisionError, AssertionError) as error:
            raise ValueError(f"{source} does not hold the weights of a CLIP: {error}") from error
        # The activation is no weight, and yet decides every feature: caches and runs tell the two apart by the name.
        self.name = "openclip" if quick_gelu else "openclip-gelu"
        self.model: CLIP = model.eval().requires_grad_(False).to(device)
        self.source = source
        self.device = torch.device(device)
        self.image_size: int = int(np.max(model.visual.image_size))
        self.context_length: int = model.context_length
        self.feature_dim: int = model.text_projection.shape[1]
        self.token_dim: int = model.token_embedding.weight.shape[1]
        self.text_layers: int = len(model.transformer.resblocks)
        side = self.image_size // (32 if self._is_resnet else model.visual.patch_size[0])
        self.local_grid = (side, side)
        self._tokenizer = SimpleTokenizer(context_length=model.context_length)

    @classmethod
    def from_file(
        cls, path: Path | str, *, quick_gelu: bool = True, device: torch.device | str = "cpu"
    ) -> OpenClipModel:
        """From a local OpenAI ``.pt``, ``.safetensors`` or open_clip state dict; see :mod:`ospcoop.clip.weights`."""
        return cls(read_state_dict(path), quick_gelu=quick_gelu, device=device, source=Path(path).name)

    @property
    def _is_resnet(self) -> bool:
        return isinstance(self.model.visual, ModifiedResNet)

    @cached_property
    def logit_scale(self) -> float:
        """``exp`` of the stored parameter; 100 for OpenAI's weights."""
        return float(self.model.logit_scale.exp())

    @cached_property
    def weights_sha256(self) -> dict[str, str]:
        """One SHA-256 over every tensor (name, shape, float32 bytes, names in order), whatever file it came from."""
        digest = hashlib.sha256()
        for key, value in sorted(self.model.state_dict().items()):
            array = value.detach().cpu().numpy()
            digest.update(f"{key} {array.dtype} {array.shape}\n".encode())
            digest.update(array.tobytes())
        return {"state_dict": digest.hexdigest()}

    def preprocess(self, image: np.ndarray) -> Tensor:
        """``HxWx3`` (or grey ``HxW``) uint8 of any size to ``[3, S, S]`` float32 on the CPU."""
        return normalise(to_tensor(resize_and_crop(image, self.image_size)))

    @torch.no_grad()
    def encode_image(self, images: Sequence[np.ndarray] | Tensor) -> tuple[Tensor, Tensor]:
        """Global ``[N, D]`` and local ``[N, P, D]`` features, on the model's device.

        ``images`` are ``HxWx3 uint8`` arrays or preprocessed ``[N, 3, S, S]``; 64 at a time go through.
        """
        features = _resnet_features if self._is_resnet else _vit_features
        parts = []
        for start in range(0, len(images), IMAGE_CHUNK):
            chunk = images[start : start + IMAGE_CHUNK]
            pixels = chunk if isinstance(chunk, Tensor) else torch.stack([self.preprocess(image) for image in chunk])
            parts.append(features(self.model.visual, pixels.to(self.device)))
        if not parts:
            places = self.local_grid[0] * self.local_grid[1]
            empty = torch.empty(0, places, self.feature_dim, device=self.device)
            return empty[:, 0], empty
        whole, local = zip(*parts, strict=True)
        return torch.cat(whole), torch.cat(local)

    def tokenize(self, texts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """BPE ids and mask, both ``[N, L]`` int64, ``L`` the longest text; 0 after the end token.

        ValueError, naming the text, when one is longer than the context (77): nothing is cut silently.
        """
        rows = [[self._tokenizer.sot_token_id, *self._tokenizer.encode(text)] for text in texts]
        length = max((len(row) + 1 for row in rows), default=0)
        ids = torch.zeros(len(rows), length, dtype=torch.int64)
        mask = torch.zeros_like(ids)
        for index, row in enumerate(rows):
            if len(row) + 1 > self.context_length:
                raise ValueError(f"{texts[index]!r} has {len(row) + 1} tokens; {self.context_length} are possible.")
            ids[index, : len(row) + 1] = torch.tensor([*row, self._tokenizer.eot_token_id])
            mask[index, : len(row) + 1] = 1
        return ids.to(self.device), mask.to(self.device)

    def embed_tokens(self, token_ids: Tensor) -> Tensor:
        """Word embeddings ``[N, L, W]`` of token ids ``[N, L]``, without positions."""
        return self.model.token_embedding(token_ids.to(self.device))

    def encode_token_embeddings(self, embeddings: Tensor, attention_mask: Tensor) -> Tensor:
        """Text features ``[N, D]`` of word embeddings ``[N, L, W]``, taken at each row's end token.

        ``attention_mask [N, L]`` is 1 up to and with the end token. Columns after the longest row are dropped:
        the causal mask keeps them from mattering, so the result is exact. Differentiable in ``embeddings``.
        """
        attention_mask = attention_mask.to(embeddings.device)
        end = attention_mask.sum(1) - 1
        length = int(attention_mask.sum(1).max()) if len(attention_mask) else 0
        hidden = embeddings[:, :length] + self.model.positional_embedding[:length]
        hidden = self.model.transformer(hidden, attn_mask=self.model.attn_mask[:length, :length])
        hidden = self.model.ln_final(hidden)
        return hidden[torch.arange(len(hidden), device=hidden.device), end] @ self.model.text_projection

    def prefix_tower(self) -> PrefixTower:
        """See :mod:`ospcoop.clip.prefix_tower`."""
        return PrefixTower(self.model)

    @torch.no_grad()
    def encode_text(self, texts: Sequence[str]) -> Tensor:
        """Text features ``[N, D]``, 256 texts at a time."""
        parts = [torch.empty(0, self.feature_dim, device=self.device)]
        for start in range(0, len(texts), TEXT_CHUNK):
            ids, mask = self.tokenize(texts[start : start + TEXT_CHUNK])
            parts.append(self.encode_token_embeddings(self.embed_tokens(ids), mask))
        return torch.cat(parts)
