"""What the application's own JSON routes share: errors that are one sentence, and the largest id a database holds."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute

MAX_ID = 2**63 - 1


class PlainErrorRoute(APIRoute):
    """A route whose errors are one sentence: ``{"error": "..."}``."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def plain(request: Request) -> Response:
            try:
                return await handler(request)
            except RequestValidationError as error:
                return JSONResponse({"error": validation_sentence(error.errors())}, 422)
            except HTTPException as error:
                return JSONResponse({"error": str(error.detail)}, error.status_code, error.headers)

        return plain


def validation_sentence(errors: Sequence[dict]) -> str:
    """The first of pydantic's errors as a sentence that names the place."""
    first = errors[0]
    place = ".".join(str(part) for part in first["loc"] if part not in ("query", "path", "body"))
    return f"{place or 'The request'}: {first['msg']}."
