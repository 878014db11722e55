"""Figures as JSON: an evaluation's histograms, ROC and reliability, and shortcut maps, which a job makes.

Errors are ``{"error": sentence}``. All of it is for admins, like every route that is not listed in ``app.accounts``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app.encoders import UnknownEncoder, find_encoder
from app.plain_route import MAX_ID, PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from db import jobs
from db.models import Candidate, ImageClass, Job, JobState, Role
from db.workspace import Workspace
from ospcoop.evaluation.by_class import by_class
from ospcoop.figures.request import TOP_PATCHES, ShortcutError, ShortcutRequest, chosen_runs
from ospcoop.figures.scores import ScoreHistogram
from ospcoop.figures.stored import (
    ScoresMissing,
    UnknownEvaluation,
    evaluation_figures,
    hardest_backgrounds,
    stored_scores,
)
from ospcoop.figures.svg import shortcut_figure
from ospcoop.runs import UnknownRun

SHORTCUT_MAP = "shortcut_map"
MAX_RUNS = 4
MAX_HARDEST = 48

Number = Annotated[int, PathParameter(ge=1, le=MAX_ID)]


class HistogramOut(BaseModel):
    """``edges`` are one more than the shares of either side, which add up to 1."""

    edges: list[float]
    id: list[float]
    ood: list[float]


class ReliabilityBinOut(BaseModel):
    """A bin of the reliability diagram; means over its images."""

    model_config = ConfigDict(from_attributes=True)
    lower: float
    upper: float
    count: int
    confidence: float
    accuracy: float


class FiguresOut(BaseModel):
    """An evaluation drawn: see :class:`ospcoop.figures.stored.EvaluationFigures`. ``roc`` are (fpr, tpr)."""

    id: int
    title: str
    id_set: str
    ood_set: str
    auroc: float
    histogram: HistogramOut
    roc: list[tuple[float, float]]
    reliability: list[ReliabilityBinOut]
    ece: float
    photos: HistogramOut | None


class HardestOut(BaseModel):
    """A background that looks most ID: its score, and the class it is taken for with what confidence."""

    candidate_id: int
    result_sha256: str
    score: float
    predicted: str
    confidence: float
    source_class: str


class ClassOut(BaseModel):
    """An evaluation's images of one class: see :class:`ospcoop.evaluation.by_class.ClassRow`."""

    wnid: str
    name: str
    id_images: int
    accuracy: float | None
    id_auroc: float | None
    bg_images: int
    bg_auroc: float | None
    kept_class: float | None


class ShortcutIn(BaseModel):
    """See :class:`ospcoop.figures.request.ShortcutRequest`."""

    model_config = ConfigDict(extra="forbid", strict=True)
    candidate: int = Field(ge=1, le=MAX_ID)
    runs: list[str] = Field(default_factory=list, max_length=MAX_RUNS)
    encoder: str = "embedded_dual"
    shown: str = Field("predicted", max_length=20)
    top: int = Field(TOP_PATCHES, ge=0, le=64)
    evaluation: int | None = Field(None, ge=1, le=MAX_ID)


class ShortcutOut(BaseModel):
    """The job that makes a map, and once it is done the map (:func:`ospcoop.figures.shortcuts.map_candidate`)."""

    job_id: int
    state: JobState
    message: str
    error: str
    map: dict | None


