"""Training as JSON: what can be chosen, what would go in, runs with their curves, start, cancel and go on.

Errors are ``{"error": sentence}``. All of it is for admins, like every route that is not listed in ``app.accounts``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app.encoders import ENCODERS, UnknownEncoder
from app.plain_route import MAX_ID, PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from app.training_queue import Standing, Wish, cancel_run, queue_run, queue_runs, standings, wished_data
from db.models import FewShotSet, ImageClass, Role, RunEpoch
from db.training_guard import TrainingDataError, UnknownFewShotSet
from db.workspace import Workspace
from generation.weights import WeightsMissing, WrongWeights
from ospcoop.data import NoTrainingData
from ospcoop.options import (
    EPOCHS,
    EPOCHS_WITH_ID_AUG,
    OBJECTIVE_LABELS,
    OPTION_CHOICES,
    TRAINED_KINDS,
    OptionError,
    TrainingOptions,
)
from ospcoop.runs import RunError, UnknownRun, epochs_of, find_run, list_runs

PAGE_OF_RUNS = 50
MAX_SEEDS = 20
PER_RUN = frozenset({"objective", "seed"})

Result = TypeVar("Result")
Name = Annotated[str, Field(min_length=1, max_length=80)]


class FewShotOut(BaseModel):
    """A few-shot set to choose: its number, shots, seed, and how many photos of how many classes."""

    id: int
    shots: int
    seed: int
    sources: int
    classes: int


class EncoderOut(BaseModel):
    """An encoder to choose; ``grade`` is paper or embedded."""

    name: str
    label: str
    grade: str


class ChoicesOut(BaseModel):
    """What the form offers. ``defaults`` are the published hyper-parameters, ``choices`` the values of those that are
    words; ``trained_kinds`` says by objective which kinds of images it is trained on."""

    objectives: dict[str, str]
    trained_kinds: dict[str, list[str]]
    encoders: list[EncoderOut]
    fewshot_sets: list[FewShotOut]
    defaults: dict
    choices: dict[str, list[str]]
    epochs: int
    epochs_with_id_aug: int


class WishIn(BaseModel):
    """What to train on what. ``options`` are those of :class:`ospcoop.options.TrainingOptions` that differ from the
    published ones."""

    model_config = ConfigDict(extra="forbid", strict=True)
    options: dict = Field(default_factory=dict)
    encoder: str = "embedded_dual"
    fewshot_set: int | None = Field(None, ge=1, le=MAX_ID)
    textures: bool = True
    id_augs: bool = False


class StartIn(WishIn):
    """The same with the seeds, one run each, and a name to call them by."""

    seeds: list[Annotated[int, Field(ge=0, le=MAX_ID)]] = Field(default=[1], min_length=1, max_length=MAX_SEEDS)
    name: Name | None = None


class PlanOut(BaseModel):
    """What would go in: a run's ``data``, and its classes' names by wnid."""

    data: dict
    class_names: dict[str, str]


class StartOut(BaseModel):
    """The runs that wait for the worker, and why others do not."""

    started: list[str]
    refused: list[str]


class RunOut(BaseModel):
    """A run in the list. ``done`` of ``total`` are steps; ``chosen_epoch`` counts from 0."""

    id: int
    name: str
    objective: str
    encoder: str
    grade: str
    seed: int
    state: str
    can_resume: bool
    job_id: int | None
    message: str
    done: int
    total: int | None
    epochs: int | None
    epochs_done: int
    chosen_epoch: int | None
    images: int
    error: str
    created_by: str
    created_at: dt.datetime


class EpochOut(BaseModel):
    """One epoch, from 0. ``metrics``: losses, ``accuracy`` (0 to 100), ``images_per_s``, validation (0 to 1)."""

    model_config = ConfigDict(from_attributes=True)
    epoch: int
    lr: float
    seconds: float
    metrics: dict[str, float]


class RunDetail(RunOut):
    """The same with everything it was begun with and every epoch so far. ``data`` is empty where it was asked for in
    brief: with a thousand classes it is most of the answer, and it never changes."""

    options: dict
    data: dict
    folder: str
    curves: list[EpochOut]


def training_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/training``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/training", route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    def admin(who: Reviewer = asking) -> Reviewer:
        who.check(Role.ADMIN, "Training")
        return who

    allowed = Depends(admin)

    @router.get("", dependencies=[allowed])
    def choices() -> ChoicesOut:
        with workspace.read() as session:
            sets = list(session.scalars(select(FewShotSet).order_by(FewShotSet.id.desc())))
        return _choices(sets)

    @router.post("/plan", dependencies=[allowed])
    def plan(given: WishIn) -> PlanOut:
        data = _sentences(lambda: wished_data(workspace, _wish(given))[1])
        with workspace.read() as session:
            listed = select(ImageClass.wnid, ImageClass.name).where(ImageClass.class_index.in_(data.classes.indices))
            return PlanOut(data=data.summary(), class_names=dict(session.execute(listed).all()))

    @router.get("/runs", dependencies=[allowed])
    def list_of_runs(
        before: int | None = Query(None, ge=1, le=MAX_ID), limit: int = Query(PAGE_OF_RUNS, ge=1, le=PAGE_OF_RUNS)
    ) -> list[RunOut]:
        with workspace.read() as session:
            found = list_runs(session, limit=limit, before=before)
            return [RunOut(**_facts(one)) for one in standings(session, found)]

    @router.post("/runs", status_code=202)
    def start(given: StartIn, who: Reviewer = allowed) -> StartOut:
        seeds = list(dict.fromkeys(given.seeds))
        queued = _sentences(lambda: queue_runs(workspace, _wish(given), seeds, name=given.name, created_by=who.name))
        if not queued.names:
            raise HTTPException(409, " ".join(queued.refused))
        return StartOut(started=list(queued.names), refused=list(queued.refused))

    @router.get("/runs/{name}", dependencies=[allowed])
    def run(name: str, brief: bool = False) -> RunDetail:
        detail = _detail(workspace, name)
        return detail.model_copy(update={"data": {}}) if brief else detail

    @router.post("/runs/{name}/resume", status_code=202)
    def resume(name: str, who: Reviewer = allowed) -> RunDetail:
        _sentences(lambda: queue_run(workspace, name, created_by=who.name))
        return _detail(workspace, name)

    @router.post("/runs/{name}/cancel", status_code=202, dependencies=[allowed])
    def cancel(name: str) -> RunDetail:
        _sentences(lambda: cancel_run(workspace, name))
        return _detail(workspace, name)

    return router


def _sentences(work: Callable[[], Result]) -> Result:
    """What can be wrong with a wish, as an answer whose error is the sentence that says so."""
    try:
        return work()
    except (OptionError, UnknownEncoder) as error:
        raise HTTPException(422, str(error)) from error
    except (UnknownRun, UnknownFewShotSet) as error:
        raise HTTPException(404, str(error)) from error
    except (NoTrainingData, TrainingDataError, RunError, WeightsMissing, WrongWeights) as error:
        raise HTTPException(409, str(error)) from error


def _wish(given: WishIn) -> Wish:
    return Wish(
        TrainingOptions.from_dict(given.options), given.encoder, given.fewshot_set, given.textures, given.id_augs
    )


def _choices(sets: list[FewShotSet]) -> ChoicesOut:
    return ChoicesOut(
        objectives=OBJECTIVE_LABELS,
        trained_kinds={name: list(kinds) for name, kinds in TRAINED_KINDS.items()},
        encoders=[EncoderOut(name=name, label=one.label, grade=one.grade) for name, one in ENCODERS.items()],
        fewshot_sets=[
            FewShotOut(
                id=one.id,
                shots=one.shots,
                seed=one.seed,
                sources=one.summary["sources"],
                classes=one.summary["classes"],
            )
            for one in sets
        ],
        defaults={name: value for name, value in TrainingOptions().as_dict().items() if name not in PER_RUN},
        choices={name: list(values) for name, values in OPTION_CHOICES.items() if name not in PER_RUN},
        epochs=EPOCHS,
        epochs_with_id_aug=EPOCHS_WITH_ID_AUG,
    )


def _detail(workspace: Workspace, name: str) -> RunDetail:
    with workspace.read() as session:
        found = _sentences(lambda: find_run(session, name))
        (standing,) = standings(session, [found])
        curves: list[RunEpoch] = epochs_of(session, found.id)
    return RunDetail(
        **_facts(standing),
        options=found.config["options"],
        data=found.data,
        folder=str(workspace.path(found.folder)),
        curves=[EpochOut.model_validate(one) for one in curves],
    )


def _facts(standing: Standing) -> dict:
    run, job = standing.run, standing.job
    entry = ENCODERS.get(run.encoder)
    return {
        "id": run.id,
        "name": run.name,
        "objective": run.objective,
        "encoder": run.encoder,
        "grade": "" if entry is None else entry.grade,
        "seed": run.seed,
        "state": standing.state,
        "can_resume": standing.can_resume,
        "job_id": None if job is None else job.id,
        "message": "" if job is None else "Stopping" if job.cancel_requested else job.message,
        "done": 0 if job is None else job.done,
        "total": None if job is None else job.total,
        "epochs": run.config["options"].get("epochs"),
        "epochs_done": run.epochs_done,
        "chosen_epoch": run.chosen_epoch,
        "images": sum(run.data.get("kinds", {}).values()),
        "error": run.error,
        "created_by": run.created_by,
        "created_at": run.created_at,
    }
