"""The review's JSON routes under ``/api/review``; docs/review.md lists them.

They answer errors as ``{"error": sentence}``. Judging is blind: an annotator sees only their own verdicts, an
adjudicator or an admin everybody's.
"""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter

from app.mask_routes import mask_router
from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_adjudication_routes import adjudication_router
from app.review_agreement_routes import agreement_router
from app.review_event_routes import event_router
from app.review_gold_routes import gold_router
from app.review_history_routes import history_router
from app.review_progress_routes import progress_router
from app.review_queue_routes import queue_router
from app.review_view_routes import view_router
from app.reviewer import reviewer_dependency
from db.workspace import Workspace

__all__ = ["MAX_ID", "PlainErrorRoute", "review_router"]

ROUTERS = (
    queue_router,
    progress_router,
    event_router,
    history_router,
    mask_router,
    view_router,
    adjudication_router,
    agreement_router,
    gold_router,
)


def review_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The review routes, each behind ``current_user`` (a FastAPI dependency that gives the user's id)."""
    router = APIRouter(prefix="/api/review")
    reviewer = reviewer_dependency(workspace, current_user)
    for make in ROUTERS:
        router.include_router(make(workspace, reviewer))
    return router
