"""OSPCoOp's training loss (CVPR 2025) and the rule that picks the patches it looks at.

With ``C`` classes, label ``C`` = pseudo-OOD, ``p`` a softmax over classes and ``e = 1e-5``::

    loss_id  = mean cross entropy over label < C
    loss_ood = mean over label == C   of sum_c p log(p + e)       (global logits)
    loss_en  = mean over the selected patches of the batch of sum_c p log(p + e)     (local logits)
    total    = [loss_id] + 1.5 loss_en + [0.5 loss_ood]

A bracketed term is left out of the sum, never computed, when the batch has no such sample.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

LOG_GUARD = 1e-5
OBJECT = 255
OBJECT_PIXELS = 100


@dataclass(frozen=True)
class LossParts:
    """One batch's loss and its parts, all 0-d tensors on the logits' device; None = no such sample or term.

    ``accuracy`` is top-1 over the ID samples in per cent, 0 to 100. ``loss_en`` is 0, without a gradient, when
    no patch is selected.
    """

    total: Tensor
    loss_id: Tensor | None
    loss_ood: Tensor | None
    loss_en: Tensor | None
    accuracy: Tensor | None

    def as_numbers(self) -> dict[str, float]:
        """The parts that are there, by name ("loss", "loss_id", ...); waits for the device."""
        named = {
            "loss": self.total,
            "loss_id": self.loss_id,
            "loss_ood": self.loss_ood,
            "loss_en": self.loss_en,
            "accuracy": self.accuracy,
        }
        return {name: value.item() for name, value in named.items() if value is not None}


def select_patches(mask: Tensor, is_ood: Tensor, patches: int, *, object_pixels: int = OBJECT_PIXELS) -> Tensor:
    """Which patches the local entropy is taken over: bool ``[B, P]``, row by row, on the mask's device.

    ``mask`` is ``[B, S, S]`` uint8 with 255 = object, ``is_ood`` bool ``[B]``. A patch, ``S / sqrt(P)`` pixels
    wide, is left out when *more than* ``object_pixels`` of its pixels are 255, unless the sample is OOD: all
    of an OOD sample's patches are selected. The published 100 holds for 16- and 32-pixel patches alike.
    ValueError when the patches do not tile the mask.
    """
    grid = math.isqrt(patches)
    side = mask.shape[-1]
    if mask.ndim != 3 or mask.shape[1] != side or grid * grid != patches or patches < 1 or side % grid:
        raise ValueError(f"{patches} patches do not tile a mask of shape {tuple(mask.shape)}.")
    size = side // grid
    counts = (mask == OBJECT).reshape(-1, grid, size, grid, size).sum((2, 4)).flatten(1)
    return (counts <= object_pixels) | is_ood.to(mask.device)[:, None]


def negative_entropy(logits: Tensor) -> Tensor:
    """``sum_c p log(p + 1e-5)`` over the last axis of ``[..., C]`` logits: 0 when certain, ``-log C`` when flat."""
    probability = logits.softmax(dim=-1)
    return (probability * torch.log(probability + LOG_GUARD)).sum(dim=-1)


def ospcoop_loss(
    logits: Tensor,
    logits_local: Tensor,
    label: Tensor,
    selected: Tensor,
    *,
    loss1: float = 1.5,
    loss2: float = 0.5,
) -> LossParts:
    """The batch's loss. ``logits [B, C]``, ``logits_local [B, P, C]``, ``label [B]`` int64 in 0..C.

    ``selected`` is bool ``[B, P]`` of :func:`select_patches`; ``loss1`` weighs the local and ``loss2`` the
    global entropy. Works on any device; ValueError for an empty batch or a label outside 0..C.
    """
    chosen = logits_local[selected.to(logits.device)]
    return ospcoop_loss_of_chosen(logits, chosen, label, loss1=loss1, loss2=loss2)


def ospcoop_loss_of_chosen(
    logits: Tensor, chosen: Tensor, label: Tensor, *, loss1: float = 1.5, loss2: float = 0.5
) -> LossParts:
    """:func:`ospcoop_loss` given the local logits of the selected patches alone, ``chosen [S, C]`` in any order.

    Those of the other patches then need not be computed.
    """
    classes = logits.shape[-1]
    label = label.to(logits.device)
    if not len(label):
        raise ValueError("The batch is empty.")
    if bool((label < 0).any()) or bool((label > classes).any()):
        raise ValueError(f"Labels run from 0 to {classes} ({classes} = pseudo-OOD); the batch has others.")
    inside, outside = label < classes, label == classes

    loss_id = loss_ood = accuracy = None
    loss_en = mean_negative_entropy(chosen)
    total = loss1 * loss_en
    if bool(inside.any()):
        loss_id, accuracy = classification_loss(logits[inside], label[inside])
        total = loss_id + total
    if bool(outside.any()):
        loss_ood = negative_entropy(logits[outside]).mean()
        total = total + loss2 * loss_ood
    return LossParts(total, loss_id, loss_ood, loss_en, accuracy)


def mean_negative_entropy(logits: Tensor) -> Tensor:
    """The mean of :func:`negative_entropy` over ``[N, C]`` logits; 0, without a gradient, when there are none."""
    return negative_entropy(logits).mean() if len(logits) else logits.new_zeros(())


def classification_loss(logits: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross entropy, and top-1 accuracy in per cent, of ``[N, C]`` logits with labels in 0..C-1."""
    accuracy = 100 * (logits.argmax(dim=-1) == label).float().mean()
    return F.cross_entropy(logits, label), accuracy
