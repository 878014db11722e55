"""Gold items, for admins, and how annotators do on them, for adjudicators."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import image_urls
from app.reviewer import Reviewer
from db.models import Role
from db.workspace import Workspace
from review.events import DecisionRefused
from review.gold import gold_report, list_gold, remove_gold, set_gold

MAX_NOTE = 2000


class GoldIn(BaseModel):
    """What is right for a candidate: accept, or reject with reasons."""

    model_config = ConfigDict(extra="forbid", strict=True)
    verdict: str = Field(max_length=24)
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=7)
    note: str = Field("", max_length=MAX_NOTE)


class GoldOut(BaseModel):
    """A gold item; ``urls`` are its images' addresses."""

    candidate_id: int
    sha256: str
    verdict: str
    reasons: list[str]
    note: str
    created_by: str
    created_at: dt.datetime
    urls: dict[str, str]


class ScoreOut(BaseModel):
    """How one annotator did; ``accuracy`` with its exact 95 % interval is None before the first answer."""

    user_id: int
    name: str
    judged: int
    correct: int
    wrong_accepts: int
    wrong_rejects: int
    skipped: int
    accuracy: float | None
    low: float | None
    high: float | None


def gold_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/gold")
    def gold(who: Reviewer = asking) -> list[GoldOut]:
        who.check(Role.ADMIN, "The list of gold items")
        with workspace.read() as session:
            entries = list_gold(session)
        return [GoldOut(**vars(entry), urls=image_urls(entry.candidate_id, entry.sha256)) for entry in entries]

    @router.get("/gold/report")
    def report(who: Reviewer = asking) -> list[ScoreOut]:
        who.check(Role.ADJUDICATOR, "The report on gold items")
        with workspace.read() as session:
            scores = gold_report(session)
        return [ScoreOut.model_validate(score, from_attributes=True) for score in scores]

    @router.put("/gold/{candidate_id}", status_code=204)
    def put_gold(given: GoldIn, candidate_id: int = PathParameter(ge=1, le=MAX_ID), who: Reviewer = asking) -> Response:
        who.check(Role.ADMIN, "Choosing gold items")
        try:
            with workspace.write() as session:
                set_gold(session, candidate_id, given.verdict, given.reasons, given.note, who.name)
        except DecisionRefused as refusal:
            raise HTTPException(422, f"{refusal.field}: {refusal}") from refusal
        return Response(status_code=204)

    @router.delete("/gold/{candidate_id}", status_code=204)
    def delete_gold(candidate_id: int = PathParameter(ge=1, le=MAX_ID), who: Reviewer = asking) -> Response:
        who.check(Role.ADMIN, "Choosing gold items")
        with workspace.write() as session:
            removed = remove_gold(session, candidate_id)
        if not removed:
            raise HTTPException(404, f"Candidate {candidate_id} is no gold item.")
        return Response(status_code=204)

    return router
