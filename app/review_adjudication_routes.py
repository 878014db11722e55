"""Disagreements and the final word on them, for adjudicators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, item_out
from app.review_query import recipe_or_active
from app.reviewer import Reviewer
from db.models import Role
from db.workspace import Workspace
from review.adjudication import MAX_LIMIT, MAX_NOTE, adjudicate, disagreement_count, disagreements
from review.decisions import Status
from review.events import DecisionRefused


class OpinionOut(BaseModel):
    """What one annotator says; the pseudonym means nothing on another candidate."""

    annotator: str
    verdict: str
    reasons: list[str]


class DisagreementOut(BaseModel):
    """A candidate with what its annotators say of it."""

    item: ItemOut
    opinions: list[OpinionOut]


class DisagreementsOut(BaseModel):
    """Some disagreements; ``cursor`` asks for those after them, ``total`` counts all that are open."""

    items: list[DisagreementOut]
    cursor: int | None
    total: int


class AdjudicationIn(BaseModel):
    """A final word: accept, reject with reasons, or undo, which opens the candidate again."""

    model_config = ConfigDict(extra="forbid", strict=True)
    uuid: str = Field(max_length=36)
    candidate_id: int = Field(ge=1, le=MAX_ID)
    verdict: str = Field(max_length=24)
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=7)
    note: str = Field("", max_length=MAX_NOTE)
    result_sha256: str | None = Field(None, max_length=64)


class AdjudicationResultOut(BaseModel):
    """``status`` is stored or duplicate; ``standing`` the candidate's final verdict now, None when it is open."""

    uuid: str
    status: Status
    candidate_id: int
    standing: str | None


def adjudication_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/adjudication")
    def open_disagreements(
        recipe: int | None = Query(None, ge=1, le=MAX_ID),
        cursor: int | None = Query(None, ge=0, le=MAX_ID),
        limit: int = Query(20, ge=1, le=MAX_LIMIT),
        skips: bool = False,
        who: Reviewer = asking,
    ) -> DisagreementsOut:
        who.check(Role.ADJUDICATOR, "Adjudication")
        recipe_id = recipe_or_active(workspace, recipe)
        with workspace.read() as session:
            page = disagreements(session, recipe_id, who.id, cursor, limit, with_skips=skips)
            total = disagreement_count(session, recipe_id, with_skips=skips)
        items = [
            DisagreementOut(
                item=item_out(entry.item),
                opinions=[OpinionOut.model_validate(opinion, from_attributes=True) for opinion in entry.opinions],
            )
            for entry in page.disagreements
        ]
        return DisagreementsOut(items=items, cursor=page.cursor, total=total)

    @router.post("/adjudication")
    def adjudicate_one(given: AdjudicationIn, who: Reviewer = asking) -> AdjudicationResultOut:
        who.check(Role.ADJUDICATOR, "Adjudication")
        try:
            answer = adjudicate(workspace, user_id=who.id, **given.model_dump())
        except DecisionRefused as refusal:
            raise HTTPException(422, f"{refusal.field}: {refusal}") from refusal
        return AdjudicationResultOut.model_validate(answer, from_attributes=True)

    return router
