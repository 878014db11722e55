"""One training's moving parts: the context vectors, the optimiser, their random draws; a step, an epoch, a state.

Only the text tower runs in the chosen precision. Context, optimiser, logits and losses are float32: in half
precision a logit near 25 has a step of 1/64, and the published float16 context moves by less than its own rounding.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor

from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.losses import LossParts
from ospcoop.objectives import OBJECTIVES, Batch
from ospcoop.options import TrainingOptions
from ospcoop.prompt_learner import PromptLearner
from ospcoop.schedule import learning_rate, make_optimizer, set_learning_rate
from ospcoop.text_tower import PromptTower

MIB = 2**20
LOSS_SCALE = 1024.0
OnStep = Callable[[int, int, dict[str, float]], None]


class TrainingDiverged(ArithmeticError):
    """The loss is no number any more; the message says where and what to try."""


@dataclass(frozen=True)
class EpochReport:
    """What an epoch gave: mean losses over its steps by name, images seen and seconds taken."""

    epoch: int
    lr: float
    seconds: float
    images: int
    losses: dict[str, float]


class PromptTrainer:
    """Trains the prompts of ``class_names`` on a frozen ``model``, on the model's device.

    ``context`` starts from the options' seed. ``generator`` is where batches draw from; its state, the
    context's and the optimiser's are all that a training depends on beside its data (:meth:`state`).
    """

    def __init__(self, model: VisionLanguageModel, class_names: Sequence[str], options: TrainingOptions) -> None:
        self.options = options
        self.learner = PromptLearner(
            model,
            class_names,
            n_ctx=options.n_ctx,
            init_words=options.init_words,
            class_specific=options.class_specific,
            class_position=options.class_position,
            seed=options.seed,
            as_published=options.as_published,
        )
        self.device = self.learner.context.device
        self.generator = torch.Generator().manual_seed(options.seed)
        self._dtype = getattr(torch, options.precision)
        self._tower = PromptTower(model, self.learner, memory=options.text_memory * MIB)
        self._scale = model.logit_scale
        self._loss = OBJECTIVES[options.objective].make_loss(options, len(class_names))
        self._optimizer = make_optimizer(
            self.learner.parameters(), options.lr, momentum=options.momentum, weight_decay=options.weight_decay
        )
        # float16 gradients underflow unless the loss is scaled up on its way back; torch's own first scale is so
        # large that the first steps would overflow and be skipped.
        self._scaler = torch.amp.GradScaler(
            self.device.type, init_scale=LOSS_SCALE, enabled=self._dtype is torch.float16
        )

    @property
    def context(self) -> Tensor:
        return self.learner.context

    def text_features(self) -> Tensor:
        """Text features ``[C, D]`` float32 of the prompts as they are now."""
        with self._autocast():
            return self._tower().float()

    def step(self, batch: Batch, lr: float) -> LossParts:
        """One update of the context by one batch. Raises :class:`TrainingDiverged`; the context is then unchanged."""
        parts = self._loss(batch.to(self.device), self.text_features(), self._scale)
        if not math.isfinite(parts.total.item()):
            raise TrainingDiverged(f"The loss became {parts.total.item()} at learning rate {lr:g}; try a smaller one.")
        self._optimizer.zero_grad()
        self._scaler.scale(parts.total).backward()
        set_learning_rate(self._optimizer, lr)
        self._scaler.step(self._optimizer)
        self._scaler.update()
        return parts

    def run_epoch(self, epoch: int, batches: Iterable[Batch], on_step: OnStep) -> EpochReport:
        """All batches once, at the epoch's learning rate; ``on_step(step, images so far, losses)`` after each."""
        options = self.options
        lr = learning_rate(
            epoch,
            options.epochs,
            base=options.lr,
            warmup=options.warmup_lr,
            warmup_epochs=options.warmup_epochs,
        )
        started, images = time.perf_counter(), 0
        seen: defaultdict[str, list[float]] = defaultdict(list)
        for step, batch in enumerate(batches):
            losses = self.step(batch, lr).as_numbers()
            images += len(batch.label)
            for name, value in losses.items():
                seen[name].append(value)
            on_step(step, images, losses)
        means = {name: sum(values) / len(values) for name, values in seen.items()}
        return EpochReport(epoch, lr, time.perf_counter() - started, images, means)

    def state(self) -> dict[str, Tensor]:
        """Everything the next epoch depends on, as CPU tensors by name."""
        state = {"context": self.context.detach().cpu().clone(), "generator": self.generator.get_state()}
        momentum = self._optimizer.state[self.context].get("momentum_buffer")
        if momentum is not None:
            state["momentum"] = momentum.detach().cpu().clone()
        if self._scaler.is_enabled():
            scaler = self._scaler.state_dict()
            state["loss_scale"] = torch.tensor([scaler["scale"], scaler["_growth_tracker"]], dtype=torch.float64)
        return state

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what :meth:`state` gave. ValueError when the context is of another shape."""
        if state["context"].shape != self.context.shape:
            raise ValueError(
                f"The checkpoint's context is {tuple(state['context'].shape)}, this run's {tuple(self.context.shape)}."
            )
        with torch.no_grad():
            self.context.copy_(state["context"])
        self.generator.set_state(state["generator"])
        if "momentum" in state:
            self._optimizer.state[self.context]["momentum_buffer"] = state["momentum"].clone().to(self.device)
        if self._scaler.is_enabled():
            scale, growth = state["loss_scale"].tolist()
            self._scaler.load_state_dict({**self._scaler.state_dict(), "scale": scale, "_growth_tracker": int(growth)})

    def _autocast(self) -> AbstractContextManager:
        if self._dtype is torch.float32:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self._dtype)
