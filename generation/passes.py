"""How a run uses the machine: at once or in passes, in what batches. Nothing here changes what comes out.

So none of it enters the recipe: the same recipe run in any of these ways makes the same bytes and rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from generation.backends import Backends, BackendsInTurn, Part
from generation.recipe import RecipeOptions
from generation.tuning import BatchKnob

# Without a GPU a batch gains nothing; where nothing is known of the backend, neither.
DEFAULT_BATCHES = {"mask": 8, "inpaint": 1, "score": 8}
# Measured on a simulated GPU (docs/generation.md): two batches in flight hide a model's work on the CPU, and a
# tenth of a second fills nearly every batch.
GPU_WORKERS = 2
FILL_SECONDS = 0.1
# What is tried out when photos keep their own size: ImageNet val's most frequent one.
NATIVE_SIZE = (375, 500)


class SettingsError(ValueError):
    """A setting of the run that cannot be meant; the message names it."""


@dataclass(frozen=True)
class RunSettings:
    """``low_memory``: only the models of one pass in memory, for cards of 12 GB. ``batch``: "auto", or one size
    for every model and stage. ``compiled``: models through torch.compile where it works."""

    low_memory: bool = False
    batch: int | Literal["auto"] = "auto"
    compiled: bool = False

    def __post_init__(self) -> None:
        whole = isinstance(self.batch, int) and not isinstance(self.batch, bool)
        if self.batch != "auto" and not (whole and self.batch >= 1):
            raise SettingsError(f"batch must be auto or a whole number from 1 up, not {self.batch!r}.")


@dataclass(frozen=True)
class Pass:
    """One way through the sources: the ``steps`` each takes (methods of :class:`~generation.steps.Steps`) and the
    ``parts`` that must be in memory. ``name`` is for people."""

    name: str
    parts: tuple[Part, ...]
    steps: tuple[str, ...]


WHOLE_RUN = Pass("", ("masker", "inpainter", "scorer"), ("decode", "mask", "inpaint", "score", "write"))


def plan_passes(options: RecipeOptions, backends: Backends | BackendsInTurn, *, low_memory: bool) -> tuple[Pass, ...]:
    """The passes of a run, in order.

    In a low-memory run each begins with what the one before left on disk: mask proposals, then candidate folders.
    A masker that looks again takes turns with the inpainter on each image, so they are in memory together. What
    detects residuals is needed only at the end, without what made the masks.
    """
    if not low_memory:
        return (WHOLE_RUN,)
    last = ("scorer", "detector") if backends.detects_residuals else ("scorer",)
    score = Pass("score", last, ("decode", "mask", "inpaint", "score", "write"))
    fill = ("decode", "mask", "inpaint", "keep")
    if options.second_look and backends.looks_again:
        return (Pass("mask and inpaint", ("masker", "inpainter"), fill), score)
    mask = Pass("mask", ("masker",), ("decode", "mask"))
    if backends.detects_residuals:
        return (mask, Pass("inpaint", ("inpainter",), fill), score)
    return (mask, Pass("inpaint and score", ("inpainter", "scorer"), score.steps))


@dataclass(frozen=True)
class StageSettings:
    """See :class:`~generation.streaming.Stage`."""

    batch: int
    workers: int = 1
    fill_seconds: float = 0.0


def stage_settings(knobs: Sequence[BatchKnob], batch: int | Literal["auto"]) -> dict[str, StageSettings]:
    """Batch, workers and patience of the stages that run models.

    A stage with a model on a GPU takes as many as the largest of its models' batches; the others keep the default.
    """
    settings = {}
    for stage, default in DEFAULT_BATCHES.items():
        sizes = [knob.size.now for knob in knobs if knob.on_gpu and stage in knob.stages]
        size = max(sizes, default=default) if batch == "auto" else batch
        settings[stage] = StageSettings(size, GPU_WORKERS, FILL_SECONDS) if sizes else StageSettings(size)
    return settings


def image_size(options: RecipeOptions) -> tuple[int, int]:
    """Height and width of the images to tune for."""
    return (224, 224) if options.resolution == "224" else NATIVE_SIZE
