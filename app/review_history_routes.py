"""What happened: a candidate's history, and what the next undo and the next redo would do."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from fastapi import APIRouter, Depends
from fastapi import Path as PathParameter
from pydantic import BaseModel

from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, image_urls, item_out
from app.reviewer import Reviewer
from db.workspace import Workspace
from review.history import Version, adjudications, history, versions
from review.queue import one_item
from review.undo import last_standing, last_undone


class LastOut(BaseModel):
    """What an undo would take back: None twice when there is nothing."""

    uuid: str | None
    item: ItemOut | None


class LastUndoneOut(BaseModel):
    """The undo that a redo would take back, and the verdict it would give again; all None when there is nothing."""

    uuid: str | None
    item: ItemOut | None
    verdict: str | None
    reasons: list[str] | None


class DecisionOut(BaseModel):
    """One decision as it happened; review/history.py says what the fields mean."""

    uuid: str
    user_id: int
    user_name: str
    verdict: str
    reasons: list[str]
    via: str
    undoes: str | None
    redoes: str | None
    undone: bool
    redone: bool
    elapsed_ms: int | None
    created_at: dt.datetime


class AdjudicationOut(BaseModel):
    """One adjudication; ``stands`` for the one that counts."""

    uuid: str
    user_id: int
    user_name: str
    verdict: str
    reasons: list[str]
    note: str
    stands: bool
    created_at: dt.datetime


class VersionOut(BaseModel):
    """One version of the candidate's image; ``thumbnail`` and ``result`` are addresses."""

    id: int
    version: int
    parent_id: int | None
    sha256: str
    thumbnail: str
    result: str
    created_at: dt.datetime


class HistoryOut(BaseModel):
    """Decisions and adjudications, oldest first, and all versions. An annotator gets only their own decisions."""

    candidate_id: int
    decisions: list[DecisionOut]
    adjudications: list[AdjudicationOut]
    versions: list[VersionOut]


def history_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """The routes, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer)

    @router.get("/last")
    def last(who: Reviewer = asking) -> LastOut:
        with workspace.read() as session:
            decision = last_standing(session, who.id)
            item = None if decision is None else one_item(session, decision.candidate_id, who.id)
        if item is None:
            return LastOut(uuid=None, item=None)
        return LastOut(uuid=decision.uuid, item=item_out(item))

    @router.get("/last-undone")
    def undone(who: Reviewer = asking) -> LastUndoneOut:
        with workspace.read() as session:
            found = last_undone(session, who.id)
            if found is None:
                return LastUndoneOut(uuid=None, item=None, verdict=None, reasons=None)
            undo, decision = found
            item = one_item(session, undo.candidate_id, who.id)
        return LastUndoneOut(uuid=undo.uuid, item=item_out(item), verdict=decision.verdict, reasons=decision.reasons)

    @router.get("/history/{candidate_id}")
    def candidate_history(candidate_id: int = PathParameter(ge=1, le=MAX_ID), who: Reviewer = asking) -> HistoryOut:
        with workspace.read() as session:
            decisions = history(session, candidate_id, None if who.sees_others else who.id)
            final_words = adjudications(session, candidate_id) if who.sees_others else []
            lineage = versions(session, candidate_id)
        return HistoryOut(
            candidate_id=candidate_id,
            decisions=[DecisionOut.model_validate(entry, from_attributes=True) for entry in decisions],
            adjudications=[AdjudicationOut.model_validate(entry, from_attributes=True) for entry in final_words],
            versions=[_version_out(version) for version in lineage],
        )

    return router


def _version_out(version: Version) -> VersionOut:
    urls = image_urls(version.id, version.sha256)
    return VersionOut(
        id=version.id,
        version=version.version,
        parent_id=version.parent_id,
        sha256=version.sha256,
        thumbnail=urls["thumbnail"],
        result=urls["result"],
        created_at=version.created_at,
    )
