"""What a training minimises: OSPCoOp, CoOp or LoCoOp, three losses of one loop.

An objective gets a batch's cached image features and the prompts' text features, and computes those logits that
its loss looks at.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ospcoop.losses import LossParts, classification_loss, mean_negative_entropy, ospcoop_loss_of_chosen
from ospcoop.options import TrainingOptions
from ospcoop.prompt_learner import cosine_logits

LOCOOP_SHARE = 5


@dataclass(frozen=True)
class Batch:
    """Features ``whole [B, D]``, ``local [B, P, D]``, ``label [B]`` int64 (C = pseudo-OOD), ``selected [B, P]`` bool.

    ``selected`` are the patches outside the labelled object (:func:`ospcoop.losses.select_patches`); objectives
    without a local term leave it and ``local`` None. All float32, on one device.
    """

    whole: Tensor
    label: Tensor
    local: Tensor | None = None
    selected: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        parts = (self.whole, self.label, self.local, self.selected)
        return Batch(*(None if part is None else part.to(device, non_blocking=True) for part in parts))


Loss = Callable[[Batch, Tensor, float], LossParts]


@dataclass(frozen=True)
class Objective:
    """``make_loss(options, classes)`` gives ``loss(batch, text features [C, D], logit scale)``."""

    needs_local: bool
    make_loss: Callable[[TrainingOptions, int], Loss]


def _ospcoop(options: TrainingOptions, classes: int) -> Loss:
    def loss(batch: Batch, text: Tensor, scale: float) -> LossParts:
        logits = cosine_logits(batch.whole, text, scale)
        chosen = cosine_logits(batch.local[batch.selected], text, scale)
        return ospcoop_loss_of_chosen(logits, chosen, batch.label, loss1=options.loss1, loss2=options.loss2)

    return loss


def _coop(options: TrainingOptions, classes: int) -> Loss:
    def loss(batch: Batch, text: Tensor, scale: float) -> LossParts:
        loss_id, accuracy = classification_loss(cosine_logits(batch.whole, text, scale), batch.label)
        return LossParts(loss_id, loss_id, None, None, accuracy)

    return loss


def _locoop(options: TrainingOptions, classes: int) -> Loss:
    rank = options.locoop_rank or max(1, classes // LOCOOP_SHARE)

    def loss(batch: Batch, text: Tensor, scale: float) -> LossParts:
        logits, local = (cosine_logits(part, text, scale) for part in (batch.whole, batch.local))
        return locoop_loss(logits, local, batch.label, weight=options.locoop_weight, rank=rank)

    return loss


def locoop_loss(
    logits: Tensor, logits_local: Tensor, label: Tensor, *, weight: float = 0.25, rank: int = 200
) -> LossParts:
    """LoCoOp's loss (Miyai, Yu, Irie, Aizawa, NeurIPS 2023) of a batch of ID images, ``logits_local [B, P, C]``.

    A patch is background when its image's class is not among its ``rank`` most probable ones. There the
    entropy is raised: ``total = cross entropy + weight * mean over such patches of sum_c p log(p + 1e-5)``.
    """
    loss_id, accuracy = classification_loss(logits, label)
    own = logits_local.gather(2, label[:, None, None].expand(-1, logits_local.shape[1], 1))
    background = (logits_local > own).sum(dim=2) >= rank
    loss_en = mean_negative_entropy(logits_local[background])
    return LossParts(loss_id + weight * loss_en, loss_id, None, loss_en, accuracy)


OBJECTIVES: dict[str, Objective] = {
    "ospcoop": Objective(True, _ospcoop),
    "coop": Objective(False, _coop),
    "locoop": Objective(True, _locoop),
}
