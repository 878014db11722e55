"""Near-duplicates as JSON: the groups with their members. Deciding goes through the review's own route, with
``via: "duplicates"``. Errors are ``{"error": sentence}``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from app.jobs.review import DUPLICATES, NoRecipe, recipe_of
from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, item_out
from app.reviewer import Reviewer, reviewer_dependency
from db import jobs
from db.models import Role
from db.workspace import Workspace
from review.duplicates import (
    DISTANCE,
    MAX_GROUPS,
    OWN_DISTANCE,
    GroupMember,
    Likeness,
    duplicate_groups,
    duplicates_found_with,
    group_counts,
)
from review.near_hashes import MAX_BITS

THUMBNAIL = 448
RecipeId = Annotated[int | None, Query(ge=1, le=MAX_ID)]


class LikeSourceOut(BaseModel):
    """The source a candidate looks like, ``distance`` bits away; ``is_own``: the one it was made of."""

    source_id: int
    name: str
    is_own: bool
    distance: int
    url: str


class MemberOut(BaseModel):
    """A candidate with one's own verdict; ``distance`` in bits to the nearest other of the group."""

    item: ItemOut
    distance: int | None
    source: LikeSourceOut | None


class GroupOut(BaseModel):
    """Candidates that look alike; ``members`` may be fewer than ``size``."""

    id: int
    size: int
    members: list[MemberOut]


class GroupsOut(BaseModel):
    """Some groups; ``cursor`` asks for those after them."""

    groups: list[GroupOut]
    cursor: int | None


class StatusOut(BaseModel):
    """The last search: what it was made with and when (None before the first), how many groups it found of each sort,
    and the job that searches now."""

    recipe_id: int
    found_with: dict | None
    counts: dict[str, int]
    job_id: int | None


class FindIn(BaseModel):
    """How near is near, in bits of 64."""

    model_config = ConfigDict(extra="forbid", strict=True)
    distance: int = Field(DISTANCE, ge=0, le=MAX_BITS)
    own_distance: int = Field(OWN_DISTANCE, ge=0, le=MAX_BITS)


class JobOut(BaseModel):
    """The job that searches."""

    job_id: int


def duplicate_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/duplicates``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/duplicates", route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    @router.get("")
    def status(recipe: RecipeId = None, who: Reviewer = asking) -> StatusOut:
        recipe_id = _recipe_id(workspace, recipe)
        with workspace.read() as session:
            job = jobs.active_job(session, DUPLICATES)
            return StatusOut(
                recipe_id=recipe_id,
                found_with=duplicates_found_with(session, recipe_id),
                counts={str(likeness): count for likeness, count in group_counts(session, recipe_id).items()},
                job_id=None if job is None else job.id,
            )

    @router.get("/groups")
    def groups(
        likeness: Likeness = Likeness.ALL,
        only_open: bool = False,
        cursor: int = Query(0, ge=0, le=MAX_ID),
        limit: int = Query(20, ge=1, le=MAX_GROUPS),
        recipe: RecipeId = None,
        who: Reviewer = asking,
    ) -> GroupsOut:
        recipe_id = _recipe_id(workspace, recipe)
        with workspace.read() as session:
            page = duplicate_groups(
                session, recipe_id, who.id, likeness=likeness, only_open=only_open, cursor=cursor, limit=limit
            )
        found = [
            GroupOut(id=group.id, size=group.size, members=[_member_out(member) for member in group.members])
            for group in page.groups
        ]
        return GroupsOut(groups=found, cursor=page.cursor)

    @router.post("/find", status_code=202)
    def find(given: FindIn, recipe: RecipeId = None, who: Reviewer = asking) -> JobOut:
        who.check(Role.ADJUDICATOR, "Searching for duplicates")
        params = {"recipe_id": _recipe_id(workspace, recipe), **given.model_dump()}
        with workspace.write() as session:
            job = jobs.active_job(session, DUPLICATES) or jobs.enqueue(session, DUPLICATES, params, created_by=who.name)
        return JobOut(job_id=job.id)

    return router


def _recipe_id(workspace: Workspace, recipe: int | None) -> int:
    try:
        return recipe_of(workspace, {"recipe_id": recipe}).id
    except NoRecipe as error:
        raise HTTPException(409, str(error)) from error


def _member_out(member: GroupMember) -> MemberOut:
    source = None
    if member.source is not None:
        like = member.source
        url = f"/media/source/{like.source_id}/{like.sha256}.jpg?size={THUMBNAIL}"
        source = LikeSourceOut(
            source_id=like.source_id, name=like.name, is_own=like.is_own, distance=like.distance, url=url
        )
    return MemberOut(item=item_out(member.item), distance=member.distance, source=source)
