"""Signed-in browsers: a random token in a cookie, its sha256 in the database, so a restart signs nobody out."""

from __future__ import annotations

import datetime as dt
import hashlib
import secrets
from dataclasses import dataclass

from sqlalchemy import delete, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.accounts.access import CurrentUser
from db.models import User, UserSession, utcnow
from db.workspace import Workspace

IDLE = dt.timedelta(hours=12)
LONGEST = dt.timedelta(days=7)
RENEWED_AFTER = dt.timedelta(minutes=10)


def cookie_name(workspace: Workspace) -> str:
    """Browsers share cookies over all ports of a host: each workspace has a name of its own."""
    return f"imagenet_bg_{hashlib.sha256(str(workspace.root).encode()).hexdigest()[:12]}"


def start_session(workspace: Workspace, user_id: int) -> str:
    """Sign a browser in; returns the token for its cookie. What has expired is cleared away."""
    token = secrets.token_urlsafe(32)
    now = utcnow()
    with workspace.write() as session:
        session.execute(delete(UserSession).where(UserSession.expires_at <= now))
        row = UserSession(token_sha256=_sha256(token), user_id=user_id, created_at=now, expires_at=now + IDLE)
        session.add(row)
    return token


@dataclass(frozen=True)
class FoundSession:
    """A session that has not ended. ``renew_until`` is its new end when it is time to write one down, else None."""

    user: CurrentUser
    renew_until: dt.datetime | None


def look_up(session: Session, token: str) -> FoundSession | None:
    """Whose token it is, if its session has not ended and the account is active. Reads only.

    A session ends twelve hours after its last use, and seven days after signing in.
    """
    digest = _sha256(token)
    query = (
        select(UserSession.created_at, UserSession.expires_at, User.id, User.name, User.role)
        .join(User, User.id == UserSession.user_id)
        .where(UserSession.token_sha256 == digest, User.active, User.password_hash != "")
    )
    row = session.execute(query).first()
    now = utcnow()
    if row is None or row.expires_at <= now:
        return None
    until = min(now + IDLE, row.created_at + LONGEST)
    is_due = until - row.expires_at > RENEWED_AFTER
    return FoundSession(CurrentUser(row.id, row.name, row.role, session=digest), until if is_due else None)


def find_session(workspace: Workspace, token: str) -> CurrentUser | None:
    """:func:`look_up`, and the session's new end written down when it is time."""
    with workspace.read() as session:
        found = look_up(session, token)
    if found is None:
        return None
    if found.renew_until is not None:
        renew(workspace, found.user.session, found.renew_until)
    return found.user


def end_session(workspace: Workspace, digest: str) -> None:
    """Sign one browser out, by the sha256 of its token."""
    with workspace.write() as session:
        session.execute(delete(UserSession).where(UserSession.token_sha256 == digest))


def renew(workspace: Workspace, digest: str, until: dt.datetime) -> None:
    """Let a session, by the sha256 of its token, end at ``until``."""
    try:
        with workspace.write() as session:
            session.execute(update(UserSession).where(UserSession.token_sha256 == digest).values(expires_at=until))
    except OperationalError:
        # The database is busy with a long write: the request must not fail for that, and the next one renews.
        return


def _sha256(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()
