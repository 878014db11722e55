"""Evaluation as JSON: what can be chosen, start, the tables and their files, one result in detail.

Errors are ``{"error": sentence}``. All of it is for admins, like every route that is not listed in ``app.accounts``.
Progress and cancel are those of any job (``app.job_routes``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app.encoders import ENCODERS, UnknownEncoder, find_encoder
from app.plain_route import MAX_ID, PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from db import jobs
from db.models import Role, Run
from db.workspace import Workspace
from generation.weights import WeightsMissing, WrongWeights, locate
from ospcoop.evaluation.formats import FORMATS
from ospcoop.evaluation.request import (
    DEFAULT_DETECTORS,
    DETECTOR_LABELS,
    NEED_LABELS,
    VAL,
    EvaluationError,
    EvaluationRequest,
)
from ospcoop.evaluation.sets import available_sets
from ospcoop.evaluation.tables import (
    COLUMNS,
    LOWER_IS_BETTER,
    AverageRow,
    ResultRow,
    SeriesRow,
    classic_averages,
    over_seeds,
    results,
    sentences,
)
from ospcoop.runs import DONE, EncoderChoice, UnknownRun, find_run

EVALUATE = "evaluate"
FILES = {
    "csv": ("csv", "text/csv"),
    "md": ("markdown", "text/markdown"),
    "tex": ("latex", "application/x-tex"),
}
"""Format and media type by the file's ending."""
MAX_NAMES = 200


class RunChoice(BaseModel):
    """A finished run to evaluate; ``grade`` is paper, embedded or empty."""

    name: str
    objective: str
    encoder: str
    grade: str
    seed: int


class EncoderChoiceOut(BaseModel):
    """An encoder whose zero-shot prompts can be evaluated without a run."""

    name: str
    label: str


class SetOut(BaseModel):
    """An evaluation set; see :class:`ospcoop.evaluation.sets.SetInfo`."""

    model_config = ConfigDict(from_attributes=True)
    name: str
    role: str
    group: str
    kind: str
    images: int
    skipped: int


class ChoicesOut(BaseModel):
    """What the form offers; ``job_id`` is the evaluation that waits or runs."""

    runs: list[RunChoice]
    encoders: list[EncoderChoiceOut]
    detectors: dict[str, str]
    default_detectors: list[str]
    need_labels: list[str]
    sets: list[SetOut]
    id_set: str
    temperature: float
    local_weight: float
    resamples: int
    job_id: int | None


class EvaluateIn(BaseModel):
    """What to evaluate; zero-shot prompts always are, on the runs' encoder or, without a run, on ``encoder``.

    No ``ood_sets`` means all there are. ``labels`` is a folder or file on the server's machine.
    """

    model_config = ConfigDict(extra="forbid", strict=True)
    runs: list[str] = Field(default_factory=list, max_length=MAX_NAMES)
    encoder: str = "embedded_dual"
    detectors: list[str] = Field(default=list(DEFAULT_DETECTORS), max_length=len(DETECTOR_LABELS))
    id_set: str = VAL
    ood_sets: list[str] = Field(default_factory=list, max_length=MAX_NAMES)
    temperature: float = 1.0
    local_weight: float = 0.5
    labels: str | None = None
    resamples: int = Field(1000, le=100_000)
    seed: int = Field(0, le=MAX_ID)


class JobOut(BaseModel):
    """The evaluation that waits for the worker."""

    job_id: int


class IntervalOut(BaseModel):
    """A value, 0 to 1 unless it is a rise of a score, with the ends of its 95 % interval."""

    model_config = ConfigDict(from_attributes=True)
    value: float
    low: float
    high: float


class PairedOut(BaseModel):
    """Each background against its own photo: see :class:`ospcoop.evaluation.paired.Paired`."""

    model_config = ConfigDict(from_attributes=True)
    pairs: int
    sources: int
    lower: IntervalOut
    mean: IntervalOut
    median: IntervalOut
    kept_class: IntervalOut


class RowOut(BaseModel):
    """A line of the table: see :class:`ospcoop.evaluation.tables.ResultRow`."""

    model_config = ConfigDict(from_attributes=True)
    evaluation: int
    run: str
    method: str
    encoder: str
    grade: str
    seed: int | None
    epoch: int | None
    selection: str
    detector: str
    id_set: str
    ood_set: str
    group: str
    id_images: int
    ood_images: int
    classes: int
    metrics: dict[str, IntervalOut]
    paired: PairedOut | None
    best: frozenset[str]


class AverageOut(BaseModel):
    """The mean of the four classic sets, which the Bg sets are never part of."""

    model_config = ConfigDict(from_attributes=True)
    run: str
    method: str
    encoder: str
    detector: str
    id_set: str
    selection: str
    metrics: dict[str, float]
    best: frozenset[str]


