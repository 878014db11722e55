"""The accounts themselves: make, list and change them. Everything here is an admin's business.

A server has accounts as soon as one user has a password. From then on one active admin always remains.
"""

from __future__ import annotations

import datetime as dt
import re
import unicodedata
from dataclasses import dataclass

from sqlalchemy import delete, func, select
from sqlalchemy.orm import Session

from app.accounts.passwords import hash_new_password
from db.models import Decision, Role, User, UserSession, utcnow
from db.workspace import Workspace

NAME_LENGTH = 80
NAME = re.compile(r"[^\W_]([\w .@-]*[\w])?")
MAKE_AN_ADMIN = "uv run launch.py users add NAME --role admin"


class AccountError(ValueError):
    """An account cannot be made or changed as asked; the message says what to do."""


@dataclass(frozen=True)
class AccountRow:
    """An account as a list shows it. ``decisions`` counts every record, an undo too; ``sessions`` signed-in browsers.

    A user without a password (``has_password`` is false) is the local user, or one that only signed decisions.
    """

    id: int
    name: str
    role: Role
    active: bool
    has_password: bool
    sessions: int
    decisions: int
    last_decision_at: dt.datetime | None


def accounts_exist(session: Session) -> bool:
    """Whether anybody has a password."""
    return session.scalar(select(User.id).where(User.password_hash != "").limit(1)) is not None


def admin_exists(session: Session) -> bool:
    """Whether an active admin with a password is there."""
    return session.scalar(_admins().limit(1)) is not None


def account_count(session: Session) -> int:
    """How many users have a password."""
    return session.scalar(select(func.count()).select_from(User).where(User.password_hash != "")) or 0


def list_accounts(session: Session) -> list[AccountRow]:
    """All users by name. Reads one index of the decisions, not the decisions themselves."""
    now = utcnow()
    counts = select(Decision.user_id, func.count().label("count"), func.max(Decision.id).label("last"))
    counts = counts.group_by(Decision.user_id).subquery()
    sessions = select(UserSession.user_id, func.count().label("count")).where(UserSession.expires_at > now)
    sessions = sessions.group_by(UserSession.user_id).subquery()
    query = (
        select(User, counts.c.count, sessions.c.count, Decision.created_at)
        .outerjoin(counts, counts.c.user_id == User.id)
        .outerjoin(sessions, sessions.c.user_id == User.id)
        .outerjoin(Decision, Decision.id == counts.c.last)
        .order_by(func.lower(User.name), User.id)
    )
    return [
        AccountRow(
            user.id, user.name, user.role, user.active, bool(user.password_hash), signed_in or 0, decided or 0, at
        )
        for user, decided, signed_in, at in session.execute(query)
    ]


def account_name(session: Session, user_id: int) -> str:
    """The name of an account. Raises :class:`AccountError` when there is none of that id."""
    user = session.get(User, user_id)
    if user is None or not user.password_hash:
        raise AccountError(f"There is no account {user_id}; load the page again.")
    return user.name


def add_account(workspace: Workspace, name: str, password: str, role: Role) -> User:
    """Make an account. A user of that name without a password, such as the local one, becomes the account.

    Raises :class:`AccountError`, and :class:`app.accounts.passwords.PasswordRefused` for the password.
    """
    name = clean_name(name)
    hashed = hash_new_password(password)
    with workspace.write() as session:
        if role is not Role.ADMIN and not admin_exists(session):
            raise AccountError("The first account must be an admin, who makes the others; give it the role admin.")
        user = _same_name(session, name)
        if user is not None and (user.password_hash or user.name != name):
            raise AccountError(f"There is a user {user.name!r} already; choose another name.")
        if user is None:
            user = User(name=name)
            session.add(user)
        user.role, user.password_hash, user.active = role, hashed, True
        session.flush()
    return user


def set_password(workspace: Workspace, name: str, password: str, *, keep_session: str = "") -> None:
    """Give an account another password and sign it out everywhere but in ``keep_session`` (a token's sha256)."""
    hashed = hash_new_password(password)
    with workspace.write() as session:
        user = _account(session, name)
        user.password_hash = hashed
        _end_sessions(session, user, keep=keep_session)


def set_role(workspace: Workspace, name: str, role: Role) -> None:
    """Give an account another role and sign it out: what its open pages show belongs to the old one."""
    with workspace.write() as session:
        user = _account(session, name)
        if user.role is role:
            return
        if user.role is Role.ADMIN:
            _keep_an_admin(session, user)
        user.role = role
        _end_sessions(session, user)


def set_active(workspace: Workspace, name: str, active: bool) -> None:
    """Deactivate an account, which signs it out at once, or activate it again. Its decisions stay."""
    with workspace.write() as session:
        user = _account(session, name)
        if not active:
            _keep_an_admin(session, user)
            _end_sessions(session, user)
        user.active = active


def sign_out(workspace: Workspace, name: str) -> int:
    """Sign an account out everywhere; returns from how many browsers."""
    with workspace.write() as session:
        return _end_sessions(session, _account(session, name))


def clean_name(name: str) -> str:
    """The name as it is stored. Raises :class:`AccountError` for one that cannot be a name."""
    name = unicodedata.normalize("NFKC", name).strip()
    if len(name) > NAME_LENGTH or not NAME.fullmatch(name):
        raise AccountError(
            f"{name!r} cannot be a name: use 1 to {NAME_LENGTH} letters, digits, spaces or . _ @ -, "
            "beginning with a letter or digit."
        )
    return name


def _admins():
    return select(User.id).where(User.role == Role.ADMIN, User.active, User.password_hash != "")


def _keep_an_admin(session: Session, user: User) -> None:
    if session.scalar(_admins().where(User.id != user.id).limit(1)) is None and user.role is Role.ADMIN:
        raise AccountError(f"{user.name!r} is the only active admin; make another one first: `{MAKE_AN_ADMIN}`.")


def _same_name(session: Session, name: str) -> User | None:
    """The user of that name in any spelling of its letters: two people must not look alike in a list."""
    wanted = name.casefold()
    rows = session.execute(select(User.id, User.name)).all()
    found = next((user_id for user_id, known in rows if known.casefold() == wanted), None)
    return None if found is None else session.get(User, found)


def _account(session: Session, name: str) -> User:
    user = session.scalar(select(User).where(User.name == unicodedata.normalize("NFKC", name).strip()))
    if user is None or not user.password_hash:
        raise AccountError(f"There is no account {name!r}; `uv run launch.py users list` names them.")
    return user


def _end_sessions(session: Session, user: User, *, keep: str = "") -> int:
    query = delete(UserSession).where(UserSession.user_id == user.id, UserSession.token_sha256 != keep)
    return session.execute(query).rowcount
