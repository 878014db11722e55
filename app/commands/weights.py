"""weights list, fetch, verify."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

commands = typer.Typer(
    help="The published pipeline's model files: list, fetch, verify.",
    epilog="Files go to IMAGENET_BG_WEIGHTS or ~/.cache/imagenet-bg/weights. docs/weights.md says what each is for.",
    no_args_is_help=True,
)
FolderOption = Annotated[Path | None, typer.Option("--folder", help="The weights folder, instead of the usual one.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="Which ones, by name. [default: all]")]


def _print_weights(rows: list) -> None:
    from app.terminal import console, plain_table
    from generation.weights import readable_size

    table = plain_table("name", "file", "size ", "state", "licence")
    for row in rows:
        table.add_row(row.name, row.file, readable_size(row.size), row.state, row.licence)
    console.print(table)
    for row in rows:
        if row.state == "wrong":
            console.print(row.note, soft_wrap=True)
    missing = [row.name for row in rows if row.state == "missing"]
    if missing:
        command = f"uv run launch.py weights fetch {' '.join(missing)}"
        console.print(
            f"\nFetch what is missing: `{command}`, or with `--from DIR` from a folder you bring.", soft_wrap=True
        )


@commands.command("list")
def weights_list(folder: FolderOption = None) -> None:
    """What there is and what is missing. Reads no file's content."""
    from generation.weights import list_weights

    _print_weights(list_weights(folder))


@commands.command("fetch")
def weights_fetch(
    names: NamesArgument = None,
    folder: FolderOption = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder instead of the network.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network; only say what is missing.")
    ] = False,
) -> None:
    """Download what is missing, resuming what was begun; verify size and sha256 before a file gets its name."""
    from app.terminal import console, download_bar
    from generation.weights import fetch, readable_size

    with download_bar("Fetch") as bar:
        fetched = fetch(names or None, folder, bar, source_dir=source, offline=offline or None)
    for one in fetched:
        console.print(f"{one.name}: {one.how}, {one.path} ({readable_size(one.path.stat().st_size)})", soft_wrap=True)


@commands.command("verify")
def weights_verify(names: NamesArgument = None, folder: FolderOption = None) -> None:
    """Hash every file anew. Exit code 1 when one is wrong."""
    from generation.weights import verify

    rows = verify(names or None, folder)
    _print_weights(rows)
    if any(row.state == "wrong" for row in rows):
        raise typer.Exit(1)
