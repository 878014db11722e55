"""The published optimiser and its learning rate in closed form."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import nn
from torch.optim import SGD

BASE_LR = 0.002
WARMUP_LR = 1e-5
MOMENTUM = 0.9
WEIGHT_DECAY = 5e-4


def learning_rate(
    epoch: int,
    max_epoch: int,
    *,
    base: float = BASE_LR,
    warmup: float = WARMUP_LR,
    warmup_epochs: int = 1,
) -> float:
    """The learning rate of ``epoch`` (0-based): ``warmup`` first, then half a cosine from ``base``.

    ``base / 2 * (1 + cos(pi (epoch - warmup_epochs) / max_epoch))`` after the warm-up: the cosine starts after
    the warm-up but is as long as the whole training, so it never reaches 0 (7.9e-6 in the last of 50 epochs).
    Equals the scheduler of CoOp's Dassl. ValueError when ``epoch`` is outside ``0..max_epoch - 1``.
    """
    if not 0 <= epoch < max_epoch:
        raise ValueError(f"Epochs run from 0 to {max_epoch - 1}, got {epoch}.")
    if epoch < warmup_epochs:
        return warmup
    return base / 2 * (1 + math.cos(math.pi * (epoch - warmup_epochs) / max_epoch))


def make_optimizer(
    parameters: Iterable[nn.Parameter],
    lr: float = BASE_LR,
    *,
    momentum: float = MOMENTUM,
    weight_decay: float = WEIGHT_DECAY,
) -> SGD:
    """``v = 0.9 v + (g + 5e-4 w); w -= lr v``: SGD with momentum, no dampening, no Nesterov."""
    return SGD(parameters, lr=lr, momentum=momentum, weight_decay=weight_decay)


def set_learning_rate(optimizer: SGD, lr: float) -> None:
    """Give every parameter group of ``optimizer`` the learning rate ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr
