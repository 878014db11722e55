"""losses and trajectory: the loss, its gradients, and twenty steps of training."""

from __future__ import annotations

import math
import re

import numpy as np
import torch

from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.preprocess import normalise, to_tensor
from ospcoop.conformance.vectors import Vectors
from ospcoop.losses import LossParts, ospcoop_loss, select_patches
from ospcoop.objectives import Batch
from ospcoop.options import TrainingOptions
from ospcoop.schedule import BASE_LR, learning_rate
from ospcoop.trainer import PromptTrainer

LOSS_CASES = ("mixed", "only_ood", "only_id", "none_selected", "mixed_peaked", "mixed_L49")
SCHEDULED_EPOCHS = 4
PUBLISHED_EPOCHS = (50, 20)


def check_losses(vectors: Vectors) -> None:
    """Loss parts, gradients of the total and selected patches (losses.npz)."""
    for case in vectors.cases(".output", LOSS_CASES):
        with vectors.case(case):
            _check_loss(vectors, case)


def _check_loss(vectors: Vectors, case: str) -> None:
    logits = torch.from_numpy(vectors.input(f"{case}.output")).requires_grad_()
    local = torch.from_numpy(vectors.input(f"{case}.output_local")).requires_grad_()
    label = torch.from_numpy(vectors.input(f"{case}.label"))
    mask = torch.from_numpy(vectors.input(f"{case}.mask"))
    selected = select_patches(mask, label == logits.shape[1], local.shape[1])
    vectors.check(f"{case}.selected", selected)
    parts = ospcoop_loss(logits, local, label, selected)
    parts.total.backward()
    for name, value in _named(parts).items():
        if value is not None:
            vectors.check(f"{case}.{name}", value, rel=1e-5)
        elif f"{case}.{name}" in vectors:
            raise ValueError(f"{name} is expected, but the batch has no sample for it")
    zeros = [torch.zeros_like(leaf) if leaf.grad is None else leaf.grad for leaf in (logits, local)]
    vectors.check(f"{case}.grad_output", zeros[0], abs=1e-6)
    vectors.check(f"{case}.grad_output_local", zeros[1], abs=1e-7)


def _named(parts: LossParts) -> dict[str, torch.Tensor | None]:
    return {
        "loss_id": parts.loss_id,
        "loss_ood": parts.loss_ood,
        "loss_en": parts.loss_en,
        "loss": parts.total,
        "acc": parts.accuracy,
    }


def check_trajectory(vectors: Vectors, model: OpenClipModel) -> None:
    """Training runs with a constant and a scheduled learning rate, and the schedule alone (trajectory.npz)."""
    with vectors.case("training"):
        batches = vectors.input("batches")
        per_epoch = math.ceil(len(batches) / SCHEDULED_EPOCHS)
        pixels = normalise(torch.stack([to_tensor(image) for image in vectors.input("images_u8")]))
        whole, local = model.encode_image(pixels)
        data = whole, local, torch.from_numpy(vectors.input("label")), torch.from_numpy(vectors.input("mask"))
        steps = [torch.from_numpy(batch) for batch in batches]
        _check_domain(vectors)
        runs = {
            "const": [BASE_LR for _ in steps],
            "sched": [learning_rate(number // per_epoch, SCHEDULED_EPOCHS) for number in range(len(steps))],
        }
        for run, rates in runs.items():
            with vectors.case(run):
                _check_run(vectors, run, model, data, steps, rates)
    found = [int(match[1]) for name in vectors.names if (match := re.fullmatch(r"lr_per_epoch_(\d+)", name))]
    for epochs in dict.fromkeys([*found, *PUBLISHED_EPOCHS]):
        with vectors.case(f"lr_per_epoch_{epochs}"):
            rates = [learning_rate(epoch, epochs) for epoch in range(epochs)]
            vectors.check(f"lr_per_epoch_{epochs}", rates, rel=1e-9)


def _check_domain(vectors: Vectors) -> None:
    """The stored domain code repeats what labels and masks say: 2 background, 1 ID with a mask, 0 without."""
    label, mask = vectors.input("label"), vectors.input("mask").reshape(len(vectors.input("label")), -1)
    background = label == len(vectors.input("classnames"))
    vectors.check("domain", np.where(background, 2, np.where((mask == 255).all(1), 0, 1)))


def _check_run(
    vectors: Vectors,
    run: str,
    model: OpenClipModel,
    data: tuple[torch.Tensor, ...],
    steps: list[torch.Tensor],
    rates: list[float],
) -> None:
    whole, local, label, mask = data
    start = torch.from_numpy(vectors.input("ctx_init"))
    names = vectors.strings("classnames")
    trainer = PromptTrainer(model, names, TrainingOptions(n_ctx=len(start)))
    with torch.no_grad():
        trainer.context.copy_(start)
    losses, grads, deltas = [], [], []
    first = start
    for number, (batch, rate) in enumerate(zip(steps, rates, strict=True)):
        selected = select_patches(mask[batch], label[batch] == len(names), local.shape[1])
        parts = trainer.step(Batch(whole[batch], label[batch], local[batch], selected), rate)
        order = (parts.total, parts.loss_id, parts.loss_ood, parts.loss_en, parts.accuracy)
        losses.append([math.nan if part is None else part.item() for part in order])
        grads.append(trainer.context.grad.norm().item())
        deltas.append((trainer.context.detach() - start).norm().item())
        if number == 0:
            first = trainer.context.detach().clone()
    vectors.check(f"{run}.lr", rates, rel=1e-9)
    vectors.check(f"{run}.losses", losses, rel=1e-4)
    vectors.check(f"{run}.ctx_grad_norm", grads, rel=1e-3)
    vectors.check(f"{run}.ctx_delta_norm", deltas, rel=1e-3)
    vectors.check(f"{run}.ctx_step1", first, abs=1e-6)
    final = trainer.context.detach()
    vectors.check(f"{run}.ctx_final", final, abs=1e-5)

    def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
        apart = float(np.linalg.norm(got - expected) / np.linalg.norm(expected - start.numpy()))
        return apart, apart < 1e-3, "distance over distance moved"

    vectors.check_with(f"{run}.ctx_final", final, "rel 0.001", judge)
