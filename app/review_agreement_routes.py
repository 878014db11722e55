"""How far annotators agree, for adjudicators, and how much overlap there is to measure it on, set by admins."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_query import recipe_or_active
from app.reviewer import Reviewer
from db.models import Role
from db.workspace import Workspace
from review.agreement import agreement_summary
from review.overlap import MAX_ANNOTATORS, PRIME, Overlap, load_overlap, save_overlap


class OverlapIn(BaseModel):
    """A share of the candidates wants ``k`` annotators, the others one; ``seed`` says which."""

    model_config = ConfigDict(extra="forbid")
    share: float = Field(ge=0, le=1)
    k: int = Field(ge=2, le=MAX_ANNOTATORS)
    seed: int = Field(0, ge=0, lt=PRIME)


def agreement_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/agreement")
    def agreement(recipe: int | None = Query(None, ge=1, le=MAX_ID), who: Reviewer = asking) -> dict:
        who.check(Role.ADJUDICATOR, "The agreement between annotators")
        recipe_id = recipe_or_active(workspace, recipe)
        if recipe_id is None:
            raise HTTPException(404, "There is no recipe yet: generate candidates and judge some first.")
        with workspace.read() as session:
            return agreement_summary(session, recipe_id)

    @router.get("/overlap")
    def overlap(who: Reviewer = asking) -> dict:
        who.check(Role.ADJUDICATOR, "The overlap setting")
        with workspace.read() as session:
            return asdict(load_overlap(session))

    @router.put("/overlap")
    def set_overlap(wanted: OverlapIn, who: Reviewer = asking) -> dict:
        who.check(Role.ADMIN, "The overlap setting")
        chosen = Overlap(**wanted.model_dump())
        with workspace.write() as session:
            save_overlap(session, chosen)
        return asdict(chosen)

    return router
