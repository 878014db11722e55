"""Triage as JSON: the newest model with its figures, retraining, bands to look at, confirm and revoke, second looks.

Errors are ``{"error": sentence}``. Confirming and revoking are for admins; an annotator sees only surprising verdicts
of their own.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select

from app.jobs.review import TRIAGE, NoRecipe, recipe_of
from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, item_out
from app.reviewer import Reviewer, reviewer_dependency
from db import jobs
from db.models import Role, TriageBand, TriageModel
from db.workspace import Workspace
from review.queue import items_by_id
from review.triage.bands import MAX_ERROR, BandError, BandProposal, newest_model, predictions, propose_bands
from review.triage.confirmed import active_band, auto_counts, confirm_bands, confirmed_bands, revoke_band
from review.triage.surprising import MAX_LISTED, surprising_verdicts
from review.triage.training import retrain_state

HISTOGRAM_BINS = 20
MAX_MODELS = 200
ErrorShare = Annotated[float, Field(gt=0, lt=0.5)]
RecipeId = Annotated[int | None, Query(ge=1, le=MAX_ID)]


class ModelOut(BaseModel):
    """A version. ``metrics`` are those of ``review.triage.model.fit`` with ``cutoff`` and ``libraries``."""

    id: int
    created_at: dt.datetime
    last_decision_id: int
    trained_on: int
    features: list[str]
    metrics: dict


class BandOut(BaseModel):
    """A confirmed band; ``estimate`` holds the figures at the moment it was confirmed."""

    id: int
    model_id: int
    accept_above: float | None
    reject_below: float | None
    estimate: dict
    confirmed_by: str
    confirmed_at: dt.datetime
    revoked_at: dt.datetime | None


class BinOut(BaseModel):
    """How many candidates have a P(accept) from ``lower`` to ``upper``: looked at by somebody, and open."""

    lower: float
    upper: float
    looked_at: int
    open: int


class StatusOut(BaseModel):
    """Where triage stands. ``missing`` says why there is no model; ``job_id`` is the training that waits or runs.

    ``auto_accepts`` and ``auto_rejects`` are the candidates for which the model's verdict counts now.
    """

    recipe_id: int
    model: ModelOut | None
    new_decisions: int
    due_after: int
    is_due: bool
    missing: str
    job_id: int | None
    band: BandOut | None
    auto_accepts: int
    auto_rejects: int
    histogram: list[BinOut]


class EndOut(BaseModel):
    """One end of a proposal; ``error`` is ``errors`` / ``judged``, ``upper`` its bound, ``expected`` what the model
    expects among the ``candidates`` that it would decide."""

    threshold: float
    judged: int
    errors: int
    error: float
    upper: float
    candidates: int
    expected: float


class ProposalOut(BaseModel):
    """Bands that could be confirmed; ``left`` of the ``open`` candidates would stay for people."""

    model_id: int
    max_error: float
    max_reject_error: float
    confidence: float
    accept: EndOut | None
    reject: EndOut | None
    open: int
    left: int
    notes: list[str]


class ConfirmIn(BaseModel):
    """The proposal that was on screen, named by its model and errors, and which ends of it to confirm."""

    model_config = ConfigDict(extra="forbid", strict=True)
    model_id: int = Field(ge=1, le=MAX_ID)
    max_error: ErrorShare
    max_reject_error: ErrorShare
    accept: bool
    reject: bool


class JobOut(BaseModel):
    """The training job that waits or runs."""

    job_id: int


class SecondLookOut(BaseModel):
    """Candidates whose verdict the model finds hard to believe, the most surprising first."""

    items: list[ItemOut]


def triage_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/triage``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/triage", route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    @router.get("")
    def status(recipe: RecipeId = None, who: Reviewer = asking) -> StatusOut:
        who.check(Role.ADJUDICATOR, "Triage")
        return _status(workspace, _recipe_id(workspace, recipe))

    @router.get("/models")
    def models(
        recipe: RecipeId = None, limit: int = Query(20, ge=1, le=MAX_MODELS), who: Reviewer = asking
    ) -> list[ModelOut]:
        who.check(Role.ADJUDICATOR, "Triage")
        query = select(TriageModel).where(TriageModel.recipe_id == _recipe_id(workspace, recipe))
        with workspace.read() as session:
            rows = session.scalars(query.order_by(TriageModel.id.desc()).limit(limit))
            return [ModelOut.model_validate(row, from_attributes=True) for row in rows]

    @router.post("/train", status_code=202)
    def train(recipe: RecipeId = None, who: Reviewer = asking) -> JobOut:
        who.check(Role.ADJUDICATOR, "Training")
        recipe_id = _recipe_id(workspace, recipe)
        with workspace.write() as session:
            job = jobs.active_job(session, TRIAGE)
            if job is None:
                job = jobs.enqueue(session, TRIAGE, {"recipe_id": recipe_id}, created_by=who.name)
        return JobOut(job_id=job.id)

    @router.get("/bands")
    def bands(
        max_error: float = Query(MAX_ERROR, gt=0, lt=0.5),
        max_reject_error: float | None = Query(None, gt=0, lt=0.5),
        recipe: RecipeId = None,
        who: Reviewer = asking,
    ) -> ProposalOut:
        who.check(Role.ADJUDICATOR, "Looking at bands")
        recipe_id = _recipe_id(workspace, recipe)
        with workspace.read() as session:
            model = newest_model(session, recipe_id)
            if model is None:
                raise HTTPException(409, retrain_state(session, recipe_id).missing or "No model has been trained yet.")
            return _proposal_out(propose_bands(session, model.id, max_error, max_reject_error))

    @router.post("/bands", status_code=201)
    def confirm(given: ConfirmIn, who: Reviewer = asking) -> BandOut:
        who.check(Role.ADMIN, "Confirming a band")
        try:
            band = confirm_bands(workspace, confirmed_by=who.name, **given.model_dump())
        except BandError as error:
            raise HTTPException(409, str(error)) from error
        return _band_out(band)

    @router.get("/bands/confirmed")
    def confirmed(recipe: RecipeId = None, who: Reviewer = asking) -> list[BandOut]:
        who.check(Role.ADJUDICATOR, "Looking at bands")
        with workspace.read() as session:
            return [_band_out(band) for band in confirmed_bands(session, _recipe_id(workspace, recipe))]

    @router.post("/bands/{band_id}/revoke")
    def revoke(band_id: int = PathParameter(ge=1, le=MAX_ID), who: Reviewer = asking) -> BandOut:
        who.check(Role.ADMIN, "Revoking a band")
        try:
            return _band_out(revoke_band(workspace, band_id))
        except BandError as error:
            raise HTTPException(409, str(error)) from error

    @router.get("/second-look")
    def second_look(
        everyone: bool = False,
        recipe: RecipeId = None,
        limit: int = Query(50, ge=1, le=MAX_LISTED),
        who: Reviewer = asking,
    ) -> SecondLookOut:
        if everyone:
            who.check(Role.ADJUDICATOR, "Everybody's surprising verdicts")
        with workspace.read() as session:
            model = newest_model(session, _recipe_id(workspace, recipe))
            ids = [] if model is None else surprising_verdicts(session, model, None if everyone else who.id, limit)
            return SecondLookOut(items=[item_out(item) for item in items_by_id(session, ids, who.id)])

    return router


def _recipe_id(workspace: Workspace, recipe: int | None) -> int:
    try:
        return recipe_of(workspace, {"recipe_id": recipe}).id
    except NoRecipe as error:
        raise HTTPException(409, str(error)) from error


def _status(workspace: Workspace, recipe_id: int) -> StatusOut:
    with workspace.read() as session:
        state = retrain_state(session, recipe_id)
        model = newest_model(session, recipe_id)
        band = active_band(session, recipe_id)
        job = jobs.active_job(session, TRIAGE)
        accepts, rejects = (0, 0) if band is None else auto_counts(session, recipe_id).values()
        return StatusOut(
            recipe_id=recipe_id,
            model=None if model is None else ModelOut.model_validate(model, from_attributes=True),
            new_decisions=state.new_decisions,
            due_after=state.due_after,
            is_due=state.is_due,
            missing=state.missing,
            job_id=None if job is None else job.id,
            band=None if band is None else _band_out(band),
            auto_accepts=accepts,
            auto_rejects=rejects,
            histogram=[] if model is None else _histogram(*predictions(session, model)[1:]),
        )


def _histogram(p_accept, is_open) -> list[BinOut]:
    import numpy as np

    edges = np.linspace(0, 1, HISTOGRAM_BINS + 1)
    open_, looked_at = (np.histogram(p_accept[some], edges)[0].tolist() for some in (is_open, ~is_open))
    return [
        BinOut(lower=lower, upper=upper, looked_at=seen, open=waiting)
        for lower, upper, seen, waiting in zip(edges[:-1].tolist(), edges[1:].tolist(), looked_at, open_, strict=True)
    ]


def _proposal_out(proposal: BandProposal) -> ProposalOut:
    ends = {str(band.verdict): EndOut(**band.to_json()) for band in proposal.bands}
    return ProposalOut(
        model_id=proposal.model_id,
        max_error=proposal.max_error,
        max_reject_error=proposal.max_reject_error,
        confidence=proposal.confidence,
        accept=ends.get("accept"),
        reject=ends.get("reject"),
        open=proposal.open,
        left=proposal.left,
        notes=list(proposal.notes),
    )


def _band_out(band: TriageBand) -> BandOut:
    return BandOut.model_validate(band, from_attributes=True)
