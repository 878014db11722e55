"""Signing in and out, and one's own password: plain pages with plain forms, which need no JavaScript."""

from __future__ import annotations

import html
from typing import Annotated
from urllib.parse import parse_qs

from fastapi import APIRouter, Depends, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from pydantic import BaseModel
from starlette.concurrency import run_in_threadpool

from app.accounts import CurrentUser, current_user, user_of
from app.accounts.directory import set_password
from app.accounts.passwords import MAX_LENGTH, MIN_LENGTH, PasswordRefused
from app.accounts.sessions import LONGEST, cookie_name, end_session, start_session
from app.accounts.sign_in import SignIn, SignInRefused, TooManyTries
from app.plain_route import PlainErrorRoute
from db.models import Role
from db.workspace import Workspace

SignedIn = Annotated[CurrentUser, Depends(current_user)]

TITLE = "ImageNet-Bg builder"
MAX_FORM_BYTES = 8 * 1024

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{heading} · {title}</title>
<link rel="icon" href="data:,">
<link rel="stylesheet" href="/static/sign_in.css">
</head>
<body>
<main>
<p class="site">{title}</p>
<h1>{heading}</h1>
{message}
<form method="post" action="{action}">
{fields}
<button type="submit">{button}</button>
</form>
<p class="aside">{aside}</p>
</main>
</body>
</html>
"""


class MeOut(BaseModel):
    """The signed-in user; ``local`` is true on a server without accounts."""

    name: str
    role: Role
    local: bool


def sign_in_router(workspace: Workspace) -> APIRouter:
    """``/sign-in``, ``/sign-out``, ``/password`` and ``/api/me``."""
    router = APIRouter(route_class=PlainErrorRoute)
    checker = SignIn(workspace)
    cookie = cookie_name(workspace)

    @router.get("/sign-in")
    def sign_in_page(request: Request) -> Response:
        return _home() if user_of(request) else _sign_in_page()

    @router.post("/sign-in")
    async def sign_in(request: Request) -> Response:
        before = user_of(request)
        if before is not None and before.is_local:
            return _home()
        form = await _form(request)
        return await run_in_threadpool(signed_in, request, form.get("name", ""), form.get("password", ""), before)

    def signed_in(request: Request, name: str, password: str, before: CurrentUser | None) -> Response:
        try:
            user = checker.check(name, password, _address(request))
        except SignInRefused as refusal:
            return _sign_in_page(name, refusal)
        if before is not None:
            end_session(workspace, before.session)
        response = _home()
        response.set_cookie(
            cookie,
            start_session(workspace, user.id),
            max_age=int(LONGEST.total_seconds()),
            httponly=True,
            samesite="lax",
            secure=request.url.scheme == "https",
        )
        return response

    @router.post("/sign-out")
    def sign_out(user: SignedIn) -> Response:
        if user.is_local:
            return _home()
        end_session(workspace, user.session)
        response = RedirectResponse("/sign-in", 303)
        response.delete_cookie(cookie, httponly=True, samesite="lax")
        return response

    @router.get("/password")
    def password_page(user: SignedIn) -> Response:
        return _home() if user.is_local else _password_page(user)

    @router.post("/password")
    async def password(request: Request, user: SignedIn) -> Response:
        if user.is_local:
            return _home()
        form = await _form(request)
        return await run_in_threadpool(changed, request, user, form)

    def changed(request: Request, user: CurrentUser, form: dict[str, str]) -> Response:
        new = form.get("new", "")
        if new != form.get("again", ""):
            return _password_page(user, "The two new passwords differ; type the same one twice.", 422)
        try:
            checker.check(user.name, form.get("current", ""), _address(request))
            set_password(workspace, user.name, new, keep_session=user.session)
        except TooManyTries as refusal:
            return _password_page(user, str(refusal), 429)
        except SignInRefused:
            return _password_page(user, "The current password is not right.", 422)
        except PasswordRefused as refusal:
            return _password_page(user, str(refusal), 422)
        return _password_page(user, "The password is changed. Other browsers are signed out.", tone="status")

    @router.get("/api/me")
    def me(user: SignedIn) -> MeOut:
        return MeOut(name=user.name, role=user.role, local=user.is_local)

    return router


def _home() -> Response:
    return RedirectResponse("/", 303)


def _address(request: Request) -> str:
    return request.client.host if request.client else ""


async def _form(request: Request) -> dict[str, str]:
    """The fields of a plain form, read by hand so that its size is settled before anything is parsed."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_FORM_BYTES:
            raise HTTPException(413, "That form is too large.")
    try:
        fields = parse_qs(body.decode("ascii"), keep_blank_values=True, max_num_fields=10, errors="replace")
    except ValueError:
        raise HTTPException(400, "That is not a form; send it as application/x-www-form-urlencoded.") from None
    return {name: values[0] for name, values in fields.items()}


def _sign_in_page(name: str = "", refusal: SignInRefused | None = None) -> Response:
    headers, status = {}, 200
    if refusal is not None:
        status = 401
    if isinstance(refusal, TooManyTries):
        headers, status = {"Retry-After": str(refusal.seconds)}, 429
    return _page(
        heading="Sign in",
        action="/sign-in",
        button="Sign in",
        fields=_field("name", "Name", "username", value=name, focus=not name)
        + _field("password", "Password", "current-password", secret=True, focus=bool(name)),
        aside="An admin makes the accounts and can set a new password.",
        message="" if refusal is None else _message(str(refusal), "alert"),
        status=status,
        headers=headers,
    )


def _password_page(user: CurrentUser, message: str = "", status: int = 200, tone: str = "alert") -> Response:
    return _page(
        heading="Your password",
        action="/password",
        button="Change the password",
        fields=f'<input type="hidden" name="name" autocomplete="username" value="{html.escape(user.name)}">'
        + _field("current", "Current password", "current-password", secret=True, focus=True)
        + _field("new", f"New password (at least {MIN_LENGTH} characters)", "new-password", secret=True, new=True)
        + _field("again", "New password again", "new-password", secret=True, new=True),
        aside=f'You are signed in as {html.escape(user.name)}. <a href="/">Back to the pages</a>',
        message=_message(message, tone) if message else "",
        status=status,
    )


def _page(*, heading: str, status: int, headers: dict[str, str] | None = None, **parts: str) -> Response:
    content = PAGE.format(title=TITLE, heading=heading, **parts)
    return HTMLResponse(content, status, {"Cache-Control": "no-store", **(headers or {})})


def _message(text: str, role: str) -> str:
    return f'<p class="message {role}" role="{role}" id="message">{html.escape(text)}</p>'


def _field(
    name: str,
    label: str,
    autocomplete: str,
    *,
    value: str = "",
    secret: bool = False,
    new: bool = False,
    focus: bool = False,
) -> str:
    kind = "password" if secret else "text"
    length = f' minlength="{MIN_LENGTH}" maxlength="{MAX_LENGTH}"' if new else ""
    return (
        f'<label for="{name}">{label}</label>'
        f'<input id="{name}" name="{name}" type="{kind}" value="{html.escape(value)}" autocomplete="{autocomplete}"'
        f' autocapitalize="none" spellcheck="false" required{length}{" autofocus" if focus else ""}>'
    )
