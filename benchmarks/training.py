"""OSPCoOp's training step beside the published way, in one run and to the same loss; then evaluation from the cache.

`uv run benchmarks/training.py [--device auto|cpu|cuda] [--steps N] [--small]`. ViT-B/16 of the real size with random
weights (`benchmarks/random_models.py`), 1,000 classes, batches of 32; the published way is
`benchmarks/published_training.py`. On a GPU an epoch is timed both ways; on a CPU it would take hours, so
`epoch_speedup` is null there. `--small` tries the command with a tiny model: its figures mean nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

if (os.cpu_count() or 1) <= 4:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the worker does
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import numpy as np
import torch
from torch import Tensor

from benchmarks.clip_pair import Cost, cost_of
from benchmarks.published_training import PublishedStep, PublishedTrainer
from benchmarks.random_models import save_clip
from benchmarks.report import machine, print_figures, print_table
from generation.classes import load_imagenet_classes
from generation.devices import pick_device
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.detectors.base import Resources
from ospcoop.detectors.mcm import GlMcm, Mcm
from ospcoop.evaluation.bootstrap import bootstrap_intervals
from ospcoop.evaluation.scoring import score_features
from ospcoop.feature_shards import FeatureSet, ShardIndex
from ospcoop.features import FeatureCache
from ospcoop.images import ImageRef
from ospcoop.losses import LossParts, select_patches
from ospcoop.objectives import Batch
from ospcoop.options import TrainingOptions
from ospcoop.trainer import PromptTrainer

LOSS_TOLERANCE = 1e-5
PIECE = 40  # classes at once, the published way on a CPU: 2 GB of its 50
EVALUATED = 90_000


@dataclass(frozen=True)
class Sizes:
    classes: int
    batch: int
    images: int
    evaluated: int
    at_once: int | None


@dataclass(frozen=True)
class StepFigures:
    """A step and an image's features our way, a step the published way, and how far the two agree."""

    ours: Cost
    published: PublishedStep
    features: Cost
    loss_difference: float
    gradient_difference: float

    @property
    def speedup(self) -> float:
        """By the clock or by CPU time, the smaller: on a machine that others use, either may be out by chance."""
        ours, published = self.ours, self.published.cost
        return min(published.wall / ours.wall, published.cpu / ours.cpu)


