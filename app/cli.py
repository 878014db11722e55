"""The commands of launch.py. Everything heavy is imported inside them, so that --help is instant."""

from __future__ import annotations

import os
import sys
import warnings
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands import (
    archives,
    checking,
    demo_training,
    evaluation,
    figures,
    generation,
    incoming,
    publish,
    review,
    runs,
    training,
    training_data,
    users,
    weights,
)
from app.commands.common import Chosen, WorkspaceOption, folder_of, open_chosen, print_candidates, print_states
from app.commands.generation import generate_params

if TYPE_CHECKING:
    from app.listening import Listening
    from db.workspace import Workspace

DEFAULT_PORT = 7860

app = typer.Typer(
    help="Build ImageNet-Bg: mask and inpaint the labelled object away, review, freeze, export.",
    epilog="Start with `uv run launch.py demo`: twenty photos, the whole job. Every command can be stopped with "
    "Ctrl-C and run again; it goes on where it stopped.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    add_completion=False,
)
HostOption = Annotated[str, typer.Option(help="Address to listen on; only this machine's own until accounts exist.")]
PortOption = Annotated[int, typer.Option(help="Port to listen on; the next free one is taken if it is in use.")]
AllowHostOption = Annotated[
    list[str] | None, typer.Option(help="A further name it is reached by, as a proxy's. Needs accounts. Repeatable.")
]
TrustedProxyOption = Annotated[
    list[str] | None,
    typer.Option(help="Address or network of a proxy whose X-Forwarded-* is believed. Needs accounts. Repeatable."),
]


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    allow_host: AllowHostOption = None,
    trusted_proxy: TrustedProxyOption = None,
) -> None:
    """Without a command: serve the workspace in the browser, with a worker beside it."""
    Chosen.workspace = workspace
    if context.invoked_subcommand is None:
        opened = open_chosen(workspace, create=True)
        _serve(opened, _checked_listening(opened, host, port, allow_host, trusted_proxy))


def _checked_listening(
    workspace: Workspace, host: str, port: int, allow_host: list[str] | None, trusted_proxy: list[str] | None
) -> Listening:
    """Where to listen; an address that may not be served is refused here, before anything slow is done."""
    from app.accounts.directory import admin_exists
    from app.listening import Listening

    listening = Listening(host, port, tuple(allow_host or ()), tuple(trusted_proxy or ()))
    with workspace.read() as session:
        listening.check(admin_exists(session))
    return listening


def _serve(workspace: Workspace, listening: Listening) -> None:
    from app.server import serve as serve_pages

    serve_pages(workspace, listening)


@app.command()
def demo(
    workspace: WorkspaceOption = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Do everything but open the server.")] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
    allow_host: AllowHostOption = None,
    trusted_proxy: TrustedProxyOption = None,
) -> None:
    """Twenty real photos through the whole job with the embedded backends, then serve them for review.

    The photos ship with the foolbox package, labelled with ImageNet classes. Nothing is downloaded.
    """
    from app.terminal import console, run_in_terminal
    from generation.recipe import embedded_options

    opened = open_chosen(workspace, create=True)
    listening = _checked_listening(opened, host, port, allow_host, trusted_proxy)
    imported = run_in_terminal(
        opened, "import", {"layout": "demo", "root": None, "ground_truth": None, "split": "val"}, "Import"
    )
    generated = run_in_terminal(opened, "generate", generate_params(embedded_options()), "Generate")
    if imported["added"] == 0 and generated["made"] == 0:
        console.print("Nothing to do: every demo photo was imported and generated before.")
    print_candidates(opened)
    print_states(opened)
    if not no_serve:
        _serve(opened, listening)


@app.command()
def status(workspace: WorkspaceOption = None) -> None:
    """How many sources are in which state, and what the last jobs did."""
    from app.terminal import console, plain_table
    from app.worker import is_gone
    from db.jobs import recent_jobs
    from db.models import JobState

    opened = open_chosen(workspace)
    print_states(opened)
    with opened.read() as session:
        recent = recent_jobs(session)
    if not recent:
        console.print("No jobs yet.")
        return
    console.print("\n[bold]Last jobs")
    table = plain_table("job ", "kind", "state", "done ", "of ", "message", "error")
    cut_off = {job.id for job in recent if job.state is JobState.RUNNING and is_gone(job.worker)}
    for job in recent:
        state = "cut off" if job.id in cut_off else job.state.value
        done, total = str(job.done), "" if job.total is None else str(job.total)
        table.add_row(str(job.id), job.kind, state, done, total, job.message, job.error)
    console.print(table)
    if cut_off:
        console.print("A job that was cut off goes on with the same command, or when `launch.py` runs.")


@app.command()
def worker(
    workspace: WorkspaceOption = None,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when no job waits.")] = False,
) -> None:
    """Run the jobs that pages and commands enqueue. `launch.py` starts one by itself."""
    import logging

    from app.worker import work

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    work(open_chosen(workspace), until_idle=until_idle)


@app.command()
def doctor(workspace: WorkspaceOption = None) -> None:
    """What this machine has of what the tool needs. Exit code 1 when something necessary is missing."""
    from app.doctor import examine
    from app.terminal import console

    findings = examine(folder_of(workspace))
    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "[dim]--[/]"}
    for finding in findings:
        console.print(f"{marks[finding.ok]}  [bold]{finding.topic}[/]  {finding.value}", soft_wrap=True)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


for _commands in (generation.commands, archives.commands, checking.commands, training_data.commands, training.commands):
    app.add_typer(_commands)
app.add_typer(incoming.commands)
app.add_typer(publish.commands, name="publish")
app.add_typer(review.commands)
app.add_typer(weights.commands, name="weights")
app.add_typer(users.commands, name="users")
app.add_typer(runs.commands, name="runs")
app.add_typer(evaluation.commands)
app.add_typer(demo_training.commands)
app.add_typer(evaluation.sets_commands, name="sets")
app.add_typer(figures.commands, name="figures")


def main() -> None:
    """Run the command line; a named error prints its sentence, not a traceback."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # groundingdino-py 0.4.0 says so on every import; it is nothing an operator can act on.
    warnings.filterwarnings("ignore", message="Importing from timm.models.layers", category=FutureWarning)
    try:
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        if os.environ.get("IMAGENET_BG_TRACEBACK"):
            raise
        print(f"Error: {error}\n(IMAGENET_BG_TRACEBACK=1 shows where.)", file=sys.stderr)
        sys.exit(1)
