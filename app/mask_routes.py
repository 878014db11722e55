"""The mask editor's routes: grow a mask from scribbles, ask SAM about clicks, make the candidate again.

Growing answers at once (OpenCV, no weights). What needs a model is a job of the worker, which has it loaded; the
page asks after the job here, since the list of all jobs is the admin's.
"""

from __future__ import annotations

import base64
import binascii
import io
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from app.jobs.masks import CORRECTIONS
from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import ItemOut, item_out
from app.reviewer import Reviewer
from db.files import atomic_write
from db.jobs import enqueue
from db.models import Candidate, Job, JobState, Kind, Recipe
from db.queries import is_imported
from db.workspace import Workspace
from review.queue import one_item

if TYPE_CHECKING:
    import numpy as np

MAX_PNG_CHARACTERS = 12 << 20
MAX_CLICKS = 64
MASK_JOBS = ("correct_mask", "sam_click")

CandidateId = Annotated[int, PathParameter(ge=1, le=MAX_ID)]
Png = Annotated[str, Field(max_length=MAX_PNG_CHARACTERS)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")


class ScribblesIn(_Strict):
    """PNGs in base64, all of the candidate's size; any white pixel counts."""

    mask: Png
    on: Png
    off: Png


class ClickIn(_Strict):
    """A point in pixels of the working image, and whether it is on the object."""

    x: float
    y: float
    on: bool


class ClicksIn(_Strict):
    """Every click so far: SAM answers all of them together."""

    clicks: list[ClickIn] = Field(min_length=1, max_length=MAX_CLICKS)


class CorrectionIn(_Strict):
    """The new mask, and the sha256 of the result it corrects."""

    mask: Png
    result_sha256: str = Field(max_length=64)


class MaskOut(BaseModel):
    """A mask as a PNG in base64."""

    mask: str


class JobOut(BaseModel):
    """How far the job is; ``candidate`` is the new version and ``mask`` SAM's answer, once done."""

    id: int
    state: JobState
    message: str = ""
    error: str = ""
    candidate: ItemOut | None = None
    mask: str | None = None


class ToolsOut(BaseModel):
    """Whether clicks can be answered: whether Segment Anything's weights are here."""

    sam: bool


def mask_router(workspace: Workspace, reviewer: Callable[..., Reviewer]) -> APIRouter:
    """``/masks/...``, for the user that the dependency ``reviewer`` gives."""
    router = APIRouter(prefix="/masks", route_class=PlainErrorRoute)
    who_asks = Depends(reviewer)

    @router.get("/tools", dependencies=[who_asks])
    def tools() -> ToolsOut:
        from generation.weights import list_weights

        return ToolsOut(sam=any(row.name == "sam_vit_h" and row.state == "ok" for row in list_weights()))

    @router.post("/{candidate_id}/grow", dependencies=[who_asks])
    def grow(candidate_id: CandidateId, asked: ScribblesIn) -> MaskOut:
        from generation.artifacts import decode_png, encode_png
        from generation.masking.scribbles import NoScribble, grow_from_scribbles

        candidate = _background(workspace, candidate_id)
        image = decode_png((workspace.path(candidate.folder) / "raw.png").read_bytes())
        masks = [_decode(text, candidate) for text in (asked.mask, asked.on, asked.off)]
        try:
            grown = grow_from_scribbles(image, *masks)
        except NoScribble as error:
            raise HTTPException(422, str(error)) from error
        return MaskOut(mask=base64.b64encode(encode_png(grown)).decode())

    @router.post("/{candidate_id}/clicks")
    def clicks(candidate_id: CandidateId, asked: ClicksIn, who: Reviewer = who_asks) -> JobOut:
        candidate = _background(workspace, candidate_id)
        for click in asked.clicks:
            if not (0 <= click.x < candidate.width and 0 <= click.y < candidate.height):
                raise HTTPException(422, f"The click at {click.x:g}, {click.y:g} is outside the image.")
        params = {"candidate_id": candidate_id, "clicks": [[click.x, click.y, click.on] for click in asked.clicks]}
        return _enqueue(workspace, "sam_click", params, who)

    @router.post("/{candidate_id}")
    def correct(candidate_id: CandidateId, asked: CorrectionIn, who: Reviewer = who_asks) -> JobOut:
        from generation.artifacts import encode_png

        candidate = _background(workspace, candidate_id)
        if asked.result_sha256 != candidate.result_sha256:
            raise HTTPException(
                409, "This candidate has another image than the one that was corrected; reload the page."
            )
        mask = _decode(asked.mask, candidate)
        path = f"{CORRECTIONS}/{uuid.uuid4().hex}.png"
        atomic_write(workspace.path(path), encode_png(mask))
        params = {"candidate_id": candidate_id, "mask": path, "corrected_by": who.name}
        return _enqueue(workspace, "correct_mask", params, who)

    @router.get("/jobs/{job_id}")
    def job(job_id: CandidateId, who: Reviewer = who_asks) -> JobOut:
        with workspace.read() as session:
            found = session.get(Job, job_id)
            if found is None or found.kind not in MASK_JOBS:
                raise HTTPException(404, "There is no such correction; it may belong to another workspace.")
            made = (found.result or {}).get("candidate_id")
            item = one_item(session, made, who.id) if made else None
        answer = JobOut(id=found.id, state=found.state, message=found.message, error=found.error)
        if item is not None:
            answer.candidate = item_out(item)
        if found.kind == "sam_click" and found.state is JobState.DONE:
            answer.mask = base64.b64encode(workspace.path(found.result["mask"]).read_bytes()).decode()
        return answer

    return router


def _background(workspace: Workspace, candidate_id: int) -> Candidate:
    with workspace.read() as session:
        candidate = session.get(Candidate, candidate_id)
        if candidate is None:
            raise HTTPException(404, f"There is no candidate {candidate_id}; reload the page.")
        imported = is_imported(session.get_one(Recipe, candidate.recipe_id))
    if imported:
        raise HTTPException(422, "This candidate came in an archive; generate its photo here to correct a mask.")
    if candidate.kind is not Kind.BACKGROUND:
        raise HTTPException(422, "Only backgrounds have a mask to correct.")
    return candidate


def _decode(text: str, candidate: Candidate) -> np.ndarray:
    """``HxW uint8`` grey of a PNG in base64, which must have the candidate's size."""
    import numpy as np
    from PIL import Image

    try:
        content = base64.b64decode(text.rpartition(",")[2], validate=True)
        with Image.open(io.BytesIO(content), formats=["PNG"]) as image:
            if image.size != (candidate.width, candidate.height):
                size = f"{candidate.width}x{candidate.height}"
                raise HTTPException(422, f"The mask is {image.width}x{image.height}, the image {size}.")
            return np.asarray(image.convert("L"))
    except (binascii.Error, OSError, SyntaxError, ValueError) as error:
        raise HTTPException(422, "The mask is no PNG in base64.") from error


def _enqueue(workspace: Workspace, kind: str, params: dict, who: Reviewer) -> JobOut:
    with workspace.write() as session:
        job = enqueue(session, kind, params, created_by=who.name)
        return JobOut(id=job.id, state=job.state)