class Images:
    """Random pictures with an object in the middle; the second half of them is pseudo-OOD."""

    def __init__(self, model: OpenClipModel, sizes: Sizes, cache: FeatureCache) -> None:
        rng = np.random.default_rng(0)
        side = model.image_size
        self._model, self._batch = model, sizes.batch
        self._pixels = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(sizes.images)]
        refs = [ImageRef(hashlib.sha256(one).hexdigest(), lambda one=one: one) for one in self._pixels]
        self.cost, self.features = cost_of(lambda: cache.ensure(refs, flips=True))
        label = torch.from_numpy(rng.integers(0, sizes.classes, sizes.images))
        label[sizes.images // 2 :] = sizes.classes
        mask = torch.zeros(sizes.images, 224, 224, dtype=torch.uint8)
        mask[:, 40:180, 40:180] = 255
        patches = model.local_grid[0] * model.local_grid[1]
        self._label, self._selected = label, select_patches(mask, label == sizes.classes, patches)
        self._order = torch.from_numpy(rng.permutation(sizes.images))

    @property
    def steps(self) -> int:
        return len(self._pixels) // self._batch

    def _index(self, step: int) -> Tensor:
        return self._order[step * self._batch : (step + 1) * self._batch]

    def cached(self, step: int) -> Batch:
        index = self._index(step)
        found = self.features.take(index.numpy())
        return Batch(found.whole, self._label[index], found.local, self._selected[index])

    def pixels(self, step: int) -> tuple[Tensor, Tensor, Tensor]:
        """Network inputs, labels and patches, already in memory: what the published loader would have decoded."""
        index = self._index(step)
        pixels = torch.stack([self._model.preprocess(self._pixels[i]) for i in index])
        return pixels, self._label[index], self._selected[index]


def compare_steps(model: OpenClipModel, names: list[str], images: Images, sizes: Sizes, steps: int) -> StepFigures:
    """One published step, and ours from the same context and batch; then ours repeated."""
    trainer = PromptTrainer(model, names, TrainingOptions())
    published = PublishedTrainer(model, names, trainer.context, at_once=sizes.at_once)
    reference = published.step(*images.pixels(0))
    first = our_step(trainer, images, 0)
    gradient = trainer.context.grad.clone()
    spent, _ = cost_of(lambda: our_step(trainer, images, 0), repeats=steps)
    ours, wanted = first.as_numbers(), reference.parts.as_numbers()
    difference = max(abs(ours[name] - wanted[name]) for name in wanted)
    apart = float((gradient - reference.gradient).norm() / reference.gradient.norm())
    return StepFigures(spent / steps, reference, images.cost / (2 * len(images.features)), difference, apart)


def our_step(trainer: PromptTrainer, images: Images, step: int) -> LossParts:
    parts = trainer.step(images.cached(step), 0.002)
    if trainer.device.type == "cuda":
        torch.cuda.synchronize(trainer.device)
    return parts


def compare_epochs(model: OpenClipModel, names: list[str], images: Images, sizes: Sizes) -> tuple[Cost, Cost]:
    """An epoch over all images: ours from the cache, and the published way from pixels that are already decoded."""
    trainer = PromptTrainer(model, names, TrainingOptions())
    published = PublishedTrainer(model, names, trainer.context, at_once=sizes.at_once)
    batches = [images.pixels(step) for step in range(images.steps)]

    def published_epoch() -> None:
        for batch in batches:
            published.step(*batch)

    ours, _ = cost_of(lambda: [our_step(trainer, images, step) for step in range(images.steps)])
    return ours, cost_of(published_epoch)[0]


def cached_features(folder: Path, count: int, dim: int) -> FeatureSet:
    """Random global features of ``count`` images in shards, as an evaluation finds them."""
    index = ShardIndex(folder)
    rng = np.random.default_rng(1)
    keys = [f"{number:064x}" for number in range(count)]
    for start in range(0, count, 2048):
        part = keys[start : start + 2048]
        index.write(part, {"whole": rng.standard_normal((len(part), dim), dtype=np.float32)})
    return FeatureSet(index.rows(keys, "whole", (dim,), local=False), None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="auto, cpu or cuda")
    parser.add_argument("--steps", type=int, default=3, help="our steps to take the mean of")
    parser.add_argument("--small", action="store_true", help="a tiny model: a trial of the command")
    arguments = parser.parse_args()
    device = pick_device(arguments.device)
    on_gpu = device.type == "cuda"
    if arguments.small:
        sizes = Sizes(classes=60, batch=8, images=16, evaluated=3000, at_once=16)
    else:
        sizes = Sizes(1000, 32, 320 if on_gpu else 64, EVALUATED, None if on_gpu else PIECE)
    names = list(load_imagenet_classes().names[: sizes.classes])
    with tempfile.TemporaryDirectory(dir=".") as folder:
        root = Path(folder)
        model = OpenClipModel.from_file(_weights(root / "clip.pt", arguments.small), device=device)
        images = Images(model, sizes, FeatureCache(root, model))
        figures = compare_steps(model, names, images, sizes, arguments.steps)
        epochs = compare_epochs(model, names, images, sizes) if on_gpu or arguments.small else None
        evaluated = evaluate(root / "features", images, model, sizes)
    print(machine())
    print(f"{device.type}, {torch.get_num_threads()} threads; {sizes.classes} classes, batches of {sizes.batch}\n")
    print_steps(figures)
    print_epochs_and_evaluation(epochs, evaluated, sizes)
    print_figures(
        {
            "step_speedup": figures.speedup,
            "max_loss_diff": figures.loss_difference,
            "epoch_speedup": epochs[1].wall / epochs[0].wall if on_gpu and epochs else None,
            "reeval_s": evaluated.scores.cpu,
        }
    )
    if figures.loss_difference > LOSS_TOLERANCE:
        sys.exit(f"The losses differ by {figures.loss_difference:.2g}; {LOSS_TOLERANCE:g} is allowed.")


def _weights(path: Path, small: bool) -> Path:
    if small:
        from tests.tiny_models import tiny_clip

        return tiny_clip(path)
    return save_clip(path)


@dataclass(frozen=True)
class Evaluated:
    """A second detector's scores of all cached images, the intervals of all metrics, and GL-MCM of one image."""

    scores: Cost
    intervals: Cost
    local: Cost


def evaluate(folder: Path, images: Images, model: OpenClipModel, sizes: Sizes) -> Evaluated:
    """By the evaluation's own code: MCM by global features, and GL-MCM's cost an image, by a few."""
    features = cached_features(folder, sizes.evaluated, model.feature_dim)
    rng = torch.Generator().manual_seed(0)
    text = Resources(torch.randn(sizes.classes, model.feature_dim, generator=rng))
    score_features(Mcm(text), features)  # reads the files once, as a first detector
    cost, scores = cost_of(lambda: score_features(Mcm(text), features))
    local, _ = cost_of(lambda: score_features(GlMcm(text), images.features))
    half = len(scores) // 2
    intervals, _ = cost_of(lambda: bootstrap_intervals(scores[:half], scores[half:]))
    return Evaluated(cost, intervals, local / len(images.features))


def print_steps(figures: StepFigures) -> None:
    published = figures.published
    rows = [(f"published: {part}", cost.wall, cost.cpu) for part, cost in published.costs.items()]
    rows += [
        ("published: the step", published.cost.wall, published.cost.cpu),
        ("ours: the step", figures.ours.wall, figures.ours.cpu),
        ("ours: features of an image, once", figures.features.wall, figures.features.cpu),
    ]
    print_table(("seconds", "clock", "CPU"), rows)
    print(
        f"\nLargest difference of a loss {figures.loss_difference:.2g}, of the gradient (relative) "
        f"{figures.gradient_difference:.2g}; loss {published.parts.total.item():.6f}\n"
    )


def print_epochs_and_evaluation(epochs: tuple[Cost, Cost] | None, evaluated: Evaluated, sizes: Sizes) -> None:
    rows = []
    if epochs is not None:
        rows += [("epoch, ours", epochs[0].wall, epochs[0].cpu), ("epoch, published", epochs[1].wall, epochs[1].cpu)]
    figures = {
        f"a second detector (MCM), {sizes.evaluated} cached images": evaluated.scores,
        "intervals of their five metrics, 1,000 resamples": evaluated.intervals,
        "GL-MCM of one cached image (all its patches)": evaluated.local,
    }
    rows += [(name, cost.wall, cost.cpu) for name, cost in figures.items()]
    print_table(("seconds", "clock", "CPU"), rows)
    print()


if __name__ == "__main__":
    main()
