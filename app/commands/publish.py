"""publish: an archive to where others find it. Nothing is sent without --yes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from exports.publishing import UploadPlan

commands = typer.Typer(help="Publish an archive. Only says what it would send, until it is given --yes.")


@commands.callback()
def publish() -> None:
    """Publish an archive. Only says what it would send, until it is given --yes."""


class _Lines:
    """A :class:`db.progress.Progress` as one line a message: the upload's own bar of bytes is drawn between them."""

    def __init__(self) -> None:
        self._last = ""

    def update(self, done: int, total: int | None, message: str = "") -> None:
        if message and message != self._last:
            self._last = message
            self.log(message if total is None else f"[{done}/{total}] {message}")

    def log(self, line: str) -> None:
        from app.terminal import console

        console.print(line, markup=False, soft_wrap=True)


@commands.command()
def kaggle(
    archive: Annotated[Path, typer.Argument(help="The folder that `export --format kaggle` wrote.")],
    yes: Annotated[bool, typer.Option("--yes", help="Send it. Without this, only say what would be sent.")] = False,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="NOTES", help="Send it as a new version of the dataset, with these notes."),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="For everybody to see. [default: private]")] = False,
    verify: Annotated[
        bool, typer.Option("--verify", help="Send nothing; compare what Kaggle lists with the folder.")
    ] = False,
    wait: Annotated[float, typer.Option(min=0, help="Minutes to wait for Kaggle to unpack it.")] = 30.0,
) -> None:
    """Check a Kaggle folder, say exactly what would be sent, and with --yes send it and compare what arrived.

    Needs your own token: KAGGLE_API_TOKEN, or a file in ~/.kaggle. What broke off goes on with the same command.
    """
    from app.terminal import console, item_bar
    from exports.publishing import plan_upload
    from exports.publishing import publish as send
    from exports.publishing import verify as compare

    folder = archive.expanduser().resolve()
    with item_bar("Check") as progress:
        plan = plan_upload(folder, progress)
    if version is not None and public:
        raise typer.BadParameter("A version is as visible as its dataset; leave --public out.", param_hint="--public")
    if verify:
        done = compare(plan, wait_seconds=60 * wait, progress=_Lines())
        console.print(f"{plan.ref}: all {done.files} files are listed with their sizes.")
        return
    _print_plan(plan, version, public)
    if not yes:
        console.print("Nothing was sent. Add --yes to send this.")
        return
    done = send(plan, public=public, version_notes=version, wait_seconds=60 * wait, progress=_Lines())
    console.print(f"{plan.ref} is published: all {done.files} files are listed with their sizes. {done.url}".rstrip())
    if done.invalid_tags:
        console.print(f"Kaggle does not know these keywords: {', '.join(done.invalid_tags)}.")


def _print_plan(plan: UploadPlan, version: str | None, public: bool) -> None:
    from app.terminal import console, plain_table

    visible = "as the dataset is" if version is not None else "public" if public else "private"
    table = plain_table("", "")
    for name, value in (
        ("dataset", plan.ref),
        ("as", "a new dataset" if version is None else f"a new version: {version}"),
        ("title", plan.title),
        ("licence", plan.licence),
        ("visibility", visible),
        ("images", str(plan.images)),
    ):
        table.add_row(name, value)
    console.print(table)
    files = plain_table("file", "bytes ", "unpacks to ")
    for file in plan.files:
        files.add_row(file.name, f"{file.bytes:,}", f"{len(file.inside):,} files" if file.inside else "")
    files.add_row(f"[bold]{len(plan.files)} files", f"[bold]{plan.bytes:,}", "")
    console.print(files)
    if plan.kept:
        console.print(
            f"Not sent as files: {', '.join(plan.kept)} (the description goes along; set the cover on the page)."
        )
