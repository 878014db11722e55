"""Runs in the database: planned, found again, followed epoch by epoch, ended. No torch.

A run is one configuration on one training set. What was begun and is planned again with the same configuration and
data goes on; a finished one is not trained twice; a name is never reused for something else.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import FewShotSet, Kind, Run, RunEpoch, utcnow
from db.queries import active_recipe
from db.training_queries import TrainingData, recipes_made_with, training_candidates
from db.workspace import Workspace
from ospcoop.data import NoTrainingData, OpenPhoto, TrainingSet, training_set
from ospcoop.options import TRAINED_KINDS, TrainingOptions, canonical_hash

CONFIG_FORMAT = 1
RUNS = "runs"
QUEUED, RUNNING, DONE, CANCELLED, FAILED = "queued", "running", "done", "cancelled", "failed"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,79}")


class RunError(RuntimeError):
    """A run cannot be made, found or gone on with; the message says what to do."""


class UnknownRun(LookupError):
    """No run has that name; the message names the newest there are."""


@dataclass(frozen=True)
class DataChoice:
    """Which few-shot set, and candidates of which recipes, by id; a recipe that is None leaves its kind out."""

    fewshot_set: int
    background_recipe: int
    texture_recipe: int | None = None
    id_aug_recipe: int | None = None

    def as_dict(self) -> dict:
        return dict(vars(self))


@dataclass(frozen=True)
class EncoderChoice:
    """An encoder by its name in :mod:`app.encoders`, and a weights file of one's own where it is not the usual one."""

    name: str
    weights: str | None = None

    def as_dict(self) -> dict:
        return dict(vars(self))


@dataclass(frozen=True)
class Planned:
    """A run that is ready to be trained. ``is_new`` is False when it goes on, from ``epochs_done``."""

    run: Run
    is_new: bool


def choose_data(
    session: Session,
    fewshot_set: int | None = None,
    *,
    textures: bool = True,
    id_augs: bool = False,
) -> DataChoice:
    """The newest few-shot set (or that one) under the active recipe, and the newest textures and id_augs made for it.

    Raises :class:`ospcoop.data.NoTrainingData` where something asked for is not there.
    """
    recipe = active_recipe(session)
    number = fewshot_set or session.scalar(select(func.max(FewShotSet.id)))
    chosen = None if number is None else session.get(FewShotSet, number)
    if chosen is None:
        raise NoTrainingData(
            "There is no few-shot set yet; sample one: `launch.py fewshot`."
            if number is None
            else f"There is no few-shot set {number}; `launch.py fewshot --list` shows those there are."
        )
    if recipe is None:
        raise NoTrainingData("No candidates were generated yet: `launch.py generate`.")
    texture_recipes = recipes_made_with(session, Kind.TEXTURE, background_recipe=recipe.hash) if textures else []
    id_aug_recipe = None
    if id_augs:
        made_for = {"background_recipe": recipe.hash, "fewshot_set": chosen.content_hash}
        id_aug_recipe = next(iter(recipes_made_with(session, Kind.ID_AUG, **made_for)), None)
        if id_aug_recipe is None:
            raise NoTrainingData(f"Few-shot set {chosen.id} has no ID augmentations yet: `launch.py id-aug`.")
    return DataChoice(
        chosen.id,
        recipe.id,
        texture_recipes[0].id if texture_recipes else None,
        None if id_aug_recipe is None else id_aug_recipe.id,
    )


def read_training_set(
    workspace: Workspace, choice: DataChoice, options: TrainingOptions, open_photo: OpenPhoto
) -> TrainingSet:
    """What the choice gives now. Raises the errors of :mod:`db.training_guard` and :mod:`ospcoop.data`."""
    kinds = TRAINED_KINDS[options.objective]
    with workspace.read() as session:
        data: TrainingData = training_candidates(
            session,
            choice.fewshot_set,
            background_recipe_id=choice.background_recipe,
            texture_recipe_id=choice.texture_recipe if "texture" in kinds else None,
            id_aug_recipe_id=choice.id_aug_recipe if "id_aug" in kinds else None,
            min_drop=options.min_drop,
        )
    return training_set(workspace, data, options, open_photo)


