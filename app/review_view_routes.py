"""Saved views of the queue."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from fastapi import APIRouter, Depends, HTTPException, Response
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_query import SavedQuery
from app.reviewer import Reviewer
from db.models import Role
from db.workspace import Workspace
from review.roles import may
from review.views import MAX_NAME, UnknownView, View, ViewError, delete_view, list_views, save_view


class ViewIn(BaseModel):
    """A view to save; one's own of the same name is replaced."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=MAX_NAME)
    query: SavedQuery
    shared: bool = False


class ViewOut(BaseModel):
    """A view; ``query`` holds the queue's parameters that differ from their defaults."""

    id: int
    name: str
    owner: str
    mine: bool
    shared: bool
    query: dict
    created_at: dt.datetime


def view_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/views")
    def views(who: Reviewer = asking) -> list[ViewOut]:
        with workspace.read() as session:
            rows = list_views(session, who.id)
        return [_view_out(view) for view in rows if who.sees_others or not _looks_at_others(view.query)]

    @router.post("/views")
    def save(wanted: ViewIn, who: Reviewer = asking) -> ViewOut:
        if _looks_at_others(wanted.query.stored()):
            who.check(Role.ADJUDICATOR, "A filter by what others have said")
        try:
            with workspace.write() as session:
                view = save_view(session, who.id, wanted.name, wanted.query.stored(), shared=wanted.shared)
        except ViewError as error:
            raise HTTPException(422, str(error)) from error
        return _view_out(view)

    @router.delete("/views/{view_id}", status_code=204)
    def delete(view_id: int = PathParameter(ge=1, le=MAX_ID), who: Reviewer = asking) -> Response:
        try:
            with workspace.write() as session:
                delete_view(session, who.id, view_id, is_admin=may(who.role, Role.ADMIN))
        except UnknownView as error:
            raise HTTPException(404, str(error)) from error
        return Response(status_code=204)

    return router


def _looks_at_others(query: dict) -> bool:
    return any(name in query for name in ("verdict", "annotator", "disagreement"))


def _view_out(view: View) -> ViewOut:
    return ViewOut.model_validate(view, from_attributes=True)