def figure_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/figures``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/figures", route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    def admin(who: Reviewer = asking) -> Reviewer:
        who.check(Role.ADMIN, "Figures")
        return who

    allowed = Depends(admin)

    @router.get("/evaluations/{number}", dependencies=[allowed])
    def evaluation(number: Number) -> FiguresOut:
        return _figures(workspace, number)

    @router.get("/evaluations/{number}/hardest", dependencies=[allowed])
    def hardest(number: Number, limit: int = Query(12, ge=1, le=MAX_HARDEST)) -> list[HardestOut]:
        return _hardest(workspace, number, limit)

    @router.get("/evaluations/{number}/classes", dependencies=[allowed])
    def classes(number: Number) -> list[ClassOut]:
        return _classes(workspace, number)

    @router.post("/shortcuts", status_code=202)
    def make(given: ShortcutIn, who: Reviewer = allowed) -> ShortcutOut:
        request = ShortcutRequest(**{**given.model_dump(), "runs": tuple(given.runs)})
        try:
            find_encoder(request.encoder)
            chosen_runs(workspace, request)
        except UnknownRun as error:
            raise HTTPException(404, str(error)) from error
        except (ShortcutError, UnknownEncoder) as error:
            raise HTTPException(422, str(error)) from error
        with workspace.write() as session:
            if session.get(Candidate, given.candidate) is None:
                raise HTTPException(404, f"There is no candidate {given.candidate}.")
            return _shortcut(jobs.enqueue(session, SHORTCUT_MAP, request.as_dict(), created_by=who.name))

    @router.get("/shortcuts/{number}", dependencies=[allowed])
    def made(number: Number) -> ShortcutOut:
        return _shortcut(_job(workspace, number))

    @router.get("/shortcuts/{number}/figure.svg", dependencies=[allowed])
    def drawn(number: Number) -> Response:
        found = _job(workspace, number)
        if found.state is not JobState.DONE:
            raise HTTPException(409, f"Shortcut map {number} is {found.state}; it can be drawn once it is done.")
        with workspace.read() as session:
            candidate = session.get_one(Candidate, found.result["candidate"])
        picture = workspace.path(f"{candidate.folder}/result.png").read_bytes()
        name = f"candidate-{candidate.id}-shortcuts.svg"
        headers = {"Content-Disposition": f'attachment; filename="{name}"', "X-Content-Type-Options": "nosniff"}
        return Response(shortcut_figure(found.result, picture), media_type="image/svg+xml", headers=headers)

    return router


def _job(workspace: Workspace, number: int) -> Job:
    with workspace.read() as session:
        job = session.get(Job, number)
    if job is None or job.kind != SHORTCUT_MAP:
        raise HTTPException(404, f"There is no shortcut map {number}; make it again.")
    return job


def _shortcut(job: Job) -> ShortcutOut:
    return ShortcutOut(
        job_id=job.id,
        state=job.state,
        message=job.message or "Waits for the worker.",
        error=job.error,
        map=job.result if job.state is JobState.DONE else None,
    )


@contextmanager
def _answered() -> Iterator[None]:
    try:
        yield
    except UnknownEvaluation as error:
        raise HTTPException(404, str(error)) from error
    except ScoresMissing as error:
        raise HTTPException(409, str(error)) from error


def _figures(workspace: Workspace, number: int) -> FiguresOut:
    def told(found: ScoreHistogram) -> HistogramOut:
        return HistogramOut(edges=found.edges.tolist(), id=found.id.tolist(), ood=found.ood.tolist())

    with _answered():
        found = evaluation_figures(workspace, number)
    return FiguresOut(
        id=found.id,
        title=found.title,
        id_set=found.id_set,
        ood_set=found.ood_set,
        auroc=found.auroc,
        histogram=told(found.histogram),
        roc=list(zip(found.roc.fpr.tolist(), found.roc.tpr.tolist(), strict=True)),
        reliability=[ReliabilityBinOut.model_validate(one) for one in found.reliability.bins],
        ece=found.reliability.ece,
        photos=None if found.photos is None else told(found.photos),
    )


def _classes(workspace: Workspace, number: int) -> list[ClassOut]:
    with _answered():
        row, _ = stored_scores(workspace, number)
        found = by_class(workspace, row.scores)
    with workspace.read() as session:
        known = {one.class_index: one for one in session.scalars(select(ImageClass))}
    rows = ((known[one.class_index], vars(one)) for one in found)
    return [
        ClassOut(wnid=about.wnid, name=about.name, **{key: row[key] for key in row if key != "class_index"})
        for about, row in rows
    ]


def _hardest(workspace: Workspace, number: int, limit: int) -> list[HardestOut]:
    with _answered():
        found = hardest_backgrounds(workspace, number, limit)
    with workspace.read() as session:
        candidates = select(Candidate).where(Candidate.id.in_([one.candidate_id for one in found]))
        known = {one.id: one for one in session.scalars(candidates)}
        wanted = {one.predicted for one in found} | {one.class_index for one in known.values()}
        listed = select(ImageClass.class_index, ImageClass.name).where(ImageClass.class_index.in_(wanted))
        names = dict(session.execute(listed).all())
    return [
        HardestOut(
            candidate_id=one.candidate_id,
            result_sha256=known[one.candidate_id].result_sha256,
            score=one.score,
            predicted=names[one.predicted],
            confidence=one.confidence,
            source_class=names[known[one.candidate_id].class_index],
        )
        for one in found
        if one.candidate_id in known
    ]
