"""How the published trainer takes one step (trainers/ospcoop.py and custom_clip.py of OSPCoOp, Dassl's loop around it).

Written from reading those, on open_clip's modules. Each step encodes the batch's images, encodes every class's
prompt at all 77 tokens, computes the "value path" in *every* block of both towers, and compares every patch with
every class. Left out, to its benefit: decoding each image twice, and the second, discarded transform.

With 1,000 classes the backward pass would keep some 50 GB. Where that is too much, the classes go through in pieces:
each piece runs forward once more before its backward, and that extra forward is *not* counted.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.clip_pair import Cost, Result, cost_of
from benchmarks.published_clip import block_and_value_path
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.losses import LossParts, ospcoop_loss
from ospcoop.prompt_learner import PLACEHOLDER


@dataclass(frozen=True)
class PublishedStep:
    """What a step cost, by part, and what it gave: the loss and the context's gradient ``[n_ctx, W]``."""

    costs: dict[str, Cost]
    parts: LossParts
    gradient: Tensor

    @property
    def cost(self) -> Cost:
        return sum(self.costs.values(), Cost(0.0, 0.0))


class PublishedTrainer:
    """The published way from the context ``[n_ctx, W]``; ``at_once`` is how many classes are a piece (None: all)."""

    def __init__(
        self, model: OpenClipModel, class_names: Sequence[str], context: Tensor, *, at_once: int | None = None
    ) -> None:
        self._clip, self._device = model.model, model.device
        self._context = context.detach().clone().requires_grad_()
        self._at_once = at_once or len(class_names)
        words = " ".join([PLACEHOLDER] * len(context))
        ids, mask = model.tokenize([f"{words} {name.replace('_', ' ')}." for name in class_names])
        ids = F.pad(ids, (0, model.context_length - ids.shape[1]))
        embedded = model.embed_tokens(ids)
        self._prefix, self._suffix = embedded[:, :1], embedded[:, 1 + len(context) :]
        self._end = mask.sum(1) - 1

    def step(self, pixels: Tensor, label: Tensor, selected: Tensor) -> PublishedStep:
        """One step on network inputs ``[B, 3, S, S]``, their labels and selected patches."""
        costs: dict[str, Cost] = {}

        def timed(part: str, run: Callable[[], Result]) -> Result:
            spent, result = cost_of(lambda: self._finished(run()))
            costs[part] = costs.get(part, Cost(0.0, 0.0)) + spent
            return result

        self._context.grad = None
        whole, local = timed("image tower", lambda: self._image_tower(pixels.to(self._device)))
        pieces = torch.arange(len(self._end), device=self._device).split(self._at_once)
        kept = [timed("text tower forward", lambda piece=piece: self._text_tower(piece)) for piece in pieces[:1]]
        features = [kept[0].detach()]
        for piece in pieces[1:]:
            features.append(timed("text tower forward", lambda piece=piece: self._text_tower(piece)).detach())
        text = torch.cat(features).requires_grad_()

        def loss() -> LossParts:
            scale = self._clip.logit_scale.exp()
            unit = F.normalize(text, dim=-1)
            logits, logits_local = (scale * F.normalize(part, dim=-1) @ unit.T for part in (whole, local))
            parts = ospcoop_loss(logits, logits_local, label.to(self._device), selected)
            parts.total.backward()
            return parts

        parts = timed("losses and their backward", loss)
        for number, (piece, gradient) in enumerate(zip(pieces, text.grad.split(self._at_once), strict=True)):
            again = kept.pop() if number == 0 else self._text_tower(piece)
            timed("text tower backward", lambda again=again, gradient=gradient: again.backward(gradient))
        return PublishedStep(costs, parts, self._context.grad.clone())

    def _finished(self, result: Result) -> Result:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        return result

    def _text_tower(self, classes: Tensor) -> Tensor:
        context = self._context.expand(len(classes), -1, -1)
        tokens = torch.cat([self._prefix[classes], context, self._suffix[classes]], dim=1)
        tokens = tokens + self._clip.positional_embedding
        for block in self._clip.transformer.resblocks:
            tokens, _ = block_and_value_path(block, tokens, self._clip.attn_mask)
        ends = self._clip.ln_final(tokens)[torch.arange(len(classes), device=self._device), self._end[classes]]
        return ends @ self._clip.text_projection

    def _image_tower(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        visual = self._clip.visual
        tokens = visual._embeds(pixels)
        for block in visual.transformer.resblocks:
            tokens, values = block_and_value_path(block, tokens, None)
        return visual.ln_post(tokens[:, 0]) @ visual.proj, visual.ln_post(values)[:, 1:] @ visual.proj
