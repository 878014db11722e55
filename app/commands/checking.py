"""check: is an archive what it says it is?"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import WorkspaceOption, folder_of

commands = typer.Typer()


@commands.command()
def check(
    archive: Annotated[Path, typer.Argument(help="A zip, a folder, or the folder a zip was extracted to.")],
    workspace: WorkspaceOption = None,
    against_workspace: Annotated[
        bool, typer.Option(help="Also compare with the workspace's build of that name, where there is one.")
    ] = True,
) -> None:
    """Verify an archive: sums, counts, names, metadata, every image decoded, and the build in the database.

    Exit code 1 when anything is wrong; nothing is changed.
    """
    from app.terminal import console, item_bar, plain_table
    from db.workspace import DATABASE_NAME, open_workspace
    from exports.checking import check_archive

    folder = folder_of(workspace)
    opened = open_workspace(folder, create=False) if against_workspace and (folder / DATABASE_NAME).is_file() else None
    with item_bar("Check") as progress:
        report = check_archive(archive.expanduser(), opened, progress)
    table = plain_table("", "checked", "looked at ", "")
    for finding in report.findings:
        mark = "[dim]--[/]" if finding.skipped and finding.ok else "[green]ok[/]" if finding.ok else "[red]no[/]"
        table.add_row(mark, finding.what, str(finding.looked_at or ""), finding.skipped)
    console.print(table)
    for finding in report.findings:
        for fault in finding.faults:
            console.print(f"  {fault}", soft_wrap=True, markup=False)
        if finding.more_faults:
            console.print(f"  ... and {finding.more_faults} more of the same kind")
    console.print("In order." if report.ok else "Not in order.")
    if not report.ok:
        raise typer.Exit(1)
