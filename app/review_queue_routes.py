"""The queue, what can be chosen in its filter, and the leases on what it has given out."""

from __future__ import annotations

import datetime as dt
import uuid
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, item_out
from app.review_query import ViewQuery, recipe_or_active
from app.reviewer import Reviewer
from db.models import Role
from db.queries import get_meta, set_meta
from db.workspace import Workspace
from review.leases import LEASE_SECONDS, MAX_TAB_LENGTH, release, renew, take_page
from review.orders import InvalidCursor
from review.queue import classes_with_candidates, next_items, recipes_with_candidates

WORKSPACE_UUID = "workspace_uuid"
QUEUE_PAGE = 100
MAX_LEASES = 200
MAX_CURSOR = 300

Tab = Annotated[str, Field(min_length=1, max_length=MAX_TAB_LENGTH)]
CandidateId = Annotated[int, Field(ge=1, le=MAX_ID)]


class QueueOut(BaseModel):
    """Some items; ``cursor`` asks for those after them. ``owner`` names the workspace and the annotator, so that
    a browser never sends one annotator's waiting verdicts as another's. ``leased_until`` is set for a tab that asked
    for unreviewed candidates."""

    owner: str
    items: list[ItemOut]
    cursor: str | None
    leased_until: dt.datetime | None = None
    lease_seconds: int = LEASE_SECONDS


class ClassOut(BaseModel):
    """A class that has candidates."""

    class_index: int
    name: str
    candidates: int


class RecipeOut(BaseModel):
    """A recipe that has candidates; ``active`` is the one meant when none is named."""

    id: int
    hash: str
    active: bool
    candidates: int
    created_at: dt.datetime


class LeasesIn(BaseModel):
    """Candidates that a tab still needs."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tab: Tab
    ids: list[CandidateId] = Field(max_length=MAX_LEASES)


class ReleaseIn(BaseModel):
    """Candidates that a tab gives back: all of its own when ``ids`` is left out."""

    model_config = ConfigDict(extra="forbid", strict=True)
    tab: Tab
    ids: list[CandidateId] | None = Field(None, max_length=MAX_LEASES)


class LeasesOut(BaseModel):
    """``leased`` are the tab's until then; ``lost`` somebody else has, or nobody is asked for any more."""

    leased: list[int]
    lost: list[int]
    until: dt.datetime
    seconds: int = LEASE_SECONDS


class ReleaseOut(BaseModel):
    """How many leases were given back."""

    released: int


def queue_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    workspace_uuid = _workspace_uuid(workspace)
    asking = Depends(reviewer)

    @router.get("/queue")
    def queue(
        view: ViewQuery = Depends(view_query),  # noqa: B008 - how FastAPI declares a dependency
        cursor: str | None = Query(None, max_length=MAX_CURSOR),
        limit: int = Query(50, ge=1, le=QUEUE_PAGE),
        tab: str | None = Query(None, min_length=1, max_length=MAX_TAB_LENGTH),
        who: Reviewer = asking,
    ) -> QueueOut:
        wanted = view.queue_filter(workspace)
        if wanted.looks_at_others:
            who.check(Role.ADJUDICATOR, "A filter by what others have said")
        place = (cursor, limit, view.order)
        until = None
        try:
            if tab is None:
                with workspace.read() as session:
                    page = next_items(session, wanted, who.id, *place, seed=view.seed)
            else:
                taken = take_page(workspace, wanted, who.id, tab, *place, seed=view.seed)
                page, until = taken.page, taken.until
        except InvalidCursor as error:
            raise HTTPException(422, str(error)) from error
        items = [item_out(item) for item in page.items]
        return QueueOut(owner=f"{workspace_uuid}:{who.id}", items=items, cursor=page.cursor, leased_until=until)

    @router.get("/classes")
    def classes(recipe: int | None = Query(None, ge=1, le=MAX_ID), who: Reviewer = asking) -> list[ClassOut]:
        with workspace.read() as session:
            rows = classes_with_candidates(session, recipe_or_active(workspace, recipe))
        return [ClassOut(class_index=index, name=name, candidates=n) for index, name, n in rows]

    @router.get("/recipes")
    def recipes(who: Reviewer = asking) -> list[RecipeOut]:
        active = recipe_or_active(workspace, None)
        with workspace.read() as session:
            rows = recipes_with_candidates(session)
        return [
            RecipeOut(id=row.id, hash=row.hash, active=row.id == active, candidates=number, created_at=row.created_at)
            for row, number in rows
        ]

    @router.post("/leases")
    @router.post("/leases/renew")
    def renew_leases(wanted: LeasesIn, who: Reviewer = asking) -> LeasesOut:
        answer = renew(workspace, wanted.ids, who.id, wanted.tab)
        return LeasesOut(leased=answer.leased, lost=answer.lost, until=answer.until)

    @router.delete("/leases")
    @router.post("/leases/release")
    def release_leases(given: ReleaseIn, who: Reviewer = asking) -> ReleaseOut:
        return ReleaseOut(released=release(workspace, who.id, given.tab, given.ids))

    return router


def view_query(query: Annotated[ViewQuery, Query()]) -> ViewQuery:
    """The filter and order among the other parameters: FastAPI reads a model of them only where it is alone."""
    return query


def _workspace_uuid(workspace: Workspace) -> str:
    with workspace.write() as session:
        if get_meta(session, WORKSPACE_UUID) is None:
            set_meta(session, WORKSPACE_UUID, uuid.uuid4().hex)
            session.flush()
        return get_meta(session, WORKSPACE_UUID)
