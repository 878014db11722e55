"""Saved views: a filter and an order of the queue under a name, for oneself or for everybody."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from db.models import SavedView, User

MAX_NAME = 80
MAX_VIEWS = 100


class ViewError(ValueError):
    """A view cannot be saved; the message says what to change."""


class UnknownView(LookupError):
    """There is no such view, or it is somebody else's."""


@dataclass(frozen=True)
class View:
    """``query`` holds the queue's own parameters by name, only those that differ from their defaults."""

    id: int
    name: str
    owner: str
    mine: bool
    shared: bool
    query: dict
    created_at: dt.datetime


def list_views(session: Session, user_id: int) -> list[View]:
    """The user's own views and the shared ones, own first, by name."""
    query = (
        select(SavedView, User.name)
        .join(User, User.id == SavedView.user_id)
        .where(or_(SavedView.user_id == user_id, SavedView.shared))
        .order_by(SavedView.user_id != user_id, SavedView.name, SavedView.id)
    )
    return [_view(row, owner, user_id) for row, owner in session.execute(query)]


def save_view(session: Session, user_id: int, name: str, query: dict, *, shared: bool = False) -> View:
    """Save a view, in place of the user's own one of that name. Needs a write session.

    ``query`` must have been checked (app/review_query.py). Raises :class:`ViewError`.
    """
    name = name.strip()
    if not 0 < len(name) <= MAX_NAME:
        raise ViewError(f"name: a view's name has 1 to {MAX_NAME} characters.")
    row = session.scalar(select(SavedView).where(SavedView.user_id == user_id, SavedView.name == name))
    if row is None:
        if _count(session, user_id) >= MAX_VIEWS:
            raise ViewError(f"name: you have {MAX_VIEWS} views; delete one first.")
        row = SavedView(user_id=user_id, name=name)
        session.add(row)
    row.query, row.shared = query, shared
    session.flush()
    return _view(row, session.get_one(User, user_id).name, user_id)


def delete_view(session: Session, user_id: int, view_id: int, *, is_admin: bool = False) -> None:
    """Delete a view of one's own; an admin may delete a shared one of anybody. Needs a write session.

    Raises :class:`UnknownView`.
    """
    row = session.get(SavedView, view_id)
    if row is None or (row.user_id != user_id and not (is_admin and row.shared)):
        raise UnknownView("There is no such view of yours; reload the page.")
    session.delete(row)


def _count(session: Session, user_id: int) -> int:
    return session.scalar(select(func.count()).select_from(SavedView).where(SavedView.user_id == user_id)) or 0


def _view(row: SavedView, owner: str, user_id: int) -> View:
    return View(row.id, row.name, owner, row.user_id == user_id, row.shared, row.query, row.created_at)
