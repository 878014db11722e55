"""Trained prompts as others use them: of a run and epoch, or of a published file that becomes a run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch
from sqlalchemy import select
from torch import Tensor

from db.models import Run, utcnow
from db.workspace import Workspace
from ospcoop.checkpoints import CheckpointError, read_checkpoint, read_published, write_checkpoint
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import ClassNames, read_classes
from ospcoop.options import OBJECTIVE_LABELS, Position, canonical_hash
from ospcoop.prompt_learner import PromptLearner
from ospcoop.runs import CONFIG_FORMAT, DONE, RUNS, RunError, check_name
from ospcoop.text_tower import prompt_features


@dataclass(frozen=True)
class TrainedPrompt:
    """Context vectors after one epoch (from 0), and the classes and layout they were trained with.

    ``context`` is ``[n_ctx, W]`` or ``[C, n_ctx, W]`` float32 on the CPU; ``facts`` is what the checkpoint says of
    itself. ``init_words`` matter for the words around the context, which are tokenised again.
    """

    run: str
    epoch: int
    context: Tensor
    classes: ClassNames
    class_position: Position
    init_words: str | None
    as_published: bool
    facts: dict

    @torch.no_grad()
    def text_features(self, model: VisionLanguageModel) -> Tensor:
        """Text features ``[C, D]`` of the prompts on ``model``. ValueError when the context does not fit it."""
        if self.context.shape[-1] != model.token_dim:
            raise ValueError(
                f"Run {self.run} was trained on an encoder with tokens of {self.context.shape[-1]} numbers, "
                f"not {model.token_dim}; choose the encoder it was trained on."
            )
        learner = PromptLearner(
            model,
            self.classes.names,
            n_ctx=self.context.shape[-2],
            init_words=self.init_words,
            class_specific=self.context.ndim == 3,
            class_position=self.class_position,
            as_published=self.as_published,
        )
        learner.context.copy_(self.context)
        return prompt_features(model, learner)


def load_prompt(workspace: Workspace, run: Run, epoch: int | None = None) -> TrainedPrompt:
    """The prompt of ``epoch``, by default the chosen one of a finished run and the newest of another.

    Raises :class:`ospcoop.checkpoints.CheckpointError`.
    """
    if epoch is None:
        epoch = run.epochs_done - 1 if run.chosen_epoch is None else run.chosen_epoch
    if epoch < 0:
        raise CheckpointError(f"Run {run.name} has not finished an epoch yet.")
    found = read_checkpoint(workspace.path(run.folder), epoch)
    options, classes = found.facts["config"]["options"], found.facts["classes"]
    return TrainedPrompt(
        run.name,
        epoch,
        found.tensors["context"],
        ClassNames(*(tuple(classes[name]) for name in ("indices", "wnids", "names"))),
        options["class_position"],
        options["init_words"],
        options["as_published"],
        found.facts,
    )


def import_published(
    workspace: Workspace,
    path: Path,
    encoder: str,
    *,
    objective: str = "ospcoop",
    class_position: Position = "end",
    init_words: str | None = None,
    name: str | None = None,
    created_by: str = "",
) -> Run:
    """A published ``.pth.tar`` over all classes of the class list, as a finished run.

    The file says neither its encoder nor its layout: they are the caller's. A "best" file was chosen on the test
    sets, and the run's config says so. Raises :class:`ospcoop.checkpoints.CheckpointError` and
    :class:`ospcoop.runs.RunError`.
    """
    if objective not in OBJECTIVE_LABELS:
        raise RunError(f"The objective is one of {', '.join(OBJECTIVE_LABELS)}, not {objective!r}.")
    found = read_published(path)
    with workspace.read() as session:
        classes = read_classes(session)
    if found.classes not in (None, len(classes)):
        raise CheckpointError(f"{path} was trained on {found.classes} classes; the class list has {len(classes)}.")
    options = {
        "objective": objective,
        "n_ctx": found.context.shape[-2],
        "init_words": init_words,
        "class_specific": found.context.ndim == 3,
        "class_position": class_position,
        "selection": "test" if found.is_best else "last",
        "as_published": True,
    }
    config = {
        "format": CONFIG_FORMAT,
        "options": options,
        "encoder": {"name": encoder, "weights": None},
        "imported": {"file": path.name, "sha256": found.sha256, "val_result": found.val_result},
    }
    epoch = max(0, found.epochs - 1)
    name = check_name(name or f"{objective}-imported-{found.sha256[:8]}")
    facts = {
        "run": name,
        "objective": objective,
        "config": config,
        "config_hash": canonical_hash(config),
        "classes": classes.facts(),
        "context_sha256": hashlib.sha256(found.context.numpy().tobytes()).hexdigest(),
        "metrics": {},
    }
    with workspace.write() as session:
        if session.scalar(select(Run.id).where(Run.name == name)) is not None:
            raise RunError(f"There is a run called {name} already; give the import another --name.")
        run = Run(
            name=name,
            objective=objective,
            encoder=encoder,
            seed=0,
            config=config,
            config_hash=facts["config_hash"],
            data={"class_list_sha256": classes.sha256, "classes": len(classes), "kinds": {}},
            folder=f"{RUNS}/{name}",
            state=DONE,
            epochs_done=epoch + 1,
            chosen_epoch=epoch,
            created_by=created_by,
            finished_at=utcnow(),
        )
        session.add(run)
        write_checkpoint(workspace.path(run.folder), epoch, {"context": found.context}, facts)
    return run
