"""import-archive: from an archive back to candidates."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

commands = typer.Typer()

MAX_LISTED = 50


@commands.command("import-archive")
def import_archive(
    archive: Annotated[
        Path,
        typer.Argument(help="An archive of this tool, or published images named by their val photo: zip or folder."),
    ],
    workspace: WorkspaceOption = None,
    masks: Annotated[Path | None, typer.Option(help="The archive of format coco that holds the images' masks.")] = None,
    scorer: Annotated[
        str, typer.Option(help="Scores the images where the archive records no scores.")
    ] = "embedded_dual",
    activate: Annotated[bool, typer.Option(help="Show the imported candidates on the pages from now on.")] = True,
) -> None:
    """Take an archive's images in as candidates for review. Their photos must be in the workspace already.

    Running it twice adds nothing; after more photos were imported, it adds what was missing.
    """
    from app.terminal import console, plain_table, run_in_terminal

    params = {
        "path": str(archive.expanduser().resolve()),
        "masks": str(masks.expanduser().resolve()) if masks else None,
        "scorer": scorer,
        "activate": activate,
    }
    result = run_in_terminal(open_chosen(workspace), "import_archive", params, "Import archive")
    unmatched = result["unmatched"]
    console.print(
        f"{result['found']} images: {result['added']} added, {result['already_there']} there already, "
        f"{result['repeated']} twice in the archive, {len(unmatched)} left out. "
        f"{result['masks']} got masks, {result['scored']} were scored here.",
        soft_wrap=True,
    )
    console.print(f"Recipe {result['recipe_hash'][:12]}")
    if unmatched:
        table = plain_table("left out", "why")
        for item in unmatched[:MAX_LISTED]:
            table.add_row(item["file"], item["reason"])
        console.print(table)
        if len(unmatched) > MAX_LISTED:
            console.print(f"... and {len(unmatched) - MAX_LISTED} more.")
        console.print("Photos are imported with `launch.py import`; then run this again.")
