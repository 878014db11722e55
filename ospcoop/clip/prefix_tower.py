"""A causal text tower for prompts that begin alike: the common beginning goes through it once.

Behind a causal mask a token sees itself and what stands before it. A prefix that all prompts share (the start
token and the context vectors) therefore has the same hidden states in every prompt: each block's keys and values
of it are computed once and attended by the tokens that follow. With ``q`` a following token's query, ``k_p, v_p``
the prefix and ``k, v`` the prompt's own tokens up to it::

    attention = softmax([q k_p^T ; q k^T] / sqrt(d)) [v_p ; v]

which is what the whole prompt would give, to the rounding of its sums. The modules are open_clip's own, called
part by part; nothing is copied or patched.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor


class PrefixTower:
    """The text tower of an open_clip ``CLIP``; follows the model's device and dtype. Differentiable in its inputs."""

    def __init__(self, model: CLIP) -> None:
        self._model = model
        self._blocks: list[ResidualAttentionBlock] = list(model.transformer.resblocks)

    def prefix(self, embeddings: Tensor) -> Tensor:
        """Keys and values ``[layers, 2, heads, m, d]`` of the ``m`` shared tokens, from their embeddings ``[m, W]``."""
        hidden = embeddings[None] + self._model.positional_embedding[: len(embeddings)]
        states = []
        for block in self._blocks:
            query, key, value = _project(block, block.ln_1(hidden))
            states.append(torch.stack([key[0], value[0]]))
            if block is not self._blocks[-1]:
                mixed = F.scaled_dot_product_attention(query, key, value, is_causal=True)
                hidden = _finish(block, hidden, mixed)
        return torch.stack(states)

    def encode(self, prefix: Tensor, embeddings: Tensor, end: Tensor) -> Tensor:
        """Text features ``[N, D]`` of the prompts made of the prefix and, behind it, ``embeddings [N, L, W]``.

        ``end [N]`` int64 is where in ``L`` each prompt has its end token; what stands behind it does not matter.
        """
        model, length, start = self._model, embeddings.shape[1], prefix.shape[3]
        rows = torch.arange(len(embeddings), device=embeddings.device)
        hidden = embeddings + model.positional_embedding[start : start + length]
        above = torch.full((length, length), -math.inf, dtype=hidden.dtype, device=hidden.device).triu(1)
        for block, (shared_key, shared_value) in zip(self._blocks[:-1], prefix[:-1], strict=True):
            query, key, value = _project(block, block.ln_1(hidden))
            hidden = _finish(block, hidden, _attend(query, key, value, shared_key, shared_value, above))
        # Only the end tokens leave the last block, so only they ask in it.
        block, (shared_key, shared_value) = self._blocks[-1], prefix[-1]
        query, key, value = _project(block, block.ln_1(hidden))
        query, above = query[rows, :, end].unsqueeze(2), above[end][:, None, None]
        mixed = _attend(query, key, value, shared_key, shared_value, above)
        hidden = _finish(block, hidden[rows, end].unsqueeze(1), mixed)
        return model.ln_final(hidden[:, 0]) @ model.text_projection


def _project(block: ResidualAttentionBlock, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values ``[N, heads, L, d]`` of the block's normalised input ``[N, L, W]``."""
    packed = F.linear(normed, block.attn.in_proj_weight, block.attn.in_proj_bias)
    count, length, _ = normed.shape
    query, key, value = packed.view(count, length, 3, block.attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    return query, key, value


def _attend(
    query: Tensor, key: Tensor, value: Tensor, shared_key: Tensor, shared_value: Tensor, above: Tensor
) -> Tensor:
    """``[N, heads, Q, d]``. The prefix ``[heads, m, d]`` is met in one product over all prompts, never repeated."""
    count, heads, queries, size = query.shape
    shared = shared_key.shape[1]
    query = query * size**-0.5
    flat = query.transpose(0, 1).reshape(heads, count * queries, size)
    to_shared = (flat @ shared_key.transpose(1, 2)).view(heads, count, queries, shared).transpose(0, 1)
    to_own = query @ key.transpose(2, 3) + above
    weight = torch.cat([to_shared, to_own], dim=-1).softmax(dim=-1)
    from_shared, from_own = weight.split([shared, key.shape[2]], dim=-1)
    flat = from_shared.transpose(0, 1).reshape(heads, count * queries, shared)
    mixed = (flat.to(shared_value.dtype) @ shared_value).view(heads, count, queries, size).transpose(0, 1)
    return mixed + from_own.to(value.dtype) @ value


def _finish(block: ResidualAttentionBlock, hidden: Tensor, mixed: Tensor) -> Tensor:
    """The block's output ``[N, Q, W]``: attention ``mixed [N, heads, Q, d]`` projected, both residuals, the MLP."""
    hidden = hidden + block.ls_1(block.attn.out_proj(mixed.transpose(1, 2).flatten(2)))
    return hidden + block.ls_2(block.mlp(block.ln_2(hidden)))
