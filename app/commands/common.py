"""What every command shares: the workspace option, how it is opened, how states are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.workspace import Workspace

DEFAULT_WORKSPACE = Path("workspace")

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="The folder with the database, images, builds. [default: ./workspace]"),
]


class Chosen:
    """The --workspace given before the command, if any."""

    workspace: Path | None = None


def folder_of(workspace: Path | None) -> Path:
    return workspace or Chosen.workspace or DEFAULT_WORKSPACE


def open_chosen(workspace: Path | None, *, create: bool = False) -> Workspace:
    from db.workspace import open_workspace

    return open_workspace(folder_of(workspace), create=create)


def print_states(workspace: Workspace) -> None:
    from app.terminal import console, plain_table
    from db.queries import active_recipe, source_count, state_counts

    with workspace.read() as session:
        recipe = active_recipe(session)
        counts, total = state_counts(session, recipe), source_count(session)
    console.print("\n[bold]Sources" if recipe is None else f"\n[bold]Sources under recipe {recipe.hash[:12]}")
    table = plain_table("state", "sources ")
    for state, count in counts.items():
        table.add_row(state.value, str(count))
    table.add_row("[bold]together", f"[bold]{total}")
    console.print(table)


def print_candidates(workspace: Workspace) -> None:
    from app.terminal import console, plain_table
    from db.queries import outcome_rows

    table = plain_table("source", "class", "area ", "drop ", "residual ", "state", "")
    with workspace.read() as session:
        for source, class_name, outcome, candidate in outcome_rows(session):
            numbers = ("", "", "")
            if candidate is not None:
                numbers = (f"{candidate.area:.1%}", f"{candidate.drop:.2f}", f"{candidate.residual:.2f}")
            table.add_row(source.name, class_name, *numbers, outcome.state.value, outcome.reason)
    console.print(table)
