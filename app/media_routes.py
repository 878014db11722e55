"""Images over the application's own routes: nothing is copied, and a browser keeps what it has seen.

An image's address holds the hash of what it shows, so the answer may be kept for ever. Every route
asks for the signed-in user first, like all the others.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Query, Request, Response
from fastapi import Path as PathParameter
from sqlalchemy import select

from app.review_routes import MAX_ID, PlainErrorRoute
from db.models import Candidate, SourceImage
from db.workspace import Workspace, WorkspaceError

CACHE_CONTROL = "private, max-age=31536000, immutable"
CANDIDATE_NAMES = frozenset({"raw.png", "mask.png", "dilated.png", "result.png", "thumbnail.jpg"})
PREVIEW_NAMES = frozenset({"raw.png", "boxes.png", "mask.png", "dilated.png", "result.png"})
MEDIA_TYPES = {".png": "image/png", ".jpg": "image/jpeg"}
KEY = re.compile(r"[0-9a-f]{64}")
THUMBNAIL_SIZES = (32, 1024)
KEPT_FOLDERS = 20_000


def media_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The image routes, each behind ``current_user`` (a FastAPI dependency that gives the user's id)."""
    router = APIRouter(prefix="/media", route_class=PlainErrorRoute, dependencies=[Depends(current_user)])

    # Kept, for it never changes: another result is another candidate. A page asks for three images of each.
    @lru_cache(maxsize=KEPT_FOLDERS)
    def folder_of(candidate_id: int, sha: str) -> str:
        shown = (Candidate.id == candidate_id, Candidate.result_sha256 == sha)
        with workspace.read() as session:
            folder = session.scalar(select(Candidate.folder).where(*shown))
        if folder is None:
            raise LookupError(candidate_id)
        return folder

    # Plain functions, not coroutines: FastAPI runs them in its thread pool, off the event loop.
    @router.get("/candidate/{candidate_id}/{sha}/{name}")
    def candidate_image(
        request: Request, name: str, sha: str, candidate_id: int = PathParameter(ge=1, le=MAX_ID)
    ) -> Response:
        if name not in CANDIDATE_NAMES:
            raise HTTPException(404, "A candidate has no image of that name.")
        try:
            folder = folder_of(candidate_id, sha)
        except LookupError:
            changed = "There is no such candidate, or its image has changed; reload the page."
            raise HTTPException(404, changed) from None
        return _file(workspace, f"{folder}/{name}", f"{sha}-{name}", request)

    @router.get("/preview/{key}/{name}")
    def preview_image(request: Request, key: str, name: str) -> Response:
        if not KEY.fullmatch(key) or name not in PREVIEW_NAMES:
            raise HTTPException(404, "There is no such preview.")
        return _file(workspace, f"previews/{key}/{name}", f"{key}-{name}", request)

    @router.get("/source/{source_id}/{sha256}.jpg")
    def source_thumbnail(
        request: Request,
        sha256: str,
        source_id: int = PathParameter(ge=1, le=MAX_ID),
        size: int = Query(256, ge=THUMBNAIL_SIZES[0], le=THUMBNAIL_SIZES[1]),
    ) -> Response:
        with workspace.read() as session:
            source = session.get(SourceImage, source_id)
        if source is None or source.sha256 != sha256:
            raise HTTPException(404, "There is no such source photo; reload the page.")
        headers = _headers(f"{sha256}-{size}")
        if _fresh(request, headers):
            return Response(status_code=304, headers=headers)
        return Response(_thumbnail(source, size), media_type="image/jpeg", headers=headers)

    return router


def _headers(tag: str) -> dict[str, str]:
    return {"Cache-Control": CACHE_CONTROL, "ETag": f'"{tag}"', "X-Content-Type-Options": "nosniff"}


def _fresh(request: Request, headers: dict[str, str]) -> bool:
    asked = request.headers.get("if-none-match", "")
    return headers["ETag"] in {tag.strip().removeprefix("W/") for tag in asked.split(",")}


def _file(workspace: Workspace, relative: str, tag: str, request: Request) -> Response:
    try:
        path = workspace.path(relative)
    except WorkspaceError:
        raise HTTPException(404, "That image lies outside the workspace and is not shown.") from None
    headers = _headers(tag)
    if _fresh(request, headers) and path.is_file():
        return Response(status_code=304, headers=headers)
    # Read at once, here in the thread: streaming a file this small in parts costs several times as much.
    try:
        content = path.read_bytes()
    except OSError:
        missing = f"{relative} is missing from the workspace; run generation again to make it."
        raise HTTPException(404, missing) from None
    return Response(content, media_type=MEDIA_TYPES[Path(relative).suffix], headers=headers)


def _thumbnail(source: SourceImage, size: int) -> bytes:
    # Imported here: the page must come up without the libraries that decode photos.
    from PIL import Image

    from generation.decode import UnreadableImage
    from generation.sources import SourceChanged, open_source

    try:
        image = open_source(source)
    except (OSError, UnreadableImage, SourceChanged) as error:
        raise HTTPException(404, f"{source.name} cannot be shown: {error}") from error
    image.thumbnail((size, size), Image.Resampling.BILINEAR, reducing_gap=2)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=85)
    return buffer.getvalue()
