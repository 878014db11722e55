"""The signed-in user of a request, and which role each page and each address asks for.

What is not named here is for admins: a new route or page is closed until somebody opens it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import HTTPException, Request

from db.models import Role
from review.roles import may

SIGNED_IN = "signed_in"  # where the gate leaves the user, in the request's state

# Answered to anybody: what signing in needs, and the liveness check.
PUBLIC = frozenset({"/sign-in", "/static/sign_in.css", "/healthz"})

PAGE_ROLES = {
    "review": Role.ANNOTATOR,
    "adjudication": Role.ADJUDICATOR,
    "agreement": Role.ADJUDICATOR,
    "audit": Role.ADJUDICATOR,
    "triage": Role.ADJUDICATOR,
    "duplicates": Role.ANNOTATOR,
}

EXACT_ROLES = dict.fromkeys(
    (
        "/",
        "/sign-out",
        "/password",
        "/api/me",
        # What Gradio's page itself asks for. Whose functions an event may call is settled by app/role_pages.py.
        "/config",
        "/theme.css",
        "/favicon.ico",
        "/manifest.json",
        "/gradio_api/app_id",
        "/gradio_api/cancel",
        "/gradio_api/info",
        "/gradio_api/login_check",
        "/gradio_api/queue/data",
        "/gradio_api/queue/join",
        "/gradio_api/reset",
        "/gradio_api/run/predict",
        "/gradio_api/startup-events",
        "/gradio_api/theme.css",
        "/gradio_api/user",
    ),
    Role.ANNOTATOR,
)
PREFIX_ROLES = (
    ("/static/", Role.ANNOTATOR),
    ("/assets/", Role.ANNOTATOR),
    ("/svelte/", Role.ANNOTATOR),
    ("/gradio_api/heartbeat/", Role.ANNOTATOR),
    ("/media/", Role.ANNOTATOR),
    # The first that fits counts.
    ("/api/review/adjudication", Role.ADJUDICATOR),
    ("/api/review/agreement", Role.ADJUDICATOR),
    ("/api/review/gold", Role.ADJUDICATOR),
    ("/api/review/overlap", Role.ADJUDICATOR),
    ("/api/review/", Role.ANNOTATOR),
    ("/api/audit", Role.ADJUDICATOR),
    ("/api/duplicates", Role.ANNOTATOR),
    ("/api/triage/second-look", Role.ANNOTATOR),
    ("/api/triage", Role.ADJUDICATOR),
)


@dataclass(frozen=True)
class CurrentUser:
    """Who sends a request. ``is_local`` is the one user of a server without accounts, who may do everything.

    ``session`` is the sha256 of the browser's token, empty for the local user.
    """

    id: int
    name: str
    role: Role
    is_local: bool = False
    session: str = ""

    def may(self, role: Role) -> bool:
        """Whether the user's role is that one or one above it."""
        return may(self.role, role)


def required_role(path: str) -> Role | None:
    """The least role that an address asks for; None: anybody may."""
    if path in PUBLIC:
        return None
    exact = EXACT_ROLES.get(path)
    if exact is not None:
        return exact
    return next((role for prefix, role in PREFIX_ROLES if path.startswith(prefix)), Role.ADMIN)


def page_role(page: str) -> Role:
    """The least role that sees a page, by its name in the address."""
    return PAGE_ROLES.get(page, Role.ADMIN)


def user_of(request: Request) -> CurrentUser | None:
    """The user that the gate found for this request; None when it is anonymous, or when no gate stands before.

    Not a coroutine: Gradio 6.17 takes an async ``auth_dependency`` for a signed-in user.
    """
    return getattr(request.state, SIGNED_IN, None)


def user_name_of(request: Request) -> str | None:
    """The same as Gradio wants it for ``auth_dependency``: a name or None."""
    user = user_of(request)
    return None if user is None else user.name


def current_user(request: Request) -> CurrentUser:
    """A FastAPI dependency: the signed-in user, else 401."""
    user = user_of(request)
    if user is None:
        raise HTTPException(401, NOT_SIGNED_IN)
    return user


def current_user_id(request: Request) -> int:
    """A FastAPI dependency: the signed-in user's id, else 401."""
    return current_user(request).id


async def signed_in_user_id(request: Request) -> int:
    """:func:`current_user_id` as the routes' dependency: a coroutine, so that no request waits for a thread for it."""
    return current_user_id(request)


def require(role: Role) -> Callable[[Request], CurrentUser]:
    """A FastAPI dependency: the signed-in user if their role is ``role`` or above, else 401 or 403."""

    def allowed(request: Request) -> CurrentUser:
        user = current_user(request)
        if not user.may(role):
            raise HTTPException(403, not_allowed(user, role))
        return user

    return allowed


NOT_SIGNED_IN = "You are not signed in; open /sign-in and sign in."


def not_allowed(user: CurrentUser, role: Role) -> str:
    """The sentence for somebody whose role does not suffice."""
    return f"This is for the role {role.value}; you are signed in as {user.role.value}. Ask an admin."
