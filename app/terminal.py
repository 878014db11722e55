"""Running a job in the terminal it was asked for: the same handlers as the worker's, a bar, Ctrl-C."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.progress import Progress as RichProgress
from rich.table import Table

from app.worker import JobProgress, is_gone, limit_threads, run_job, worker_name
from db import jobs
from db.models import Job, JobState
from db.progress import Progress
from db.workspace import Workspace

INTERRUPTED = 130  # as a shell reports a program that SIGINT ended
SAME_PRESS_SECONDS = 1.0

# A pipe has no width: nothing is cut there.
console = Console(highlight=False, width=None if sys.stdout.isatty() else 200)


STOPPED = "Stopped. What was finished is kept; the same command goes on from there."


@contextmanager
def _first_ctrl_c(progress: JobProgress) -> Iterator[threading.Event]:
    """The first Ctrl-C stops the job at its next step, where no transaction is open; a second one at once.

    One key press may arrive twice, from the terminal and from `uv run`: what follows within a second is the same one.
    """
    interrupted = threading.Event()
    first = 0.0

    def stop(signum: int, frame: object) -> None:
        nonlocal first
        if not interrupted.is_set():
            first = time.monotonic()
            interrupted.set()
            progress.cancel()
        elif time.monotonic() - first > SAME_PRESS_SECONDS:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, stop)
    try:
        yield interrupted
    except KeyboardInterrupt:
        console.print(STOPPED)
        raise typer.Exit(INTERRUPTED) from None
    finally:
        # Once stopped, the command only says so and ends: the press's echo must not cut that off.
        signal.signal(signal.SIGINT, signal.SIG_IGN if interrupted.is_set() else before)


class JobFailed(RuntimeError):
    """The job ended without its result; the message is its error."""


class _Bar:
    """A :class:`db.progress.Progress` on a rich progress bar."""

    def __init__(self, bar: RichProgress, title: str) -> None:
        self._bar = bar
        self._task = bar.add_task(title, total=None, message="")

    def update(self, done: int, total: int | None, message: str = "") -> None:
        self._bar.update(self._task, completed=done, total=total, message=message)

    def log(self, line: str) -> None:
        self._bar.console.print(line, markup=False)


def _find_or_enqueue(workspace: Workspace, kind: str, params: dict) -> int:
    """A dead run of the same job is taken up again; a live one is named instead of being raced."""
    with workspace.write() as session:
        active = jobs.active_job(session, kind)
        if active is not None and active.state == JobState.RUNNING and not is_gone(active.worker):
            raise JobFailed(
                f"Job {active.id} ({kind}) is running already, by {active.worker}. "
                "Watch it with `launch.py status`, or cancel it on the Overview page."
            )
        if active is not None and active.params == params:
            return active.id
        return jobs.enqueue(session, kind, params, created_by="terminal").id


def run_in_terminal(workspace: Workspace, kind: str, params: dict, title: str, *, on: Console = console) -> dict:
    """Do the job here and now, with a progress bar, and return its result.

    Ctrl-C ends the command with exit code 130; what is done is kept, and the same command goes on from
    there. ``on`` is where the bar is shown. Raises :class:`JobFailed` with the job's error.
    """
    limit_threads()
    worker = worker_name()
    job_id = _find_or_enqueue(workspace, kind, params)
    with workspace.write() as session:
        job = jobs.claim(session, worker, job_id=job_id, is_gone=is_gone)
    if job is None:
        raise JobFailed(f"Job {job_id} ({kind}) was taken by another worker; see `launch.py status`.")
    with RichProgress(*_item_columns(kind), console=on) as bar:
        progress = JobProgress(workspace, job.id, worker, mirror=_Bar(bar, title))
        with _first_ctrl_c(progress) as interrupted:
            state = run_job(workspace, job, worker, progress)
    if interrupted.is_set() and state is not JobState.DONE:
        console.print(STOPPED)
        raise typer.Exit(INTERRUPTED)
    with workspace.read() as session:
        ended = session.get(Job, job.id)
    if state is not JobState.DONE:
        raise JobFailed(ended.error or f"Job {job.id} ({kind}) ended as {state.value}.")
    return ended.result


def _item_columns(kind: str = "") -> tuple:
    # A generation's message tells the time left, by the recent rate: two answers would be one too many.
    left = () if kind == "generate" else (TimeRemainingColumn(),)
    return (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        *left,
        TextColumn("[dim]{task.fields[message]}"),
    )


@contextmanager
def item_bar(title: str) -> Iterator[Progress]:
    """A progress in items for work that is no job and keeps nothing; Ctrl-C ends the command."""
    try:
        with RichProgress(*_item_columns(), console=console, transient=True) as bar:
            yield _Bar(bar, title)
    except KeyboardInterrupt:
        console.print("Stopped.")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def download_bar(title: str) -> Iterator[Progress]:
    """A progress in bytes, with the rate; Ctrl-C ends the command and keeps what has arrived."""
    columns = (TextColumn("[bold]{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    try:
        with RichProgress(
            *columns, TimeRemainingColumn(), TextColumn("[dim]{task.fields[message]}"), console=console
        ) as bar:
            yield _Bar(bar, title)
    except KeyboardInterrupt:
        console.print("Stopped. What has arrived is kept; the same command goes on from there.")
        raise typer.Exit(INTERRUPTED) from None


def plain_table(*headers: str) -> Table:
    """A borderless table; columns whose header ends in a space are numbers, set right."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header.rstrip(), justify="right" if header.endswith(" ") else "left", no_wrap=True)
    return table
