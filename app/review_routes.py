"""The review page's own JSON routes: the queue, the outbox's way in, progress and history.

They answer errors as ``{"error": sentence}``. Every annotator sees only their own verdicts here:
judging is blind.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Coroutine
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.concurrency import run_in_threadpool

from db.models import Kind
from db.queries import active_recipe, get_meta, set_meta
from db.workspace import Workspace
from review.decisions import DecisionEvent, Status, history, last_standing, record
from review.queue import (
    InvalidCursor,
    Order,
    QueueFilter,
    QueueItem,
    QueueState,
    classes_with_candidates,
    counts_by_state,
    next_items,
    one_item,
)

MAX_ID = 2**63 - 1
MAX_BATCH = 100
MAX_BODY_BYTES = 256 * 1024
WORKSPACE_UUID = "workspace_uuid"
QUEUE_PAGE = 100


class PlainErrorRoute(APIRoute):
    """A route whose errors are one sentence: ``{"error": "..."}``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def plain(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                return JSONResponse({"error": _validation_sentence(error.errors())}, 422)
            except HTTPException as error:
                return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

        return plain


def _validation_sentence(errors: list[dict]) -> str:
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "path", "body"))
    return f"{place or 'The request'}: {first['msg']}."


class EventIn(BaseModel):
    """One event of the outbox, as the browser sends it."""

    model_config = ConfigDict(extra="ignore", strict=True)
    uuid: str = Field(max_length=36)
    verdict: str = Field(max_length=24)
    candidate_id: int | None = Field(None, ge=1, le=MAX_ID)
    result_sha256: str | None = Field(None, max_length=64)
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=7)
    undoes: str | None = Field(None, max_length=36)
    elapsed_ms: int | None = Field(None, ge=0, le=MAX_ID)


class EventOut(BaseModel):
    """What became of it. ``standing`` is the verdict that stands now; ``error`` says why it was refused."""

    uuid: str
    status: Status
    candidate_id: int | None = None
    standing: str | None = None
    field: str | None = None
    error: str | None = None


class ItemOut(BaseModel):
    """A candidate to look at."""

    id: int
    sha256: str
    class_index: int
    class_name: str
    source_name: str
    kind: Kind
    drop: float
    residual: float
    rank: int
    area: float
    width: int
    height: int
    verdict: str | None
    reasons: list[str]
    urls: dict[str, str]


class QueueOut(BaseModel):
    """Some items; ``cursor`` asks for those after them. ``owner`` names the workspace and the annotator, so that
    a browser never sends one annotator's waiting verdicts as another's."""

    owner: str
    items: list[ItemOut]
    cursor: str | None


class ProgressOut(BaseModel):
    """Counts of the filter's candidates by the annotator's own verdicts."""

    total: int
    unreviewed: int
    accepted: int
    rejected: int
    skipped: int


class LastOut(BaseModel):
    """What an undo would take back: None twice when there is nothing."""

    uuid: str | None
    item: ItemOut | None


class ClassOut(BaseModel):
    """A class that has candidates."""

    class_index: int
    name: str
    candidates: int


def _item_out(item: QueueItem) -> ItemOut:
    base = f"/media/candidate/{item.id}/{item.sha256}"
    names = {"source": "raw.png", "mask": "mask.png", "result": "result.png", "thumbnail": "thumbnail.jpg"}
    return ItemOut(**asdict(item), urls={key: f"{base}/{name}" for key, name in names.items()})


def _workspace_uuid(workspace: Workspace) -> str:
    with workspace.write() as session:
        if get_meta(session, WORKSPACE_UUID) is None:
            set_meta(session, WORKSPACE_UUID, uuid.uuid4().hex)
            session.flush()
        return get_meta(session, WORKSPACE_UUID)


def review_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The review routes, each behind ``current_user`` (a FastAPI dependency that gives the user's id)."""
    router = APIRouter(prefix="/api/review", route_class=PlainErrorRoute)
    workspace_uuid = _workspace_uuid(workspace)
    user = Depends(current_user)

    def wanted(
        state: QueueState = QueueState.UNREVIEWED,
        class_index: int | None = Query(None, ge=0, le=MAX_ID),
        drop_min: float | None = Query(None, allow_inf_nan=False),
        drop_max: float | None = Query(None, allow_inf_nan=False),
        kind: Kind | None = None,
        recipe: int | None = Query(None, ge=1, le=MAX_ID),
    ) -> QueueFilter:
        return QueueFilter(state, class_index, drop_min, drop_max, kind, _recipe(workspace, recipe))

    @router.get("/queue")
    def queue(
        wanted: QueueFilter = Depends(wanted),  # noqa: B008 - how FastAPI declares a dependency
        order: Order = Order.ID,
        cursor: str | None = Query(None, max_length=200),
        limit: int = Query(50, ge=1, le=QUEUE_PAGE),
        user_id: int = user,
    ) -> QueueOut:
        try:
            with workspace.read() as session:
                page = next_items(session, wanted, user_id, cursor, limit, order)
        except InvalidCursor as error:
            raise HTTPException(422, str(error)) from error
        items = [_item_out(item) for item in page.items]
        return QueueOut(owner=f"{workspace_uuid}:{user_id}", items=items, cursor=page.cursor)

    @router.get("/progress")
    def progress(wanted: QueueFilter = Depends(wanted), user_id: int = user) -> ProgressOut:  # noqa: B008
        with workspace.read() as session:
            counts = counts_by_state(session, wanted, user_id)
        return ProgressOut(total=counts.pop(QueueState.ALL), **{str(state): n for state, n in counts.items()})

    @router.get("/classes")
    def classes(recipe: int | None = Query(None, ge=1, le=MAX_ID), user_id: int = user) -> list[ClassOut]:
        with workspace.read() as session:
            rows = classes_with_candidates(session, _recipe(workspace, recipe))
        return [ClassOut(class_index=index, name=name, candidates=n) for index, name, n in rows]

    @router.get("/last")
    def last(user_id: int = user) -> LastOut:
        with workspace.read() as session:
            decision = last_standing(session, user_id)
            item = None if decision is None else one_item(session, decision.candidate_id, user_id)
        if item is None:
            return LastOut(uuid=None, item=None)
        return LastOut(uuid=decision.uuid, item=_item_out(item))

    @router.get("/history/{candidate_id}")
    def own_history(candidate_id: int = PathParameter(ge=1, le=MAX_ID), user_id: int = user) -> list[dict]:
        with workspace.read() as session:
            entries = history(session, candidate_id, user_id)
        return [{**asdict(entry), "created_at": entry.created_at.isoformat()} for entry in entries]

    @router.post("/decisions")
    async def decisions(request: Request, user_id: int = user) -> list[EventOut]:
        events = await _events(request)
        return await run_in_threadpool(_record, workspace, events, user_id)

    return router


def _recipe(workspace: Workspace, recipe_id: int | None) -> int | None:
    """The recipe asked for, else the active one, else no restriction."""
    if recipe_id is not None:
        return recipe_id
    with workspace.read() as session:
        recipe = active_recipe(session)
        return None if recipe is None else recipe.id


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
                error=_validation_sentence(error.errors()),
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
