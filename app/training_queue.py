"""Planning runs and queueing their training, as the Train page asks for it; and which job works on which run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.encoders import find_encoder
from db import jobs
from db.models import Job, JobState, Run
from db.workspace import Workspace
from generation.sources import open_source
from generation.weights import locate
from ospcoop import runs
from ospcoop.data import TrainingSet
from ospcoop.options import TrainingOptions
from ospcoop.runs import DataChoice, EncoderChoice, RunError

TRAIN = "train"
STOPPED = "stopped"


@dataclass(frozen=True)
class Wish:
    """What somebody wants to train: the same choices as the command's. ``fewshot_set`` None is the newest."""

    options: TrainingOptions
    encoder: str
    fewshot_set: int | None = None
    textures: bool = True
    id_augs: bool = False


@dataclass(frozen=True)
class Queued:
    """The runs that wait for the worker now, and a sentence for each that was not begun."""

    names: tuple[str, ...]
    refused: tuple[str, ...]


@dataclass(frozen=True)
class Standing:
    """How a run stands: its own state, or that of the job that works on it. ``stopped``: begun, and no job goes on."""

    run: Run
    job: Job | None
    state: str

    @property
    def can_resume(self) -> bool:
        return self.job is None and self.run.state != runs.DONE


def wished_data(workspace: Workspace, wish: Wish) -> tuple[DataChoice, TrainingSet]:
    """What would go in now. Raises the errors of :mod:`ospcoop.runs`, :mod:`ospcoop.data`, :mod:`db.training_guard`."""
    with workspace.read() as session:
        choice = runs.choose_data(session, wish.fewshot_set, textures=wish.textures, id_augs=wish.id_augs)
    return choice, runs.read_training_set(workspace, choice, wish.options, open_source)


def queue_runs(
    workspace: Workspace, wish: Wish, seeds: Sequence[int], *, name: str | None = None, created_by: str = ""
) -> Queued:
    """Plan a run for each seed and queue them; an unfinished run of the same options goes on.

    With several seeds a name gets each one's number. Raises what :func:`wished_data` does, and
    UnknownEncoder or WeightsMissing before anything is planned.
    """
    variant = find_encoder(wish.encoder).variant
    if variant is not None:
        locate(variant)
    names, refused = [], []
    read = None
    for seed in seeds:
        seeded = replace(wish, options=replace(wish.options, seed=seed))
        # What is held out is drawn by the seed; all else goes into every run alike.
        if read is None or seeded.options.selection == "held_out":
            read = wished_data(workspace, seeded)
        choice, data = read
        called = name if name is None or len(seeds) == 1 else f"{name}-s{seed}"
        try:
            planned = runs.plan_run(
                workspace,
                data,
                choice,
                EncoderChoice(wish.encoder),
                seeded.options,
                name=called,
                created_by=created_by,
            )
            queue_run(workspace, planned.run.name, created_by=created_by)
        except RunError as error:
            refused.append(str(error))
        else:
            names.append(planned.run.name)
    return Queued(tuple(names), tuple(refused))


def queue_run(workspace: Workspace, name: str, *, created_by: str = "") -> int:
    """Queue an unfinished run's training; gives the job's id. UnknownRun; RunError where one works on it already."""
    with workspace.write() as session:
        run = runs.find_unfinished(session, name)
        active = active_jobs(session).get(run.id)
        if active is not None:
            raise RunError(f"Run {name} is being trained already, by job {active.id}.")
        return jobs.enqueue(session, TRAIN, {"run": run.id, "device": "auto"}, created_by=created_by).id


def cancel_run(workspace: Workspace, name: str) -> None:
    """Stop the run's training after its current step; its whole epochs are kept. UnknownRun, RunError without one."""
    with workspace.write() as session:
        run = runs.find_run(session, name)
        active = active_jobs(session).get(run.id)
        if active is None:
            raise RunError(f"Nothing works on run {name}; there is nothing to cancel.")
        jobs.request_cancel(session, active.id)


def active_jobs(session: Session) -> dict[int, Job]:
    """The waiting or running training job of each run, by the run's id."""
    found = session.scalars(select(Job).where(Job.kind == TRAIN, Job.state.not_in(jobs.ENDED)).order_by(Job.id.desc()))
    return {int(job.params["run"]): job for job in found}


def standings(session: Session, found: Sequence[Run]) -> list[Standing]:
    """How each run stands, in the order given."""
    active = active_jobs(session)
    return [_standing(run, active.get(run.id)) for run in found]


def _standing(run: Run, job: Job | None) -> Standing:
    if job is not None:
        return Standing(run, job, runs.QUEUED if job.state is JobState.QUEUED else runs.RUNNING)
    # A job that was cancelled while it waited, or whose worker died for good, leaves these two behind.
    return Standing(run, None, STOPPED if run.state in (runs.QUEUED, runs.RUNNING) else run.state)
