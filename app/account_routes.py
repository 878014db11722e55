"""The accounts as JSON, for admins: what the Accounts page shows and changes. Errors are ``{"error": sentence}``."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from contextlib import contextmanager

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field

from app.accounts import CurrentUser, require
from app.accounts.directory import (
    AccountError,
    AccountRow,
    account_name,
    accounts_exist,
    add_account,
    list_accounts,
    set_active,
    set_password,
    set_role,
    sign_out,
)
from app.accounts.passwords import PasswordRefused
from app.plain_route import MAX_ID, PlainErrorRoute
from db.models import Role
from db.workspace import Workspace

MAX_TEXT = 1000  # the sentences about names and passwords come from app.accounts


class AccountIn(BaseModel):
    """An account to make."""

    model_config = ConfigDict(extra="forbid")
    name: str = Field(max_length=MAX_TEXT)
    password: str = Field(max_length=MAX_TEXT)
    role: Role


class ChangeIn(BaseModel):
    """What to change about an account; what is left out stays."""

    model_config = ConfigDict(extra="forbid")
    role: Role | None = None
    active: bool | None = None
    password: str | None = Field(None, max_length=MAX_TEXT)


class AccountOut(BaseModel):
    """An account, and whether it is the one that asks."""

    id: int
    name: str
    role: Role
    active: bool
    has_password: bool
    sessions: int
    decisions: int
    last_decision_at: dt.datetime | None
    is_you: bool


class AccountsOut(BaseModel):
    """All users; ``needed`` is false while there are no accounts and this machine's user may do everything."""

    needed: bool
    accounts: list[AccountOut]


def account_router(workspace: Workspace) -> APIRouter:
    """``/api/accounts``, each route for admins."""
    router = APIRouter(prefix="/api/accounts", route_class=PlainErrorRoute)
    admin = Depends(require(Role.ADMIN))

    def listed(user: CurrentUser) -> AccountsOut:
        with workspace.read() as session:
            rows, needed = list_accounts(session), accounts_exist(session)
        return AccountsOut(needed=needed, accounts=[_out(row, user) for row in rows])

    @router.get("")
    def accounts(user: CurrentUser = admin) -> AccountsOut:
        return listed(user)

    @router.post("")
    def add(wanted: AccountIn, user: CurrentUser = admin) -> AccountsOut:
        with _sentences():
            add_account(workspace, wanted.name, wanted.password, wanted.role)
        return listed(user)

    @router.patch("/{account_id}")
    def change(
        wanted: ChangeIn, account_id: int = PathParameter(ge=1, le=MAX_ID), user: CurrentUser = admin
    ) -> AccountsOut:
        with _sentences():
            name = _name(workspace, account_id)
            if wanted.role is not None:
                set_role(workspace, name, wanted.role)
            if wanted.active is not None:
                set_active(workspace, name, wanted.active)
            if wanted.password is not None:
                set_password(workspace, name, wanted.password, keep_session=user.session)
        return listed(user)

    @router.post("/{account_id}/sign-out")
    def end_sessions(account_id: int = PathParameter(ge=1, le=MAX_ID), user: CurrentUser = admin) -> AccountsOut:
        with _sentences():
            sign_out(workspace, _name(workspace, account_id))
        return listed(user)

    return router


def _out(row: AccountRow, user: CurrentUser) -> AccountOut:
    values = {name: getattr(row, name) for name in AccountOut.model_fields if name != "is_you"}
    return AccountOut(**values, is_you=row.id == user.id and not user.is_local)


def _name(workspace: Workspace, account_id: int) -> str:
    with workspace.read() as session:
        return account_name(session, account_id)


@contextmanager
def _sentences() -> Iterator[None]:
    try:
        yield
    except (AccountError, PasswordRefused) as error:
        raise HTTPException(422, str(error)) from error
