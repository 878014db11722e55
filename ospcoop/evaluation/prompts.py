"""The text side of what is compared: zero-shot prompts, or a run's learned context, over the same classes.

The classes are the ID set's, for every one compared. A context that all classes share fits any class, so a run
trained on some of them is evaluated on all, and the result says how many it was trained on.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor

from db.models import Run
from db.workspace import Workspace
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.clip.scores import DROP_TEMPLATE, class_text_features
from ospcoop.data import ClassNames
from ospcoop.evaluation.request import EvaluationError
from ospcoop.prompts import TrainedPrompt, load_prompt

ZERO_SHOT = "zero-shot"


@dataclass(frozen=True, eq=False)
class Prompts:
    """Zero-shot prompts (``run`` None), or the chosen epoch of a run."""

    run: Run | None = None
    trained: TrainedPrompt | None = None

    @property
    def name(self) -> str:
        return ZERO_SHOT if self.run is None else self.run.name

    def facts(self, classes: ClassNames) -> dict:
        """What decides the text features besides the encoder, as JSON; ``classes`` those evaluated."""
        if self.trained is None:
            return {"prompt": DROP_TEMPLATE, "classes": classes.sha256}
        one = self.trained
        return {
            "context": one.facts["context_sha256"],
            "epoch": one.epoch,
            "class_position": one.class_position,
            "init_words": one.init_words,
            "as_published": one.as_published,
            "classes": classes.sha256,
            "trained_classes": len(set(one.classes.indices) & set(classes.indices)),
        }

    def text_features(self, model: VisionLanguageModel, classes: ClassNames) -> Tensor:
        """Text features ``[C, D]``. Raises :class:`EvaluationError` where a class has no context of its own."""
        if self.trained is None:
            return class_text_features(model, classes.names)
        return for_classes(self.trained, classes).text_features(model)


def for_classes(prompt: TrainedPrompt, classes: ClassNames) -> TrainedPrompt:
    """The same prompt over other classes. Raises :class:`EvaluationError` where it cannot be."""
    if prompt.context.ndim == 2:
        return replace(prompt, classes=classes)
    place = {index: row for row, index in enumerate(prompt.classes.indices)}
    missing = [name for index, name in zip(classes.indices, classes.names, strict=True) if index not in place]
    if missing:
        raise EvaluationError(
            f"Run {prompt.run} has a context for each class it was trained on, and none for {len(missing)} of the ID "
            f"set's, as {missing[0]}. Evaluate it on a set of its own classes."
        )
    return replace(prompt, classes=classes, context=prompt.context[[place[index] for index in classes.indices]])


def prompts_of(workspace: Workspace, run: Run) -> Prompts:
    """A run's chosen epoch. Raises :class:`EvaluationError` for a run that is not finished, and CheckpointError."""
    if run.chosen_epoch is None:
        raise EvaluationError(f"Run {run.name} is {run.state}: only a finished run has a chosen epoch.")
    return Prompts(run, load_prompt(workspace, run))