class SeriesOut(BaseModel):
    """Mean and sample standard deviation over runs that differ by their seeds alone."""

    model_config = ConfigDict(from_attributes=True)
    method: str
    encoder: str
    detector: str
    id_set: str
    ood_set: str
    seeds: list[int]
    mean: dict[str, float]
    spread: dict[str, float]


class ResultsOut(BaseModel):
    """Every table's numbers. ``columns`` are the metrics' words in order; ``sentences`` must stand under the tables."""

    columns: dict[str, str]
    lower_is_better: list[str]
    rows: list[RowOut]
    averages: list[AverageOut]
    seeds: list[SeriesOut]
    sentences: list[str]


def evaluation_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/evaluation``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/evaluation", route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    def admin(who: Reviewer = asking) -> Reviewer:
        who.check(Role.ADMIN, "Evaluation")
        return who

    allowed = Depends(admin)

    @router.get("", dependencies=[allowed])
    def choices() -> ChoicesOut:
        return _choices(workspace)

    @router.post("", status_code=202)
    def start(given: EvaluateIn, who: Reviewer = allowed) -> JobOut:
        request = _request(workspace, given)
        with workspace.write() as session:
            active = jobs.active_job(session, EVALUATE)
            if active is not None:
                raise HTTPException(409, f"Job {active.id} is evaluating already; wait for it, or cancel it.")
            job = jobs.enqueue(session, EVALUATE, {"request": request.as_dict(), "device": "auto"}, created_by=who.name)
        return JobOut(job_id=job.id)

    @router.get("/results", dependencies=[allowed])
    def table() -> ResultsOut:
        return _results(_rows(workspace))

    @router.get("/results/table.{suffix}", dependencies=[allowed])
    def file(suffix: Annotated[str, PathParameter(pattern="^(csv|md|tex)$")]) -> Response:
        kind, media_type = FILES[suffix]
        headers = {"Content-Disposition": f'attachment; filename="results.{suffix}"', "Cache-Control": "no-store"}
        return Response(FORMATS[kind](_rows(workspace)), media_type=media_type, headers=headers)

    return router


def _choices(workspace: Workspace) -> ChoicesOut:
    usual = EvaluationRequest()
    with workspace.read() as session:
        found = session.scalars(select(Run).where(Run.state == DONE).order_by(Run.id.desc()).limit(MAX_NAMES))
        runs = [
            RunChoice(
                name=run.name,
                objective=run.objective,
                encoder=run.encoder,
                grade=ENCODERS[run.encoder].grade if run.encoder in ENCODERS else "",
                seed=run.seed,
            )
            for run in found
        ]
        job = jobs.active_job(session, EVALUATE)
        sets = [SetOut.model_validate(one) for one in available_sets(session)]
    return ChoicesOut(
        runs=runs,
        encoders=[EncoderChoiceOut(name=name, label=one.label) for name, one in ENCODERS.items()],
        detectors=DETECTOR_LABELS,
        default_detectors=list(DEFAULT_DETECTORS),
        need_labels=sorted(NEED_LABELS),
        sets=sets,
        id_set=VAL,
        temperature=usual.temperature,
        local_weight=usual.local_weight,
        resamples=usual.resamples,
        job_id=None if job is None else job.id,
    )


def _request(workspace: Workspace, given: EvaluateIn) -> EvaluationRequest:
    """Checked as far as it can be without a model, so that what is wrong is said at once and not by a failed job."""
    values = given.model_dump()
    try:
        variant = find_encoder(given.encoder).variant
        request = EvaluationRequest(
            **{
                **values,
                "encoder": EncoderChoice(given.encoder),
                **{name: tuple(values[name]) for name in ("runs", "detectors", "ood_sets")},
            }
        )
        with workspace.read() as session:
            for name in request.runs:
                find_run(session, name)
            known = {one.name: one.role for one in available_sets(session)}
        if not request.runs and variant is not None:
            locate(variant)
    except (EvaluationError, UnknownEncoder) as error:
        raise HTTPException(422, str(error)) from error
    except UnknownRun as error:
        raise HTTPException(404, str(error)) from error
    except (WeightsMissing, WrongWeights) as error:
        raise HTTPException(409, str(error)) from error
    for name, role in ((request.id_set, "id"), *((name, "ood") for name in request.ood_sets)):
        if known.get(name) != role:
            raise HTTPException(404, f"There is no {role.upper()} set called {name!r}; reload the page.")
    return request


def _rows(workspace: Workspace) -> list[ResultRow]:
    with workspace.read() as session:
        return results(session)


def _results(rows: list[ResultRow]) -> ResultsOut:
    averages: list[AverageRow] = classic_averages(rows)
    seeds: list[SeriesRow] = over_seeds(rows)
    return ResultsOut(
        columns=COLUMNS,
        lower_is_better=sorted(LOWER_IS_BETTER),
        rows=[RowOut.model_validate(one) for one in rows],
        averages=[AverageOut.model_validate(one) for one in averages],
        seeds=[SeriesOut.model_validate(one) for one in seeds],
        sentences=sentences(rows),
    )
