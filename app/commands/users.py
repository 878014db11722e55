"""users: the accounts, from the terminal of the machine that has the workspace."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

if TYPE_CHECKING:
    from db.models import Role

commands = typer.Typer(
    help="Accounts and their roles: add, list, password, role, deactivate.",
    epilog="Roles: annotator (review), adjudicator (also adjudication, agreement, audits), admin (everything). "
    "The first account must be an admin. docs/accounts.md says more.",
    no_args_is_help=True,
)
NameArgument = Annotated[str, typer.Argument(help="Whose account.")]
PasswordFileOption = Annotated[
    Path | None,
    typer.Option(
        help="Read the password from the first line of this file, or of the input for `-`, instead of asking."
    ),
]


def _role(text: str) -> Role:
    from db.models import Role

    try:
        return Role(text)
    except ValueError:
        raise typer.BadParameter(f"{text!r} is no role; choose {', '.join(Role)}.") from None


def _password(file: Path | None) -> str:
    """The new password, asked for twice. It is never an argument: those are seen by everybody on the machine."""
    if file is not None:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        return text.split("\n", 1)[0].rstrip("\r")
    if not sys.stdin.isatty():
        raise typer.BadParameter("There is no terminal to ask on; give `--password-file FILE`, or `-` for the input.")
    return typer.prompt("Password", hide_input=True, confirmation_prompt="Password again")


@commands.command()
def add(
    name: NameArgument,
    role: Annotated[str, typer.Option(help="admin, adjudicator or annotator.")],
    password_file: PasswordFileOption = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Make an account. From the first one on, everybody has to sign in."""
    from app.accounts.directory import account_count, add_account
    from app.terminal import console

    opened = open_chosen(workspace, create=True)
    wanted = _role(role)
    user = add_account(opened, name, _password(password_file), wanted)
    console.print(f"{user.name} is {user.role.value} now.", markup=False)
    with opened.read() as session:
        if account_count(session) == 1:
            console.print("From now on everybody has to sign in, also on 127.0.0.1; a running server asks at once.")


@commands.command("list")
def list_(workspace: WorkspaceOption = None) -> None:
    """Every user with role, state, decisions and how many browsers are signed in."""
    from rich.markup import escape

    from app.accounts.directory import list_accounts
    from app.terminal import console, plain_table

    with open_chosen(workspace).read() as session:
        rows = list_accounts(session)
    table = plain_table("name", "role", "state", "signed in ", "decisions ", "last decision")
    for row in rows:
        state = "no password" if not row.has_password else "active" if row.active else "deactivated"
        last = "" if row.last_decision_at is None else f"{row.last_decision_at:%Y-%m-%d %H:%M} UTC"
        table.add_row(escape(row.name), row.role.value, state, str(row.sessions), str(row.decisions), last)
    console.print(table)
    if not any(row.has_password for row in rows):
        console.print("No accounts: the server answers this machine only, and its user may do everything.")


@commands.command()
def password(name: NameArgument, password_file: PasswordFileOption = None, workspace: WorkspaceOption = None) -> None:
    """Set another password and sign the account out everywhere."""
    from app.accounts.directory import set_password
    from app.terminal import console

    set_password(open_chosen(workspace), name, _password(password_file))
    console.print(f"{name} has a new password and is signed out everywhere.", markup=False)


@commands.command()
def role(
    name: NameArgument,
    role: Annotated[str, typer.Argument(help="admin, adjudicator or annotator.")],
    workspace: WorkspaceOption = None,
) -> None:
    """Give an account another role and sign it out."""
    from app.accounts.directory import set_role
    from app.terminal import console

    wanted = _role(role)
    set_role(open_chosen(workspace), name, wanted)
    console.print(f"{name} is {wanted.value} now.", markup=False)


@commands.command()
def deactivate(name: NameArgument, workspace: WorkspaceOption = None) -> None:
    """Shut an account out at once. Its decisions stay."""
    _set_active(workspace, name, False)


@commands.command()
def activate(name: NameArgument, workspace: WorkspaceOption = None) -> None:
    """Let a deactivated account in again."""
    _set_active(workspace, name, True)


def _set_active(workspace: Path | None, name: str, active: bool) -> None:
    from app.accounts.directory import set_active
    from app.terminal import console

    set_active(open_chosen(workspace), name, active)
    console.print(f"{name} is {'active' if active else 'deactivated and signed out everywhere'}.", markup=False)


@commands.command("sign-out")
def sign_out(name: NameArgument, workspace: WorkspaceOption = None) -> None:
    """Sign an account out of every browser."""
    from app.accounts.directory import sign_out as end_sessions
    from app.terminal import console

    count = end_sessions(open_chosen(workspace), name)
    console.print(f"{name} is signed out of {count} browser{'' if count == 1 else 's'}.", markup=False)
