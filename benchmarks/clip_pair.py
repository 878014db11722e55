"""The CPU's part of the generation benchmark: scoring one pair with CLIP ViT-B/16, our way and the published way."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.published_clip import PublishedClip
from benchmarks.report import print_table
from generation.classes import load_imagenet_classes
from generation.protocols import ScoreRequest
from generation.scoring.clip import ClipScorer
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.scores import class_text_features

LOGIT_TOLERANCE = 1e-3  # of logits at scale 100, in float32
SCORE_REPEATS = 10

Result = TypeVar("Result")


@dataclass(frozen=True)
class Cost:
    """Seconds by the clock, and of CPU time, which other programs on the machine disturb less."""

    wall: float
    cpu: float

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.wall + other.wall, self.cpu + other.cpu)

    def __truediv__(self, parts: int) -> Cost:
        return Cost(self.wall / parts, self.cpu / parts)


def cost_of(run: Callable[[], Result], repeats: int = 1) -> tuple[Cost, Result]:
    """What ``repeats`` calls cost together, and the last one's result."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(repeats):
        result = run()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu), result


@dataclass(frozen=True)
class ClipFigures:
    """The cost of scoring one pair (source, candidate), of the class prompts' features once, and the agreement."""

    ours: Cost
    published: Cost
    text: Cost
    difference: float

    @property
    def wall_speedup(self) -> float:
        return self.published.wall / self.ours.wall

    @property
    def cpu_speedup(self) -> float:
        return self.published.cpu / self.ours.cpu

    @property
    def speedup(self) -> float:
        """The smaller of the two: on a machine that others use, either may be out by chance."""
        return min(self.wall_speedup, self.cpu_speedup)

    @property
    def pairs_to_pay(self) -> int:
        """After how many pairs the time for the text features is saved again."""
        return math.ceil(self.text.wall / (self.published.wall - self.ours.wall))


def compare_clip(weights: Path, cache_dir: Path) -> ClipFigures:
    """Score one pair our way and the published way on the CPU. AssertionError when the logits are not the same."""
    cpu = torch.device("cpu")
    names = load_imagenet_classes().names
    source, candidate = np.random.default_rng(0).integers(0, 256, (2, 224, 224, 3), dtype=np.uint8)
    pair = ScoreRequest(source, candidate, class_index=1)

    model = OpenClipModel.from_file(weights)
    text_cost, text = cost_of(lambda: class_text_features(model, names))
    scorer = ClipScorer(weights, cache_dir=cache_dir, device=cpu)
    published = PublishedClip(weights, names, cpu)

    scorer.score([pair])
    # Half of our runs before the published way's and half after it: a neighbour that comes or goes meets both.
    before, _ = cost_of(lambda: scorer.score([pair]), SCORE_REPEATS)
    published_cost, theirs = cost_of(lambda: [published.logits(image)[0] for image in (source, candidate)])
    after, (score,) = cost_of(lambda: scorer.score([pair]), SCORE_REPEATS)

    ours = model.logit_scale * F.normalize(model.encode_image([source, candidate])[0], dim=-1) @ text.T
    of_class = torch.tensor([score.logit_source, score.logit_candidate])
    theirs = torch.stack(theirs)
    difference = max(float((theirs - ours).abs().max()), float((theirs[:, pair.class_index] - of_class).abs().max()))
    assert difference < LOGIT_TOLERANCE, f"The two ways differ by {difference} in a logit."
    return ClipFigures((before + after) / (2 * SCORE_REPEATS), published_cost, text_cost, difference)


def print_clip(figures: ClipFigures) -> None:
    costs = [
        ("this tool: text features kept, both images in one forward pass", figures.ours),
        ("published: one image at a time, the text tower for each", figures.published),
        ("this tool, once: text features of 1000 classes", figures.text),
    ]
    print("\nCLIP score of a pair (source, candidate), 1000 classes, float32, CPU\n")
    print_table(("way", "s", "s of CPU time"), [(name, cost.wall, cost.cpu) for name, cost in costs])
    print(f"\n{figures.wall_speedup:.0f} times faster by the clock, {figures.cpu_speedup:.0f} times by CPU time;")
    print(f"largest difference of a logit {figures.difference:.1e};")
    print(f"the text features are paid for after {figures.pairs_to_pay} pair(s).")
