"""The jobs as JSON: what the progress display polls, the way to cancel one, and finished archives.

Errors are answered as ``{"error": sentence}``.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from pathlib import Path

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi import Path as PathParameter
from fastapi.responses import FileResponse
from pydantic import BaseModel
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.review_routes import MAX_ID, PlainErrorRoute
from db.jobs import ENDED, UnknownJob, log_lines, recent_jobs, request_cancel
from db.models import Job, JobState, utcnow
from db.workspace import Workspace

KIND_LABELS = {
    "import": "Import",
    "generate": "Generation",
    "preview": "Try on one photo",
    "export": "Export",
    "check": "Check of an archive",
    "train": "Training",
    "evaluate": "Evaluation",
    "shortcut_map": "Shortcut map",
    "triage": "Triage",
    "duplicates": "Duplicates",
}
LOG_LINES = 50
MAX_LISTED = 50
PATIENCE = dt.timedelta(seconds=15)


class JobOut(BaseModel):
    """A job as the pages show it. ``rate`` is items a second since it started; both it and the seconds left may be
    unknown. ``note`` says why nothing moves."""

    id: int
    kind: str
    label: str
    state: JobState
    active: bool
    done: int
    total: int | None
    message: str
    error: str
    note: str
    cancel_requested: bool
    rate: float | None
    seconds_left: float | None
    seconds: float | None
    created_at: dt.datetime


class JobDetail(JobOut):
    """The same with the newest lines of its log, oldest first."""

    log: list[str]


def job_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The job routes, each behind ``current_user`` (a FastAPI dependency that gives the user's id)."""
    router = APIRouter(route_class=PlainErrorRoute, dependencies=[Depends(current_user)])

    @router.get("/api/jobs")
    def jobs(limit: int = Query(20, ge=1, le=MAX_LISTED)) -> list[JobOut]:
        with workspace.read() as session:
            running = _running(session)
            return [JobOut(**_facts(job, running)) for job in recent_jobs(session, limit=limit)]

    @router.get("/api/jobs/{job_id}")
    def job(job_id: int = PathParameter(ge=1, le=MAX_ID)) -> JobDetail:
        with workspace.read() as session:
            return _detail(session, _find(session, job_id))

    @router.post("/api/jobs/{job_id}/cancel")
    def cancel(job_id: int = PathParameter(ge=1, le=MAX_ID)) -> JobDetail:
        with workspace.write() as session:
            try:
                return _detail(session, request_cancel(session, job_id))
            except UnknownJob as error:
                raise HTTPException(404, str(error)) from error

    @router.get("/download/{job_id}")
    def download(job_id: int = PathParameter(ge=1, le=MAX_ID)) -> FileResponse:
        with workspace.read() as session:
            path = archive_of(workspace, _find(session, job_id))
        if path is None:
            raise HTTPException(
                404, f"Job {job_id} left no archive inside the workspace; export the build again, or look at its path."
            )
        headers = {"Cache-Control": "private, no-store"}
        return FileResponse(path, filename=path.name, media_type="application/octet-stream", headers=headers)

    @router.get("/download/{job_id}/{name:path}")
    def download_part(name: str, job_id: int = PathParameter(ge=1, le=MAX_ID)) -> FileResponse:
        with workspace.read() as session:
            files = archive_files(workspace, _find(session, job_id))
        if name not in files:
            raise HTTPException(404, f"The archive of job {job_id} has no file {name!r} inside the workspace.")
        headers = {"Cache-Control": "private, no-store"}
        path = files[name]
        return FileResponse(path, filename=path.name, media_type="application/octet-stream", headers=headers)

    return router


def archive_of(workspace: Workspace, job: Job) -> Path | None:
    """The finished archive of an export job, if it is a file inside the workspace."""
    path = _written_to(workspace, job)
    return path if path is not None and path.is_file() else None


def archive_files(workspace: Workspace, job: Job) -> dict[str, Path]:
    """The files of an export job's archive by name, if it is a folder inside the workspace; links are left out."""
    folder = _written_to(workspace, job)
    if folder is None or not folder.is_dir():
        return {}
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and not file.is_symlink())
    return {file.relative_to(folder).as_posix(): file for file in files if file.resolve().is_relative_to(folder)}


def _written_to(workspace: Workspace, job: Job) -> Path | None:
    if job.kind != "export" or job.state != JobState.DONE or not job.result:
        return None
    path = Path(str(job.result.get("path", ""))).resolve()
    return path if path.is_relative_to(workspace.root) else None


def _find(session: Session, job_id: int) -> Job:
    job = session.get(Job, job_id)
    if job is None:
        raise HTTPException(404, f"There is no job {job_id}.")
    return job


def _running(session: Session) -> int | None:
    return session.scalar(select(Job.id).where(Job.state == JobState.RUNNING).order_by(Job.id).limit(1))


def _detail(session: Session, job: Job) -> JobDetail:
    log = [line.line for line in log_lines(session, job.id, limit=LOG_LINES)]
    return JobDetail(**_facts(job, _running(session)), log=log)


def _facts(job: Job, running: int | None) -> dict:
    now = utcnow()
    end = job.finished_at or now
    seconds = None if job.started_at is None else max(0.0, (end - job.started_at).total_seconds())
    rate = job.done / seconds if seconds and job.done else None
    left = None
    if rate and job.total is not None and job.state == JobState.RUNNING:
        left = max(0, job.total - job.done) / rate
    return {
        "id": job.id,
        "kind": job.kind,
        "label": KIND_LABELS.get(job.kind, job.kind),
        "state": job.state,
        "active": job.state not in ENDED,
        "done": job.done,
        "total": job.total,
        "message": job.message,
        "error": job.error,
        "note": _note(job, running, now),
        "cancel_requested": job.cancel_requested,
        "rate": rate,
        "seconds_left": left,
        "seconds": seconds,
        "created_at": job.created_at,
    }


def _note(job: Job, running: int | None, now: dt.datetime) -> str:
    if job.state == JobState.QUEUED:
        if running is not None:
            return f"Waits for job {running} to end."
        if now - job.created_at > PATIENCE:
            return "Waits for a worker; if none starts, run `uv run launch.py worker` for this workspace."
        return "Waits for the worker."
    if job.state == JobState.RUNNING and job.lease_until is not None and job.lease_until < now:
        return "Its worker was not heard of for a while; the next one takes the job up where it stood."
    return ""