def plan_run(
    workspace: Workspace,
    data: TrainingSet,
    choice: DataChoice,
    encoder: EncoderChoice,
    options: TrainingOptions,
    *,
    name: str | None = None,
    created_by: str = "",
) -> Planned:
    """A new run, or the unfinished one of the same configuration and data (and name, if given).

    Raises :class:`RunError` when exactly this was trained already, or the name stands for something else.
    """
    if name is not None:
        check_name(name)
    config = {
        "format": CONFIG_FORMAT,
        "options": options.as_dict(),
        "encoder": encoder.as_dict(),
        "choice": choice.as_dict(),
    }
    config_hash = canonical_hash({"options": options.as_dict(), "encoder": encoder.as_dict(), "data": data.sha256})
    with workspace.write() as session:
        taken = None if name is None else session.scalar(select(Run).where(Run.name == name))
        if taken is not None and taken.config_hash != config_hash:
            raise RunError(f"Run {name} was begun with other options or data; give this one another name.")
        same = select(Run).where(Run.config_hash == config_hash).order_by(Run.id.desc())
        found = taken if name is not None else session.scalar(same.limit(1))
        if found is not None:
            if found.state == DONE:
                raise RunError(
                    f"Run {found.name} is exactly this training, finished after {found.epochs_done} epochs. "
                    "Another --seed gives another run."
                )
            return Planned(found, False)
        run = Run(
            name=name or _free_name(session, options, encoder),
            objective=options.objective,
            encoder=encoder.name,
            seed=options.seed,
            config=config,
            config_hash=config_hash,
            data=data.summary(),
            fewshot_set_id=choice.fewshot_set,
            created_by=created_by,
        )
        run.folder = f"{RUNS}/{run.name}"
        session.add(run)
    return Planned(run, True)


def check_name(name: str) -> str:
    """The name, which is also a folder's. Raises :class:`RunError`."""
    if not _NAME.fullmatch(name):
        raise RunError(f"A run is named by lower-case letters, digits, '-', '_' and '.', not {name!r}.")
    return name


def _free_name(session: Session, options: TrainingOptions, encoder: EncoderChoice) -> str:
    base = f"{options.objective}-{encoder.name}-s{options.seed}".replace("_", "-")
    names = set(session.scalars(select(Run.name).where(Run.name.startswith(base))))
    number = next(n for n in range(1, len(names) + 2) if (base if n == 1 else f"{base}-{n}") not in names)
    return base if number == 1 else f"{base}-{number}"


def find_run(session: Session, name: str) -> Run:
    """Raises :class:`UnknownRun`."""
    run = session.scalar(select(Run).where(Run.name == name))
    if run is None:
        names = [known.name for known in list_runs(session, limit=5)]
        rest = f"The newest are {', '.join(names)}." if names else "None was trained yet: `launch.py train`."
        raise UnknownRun(f"There is no run called {name!r}. {rest}")
    return run


def find_unfinished(session: Session, name: str) -> Run:
    """A run that can be gone on with. Raises :class:`UnknownRun`, and :class:`RunError` where it is finished."""
    run = find_run(session, name)
    if run.state == DONE:
        raise RunError(f"Run {name} is finished after {run.epochs_done} epochs; there is nothing to go on with.")
    return run


def list_runs(session: Session, *, limit: int = 100, before: int | None = None) -> list[Run]:
    """Newest first; ``before`` is the id of the last one seen."""
    query = select(Run).order_by(Run.id.desc()).limit(limit)
    return list(session.scalars(query if before is None else query.where(Run.id < before)))


def epochs_of(session: Session, run_id: int) -> list[RunEpoch]:
    """Epoch by epoch: what the curves show."""
    return list(session.scalars(select(RunEpoch).where(RunEpoch.run_id == run_id).order_by(RunEpoch.epoch)))


def begin(workspace: Workspace, run_id: int, facts: dict) -> Run:
    """The run is being trained; ``facts`` (of the encoder's weights) join its config, or must be those it has.

    Raises :class:`RunError` when the run is finished, or was begun with other weights.
    """
    with workspace.write() as session:
        run = session.get_one(Run, run_id)
        find_unfinished(session, run.name)
        known = run.config.get("encoder_facts")
        if known is not None and known != facts:
            raise RunError(
                f"Run {run.name} was begun with other weights of {run.encoder} than those here; bring them back, "
                "or start a new run."
            )
        run.config = {**run.config, "encoder_facts": facts}
        run.state, run.error = RUNNING, ""
    return run


def record_epoch(workspace: Workspace, run_id: int, epoch: int, lr: float, seconds: float, metrics: dict) -> None:
    """A finished epoch; recorded twice, the second holds."""
    with workspace.write() as session:
        session.merge(RunEpoch(run_id=run_id, epoch=epoch, lr=lr, seconds=seconds, metrics=metrics))
        run = session.get(Run, run_id)
        run.epochs_done = max(run.epochs_done, epoch + 1)


def end(workspace: Workspace, run_id: int, state: str, *, chosen_epoch: int | None = None, error: str = "") -> None:
    """The run is done, cancelled or failed."""
    with workspace.write() as session:
        run = session.get(Run, run_id)
        run.state, run.error, run.chosen_epoch = state, error, chosen_epoch
        run.finished_at = utcnow()
