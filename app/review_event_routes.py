"""The outbox's way in: batches of events, each answered on its own."""

from __future__ import annotations

import json
from typing import Annotated, Any

from fastapi import APIRouter, BackgroundTasks, Depends, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from app.plain_route import MAX_ID, PlainErrorRoute, validation_sentence
from app.reviewer import Reviewer
from app.triage_watch import TriageWatch
from db.workspace import Workspace
from review.decisions import Status, record
from review.events import DecisionEvent

MAX_BATCH = 100
MAX_BODY_BYTES = 256 * 1024


class EventIn(BaseModel):
    """One event of the outbox, as the browser sends it."""

    model_config = ConfigDict(extra="ignore", strict=True)
    uuid: str = Field(max_length=36)
    verdict: str = Field(max_length=24)
    candidate_id: int | None = Field(None, ge=1, le=MAX_ID)
    result_sha256: str | None = Field(None, max_length=64)
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=7)
    undoes: str | None = Field(None, max_length=36)
    redoes: str | None = Field(None, max_length=36)
    via: str = Field("single", max_length=24)
    elapsed_ms: int | None = Field(None, ge=0, le=MAX_ID)


class EventOut(BaseModel):
    """What became of it. ``standing`` is the verdict that stands now; ``error`` says why it was refused."""

    uuid: str
    status: Status
    candidate_id: int | None = None
    standing: str | None = None
    field: str | None = None
    error: str | None = None


def event_router(workspace: Workspace, reviewer: Any) -> APIRouter:
    """``POST decisions``, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(route_class=PlainErrorRoute)
    triage = TriageWatch(workspace)

    @router.post("/decisions")
    async def decisions(
        request: Request,
        after: BackgroundTasks,
        who: Reviewer = Depends(reviewer),  # noqa: B008
    ) -> list[EventOut]:
        events = await _events(request)
        after.add_task(triage.decided)
        return await run_in_threadpool(_record, workspace, events, who.id)

    return router


async def _events(request: Request) -> list[Any]:
    """The batch, read by hand so that its size and type are settled before anything is parsed."""
    # A form of another site cannot send this type without asking first.
    if request.headers.get("content-type", "").split(";")[0].strip().lower() != "application/json":
        raise HTTPException(415, "Send the events as application/json.")
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY_BYTES:
            raise HTTPException(413, f"A batch may have at most {MAX_BODY_BYTES} bytes; send fewer events at once.")
    try:
        payload = json.loads(body)
    except (ValueError, RecursionError):
        raise HTTPException(400, "The body is not JSON.") from None
    events = payload.get("events") if isinstance(payload, dict) else None
    if not isinstance(events, list):
        raise HTTPException(422, 'Send {"events": [...]}.')
    if len(events) > MAX_BATCH:
        raise HTTPException(413, f"A batch may have at most {MAX_BATCH} events; send the rest in the next one.")
    return events


def _echo(entry: Any) -> str:
    """The uuid of a malformed event, as far as it can be given back."""
    identifier = entry.get("uuid") if isinstance(entry, dict) else None
    return identifier if isinstance(identifier, str) and identifier.isascii() and len(identifier) <= 36 else ""


_EVENT = TypeAdapter(EventIn)


def _record(workspace: Workspace, raw: list[Any], user_id: int) -> list[EventOut]:
    """Record what is well-formed; answer for every event, in order."""
    answers: dict[int, EventOut] = {}
    events: dict[int, DecisionEvent] = {}
    for position, entry in enumerate(raw):
        try:
            events[position] = DecisionEvent(**_EVENT.validate_python(entry).model_dump())
        except ValidationError as error:
            answers[position] = EventOut(
                uuid=_echo(entry),
                status=Status.REFUSED,
                field=".".join(str(part) for part in error.errors()[0]["loc"]),
                error=validation_sentence(error.errors()),
            )
    results = record(workspace, list(events.values()), user_id)
    for position, result in zip(events, results, strict=True):
        answers[position] = EventOut(
            uuid=result.uuid,
            status=result.status,
            candidate_id=result.candidate_id,
            standing=result.standing,
            field=result.refusal.field if result.refusal else None,
            error=str(result.refusal) if result.refusal else None,
        )
    return [answers[position] for position in range(len(raw))]
