"""How far the review is: one's own counts, everybody together, and for those who do not judge blind each annotator."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from pydantic import BaseModel

from app.plain_route import PlainErrorRoute
from app.review_query import FilterQuery
from app.reviewer import Reviewer
from db.models import Role
from db.workspace import Workspace
from review.filters import QueueState
from review.progress import annotators, median_seconds, progress


class TogetherOut(BaseModel):
    """All annotators together: verdicts wanted, given and left, who is at it now, and the estimate of the time left."""

    wanted: int
    decided: int
    left: int
    active: int
    median_seconds: float | None
    seconds_left: float | None


class AnnotatorOut(BaseModel):
    """One annotator's standing verdicts on the filter's candidates, and their pace."""

    user_id: int
    name: str
    accepted: int
    rejected: int
    skipped: int
    median_seconds: float | None
    last_decision_at: dt.datetime | None


class ProgressOut(BaseModel):
    """Counts of the filter's candidates by one's own verdicts; they add up to ``total``.

    ``median_seconds`` is one's own pace. ``annotators`` is None for those who judge blind.
    """

    total: int
    unreviewed: int
    accepted: int
    rejected: int
    skipped: int
    not_asked: int
    auto: int
    median_seconds: float | None
    together: TogetherOut
    annotators: list[AnnotatorOut] | None


def progress_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """``GET progress``, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/progress")
    def own_progress(
        query: FilterQuery = Depends(filter_query),  # noqa: B008 - how FastAPI declares a dependency
        who: Reviewer = asking,
    ) -> ProgressOut:
        wanted = query.queue_filter(workspace)
        if wanted.looks_at_others:
            who.check(Role.ADJUDICATOR, "A filter by what others have said")
        with workspace.read() as session:
            found = progress(session, wanted, who.id)
            own_pace = median_seconds(session, [who.id])
            rows = annotators(session, wanted) if who.sees_others else None
        counts = {str(state): number for state, number in found.counts.items() if state is not QueueState.ALL}
        return ProgressOut(
            total=found.counts[QueueState.ALL],
            **counts,
            median_seconds=own_pace,
            together=TogetherOut.model_validate(found.together, from_attributes=True),
            annotators=None
            if rows is None
            else [AnnotatorOut.model_validate(row, from_attributes=True) for row in rows],
        )

    return router


def filter_query(query: Annotated[FilterQuery, Query()]) -> FilterQuery:
    """The filter's parameters as one object."""
    return query
