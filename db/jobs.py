"""The job queue in the database: enqueue, claim with a lease, heartbeat, cancel, finish.

A job belongs to the worker that claimed it while its lease runs. A worker that dies stops renewing,
and the next one takes the job up again; handlers find what is already done and go on from there.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable

from sqlalchemy import select, update
from sqlalchemy.orm import Session

from db.models import Job, JobLogLine, JobState, utcnow

LEASE = dt.timedelta(seconds=30)
MAX_ATTEMPTS = 5
ENDED = (JobState.DONE, JobState.FAILED, JobState.CANCELLED)


class LeaseLost(RuntimeError):
    """Another worker has the job now; this one must stop without writing its end."""


class UnknownJob(LookupError):
    """There is no job of that number."""


def enqueue(session: Session, kind: str, params: dict, *, created_by: str = "") -> Job:
    job = Job(kind=kind, params=params, created_by=created_by)
    session.add(job)
    session.flush()
    return job


def claim(
    session: Session,
    worker: str,
    *,
    job_id: int | None = None,
    is_gone: Callable[[str], bool] = lambda worker: False,
) -> Job | None:
    """Take the oldest job that waits or whose worker died, or exactly ``job_id``. None when there is none.

    A worker is dead when its lease ran out or ``is_gone(worker)`` knows it to be. Must run in a write
    transaction. A job that killed its worker :data:`MAX_ATTEMPTS` times is failed.
    """
    now = utcnow()
    waiting = select(Job).where(Job.state.in_((JobState.QUEUED, JobState.RUNNING)))
    if job_id is not None:
        waiting = waiting.where(Job.id == job_id)
    for job in session.scalars(waiting.order_by(Job.id)):
        if job.state == JobState.RUNNING and job.lease_until >= now and not is_gone(job.worker):
            continue
        if job.cancel_requested:
            _end(job, JobState.CANCELLED)
        elif job.attempts >= MAX_ATTEMPTS:
            job.error = f"Given up: its worker died {job.attempts} times. See the log, then start it again."
            _end(job, JobState.FAILED)
        else:
            taken_up = job.attempts > 0
            job.state = JobState.RUNNING
            job.attempts += 1
            job.worker = worker
            job.started_at = job.started_at or now
            job.heartbeat_at = now
            job.lease_until = now + LEASE
            if taken_up:
                add_log(session, job.id, f"Taken up again by {worker} (attempt {job.attempts}).")
            return job
    return None


def heartbeat(
    session: Session,
    job_id: int,
    worker: str,
    *,
    done: int | None = None,
    total: int | None = None,
    message: str | None = None,
) -> bool:
    """Renew the lease, note the progress; True when somebody asked for a cancel. Raises :class:`LeaseLost`."""
    now = utcnow()
    values: dict[str, object] = {"heartbeat_at": now, "lease_until": now + LEASE}
    values |= {
        key: value for key, value in (("done", done), ("total", total), ("message", message)) if value is not None
    }
    owned = (Job.id == job_id) & (Job.worker == worker) & (Job.state == JobState.RUNNING)
    if session.execute(update(Job).where(owned).values(**values)).rowcount != 1:
        raise LeaseLost(f"Job {job_id} is no longer held by {worker}.")
    return bool(session.scalar(select(Job.cancel_requested).where(Job.id == job_id)))


def finish(
    session: Session, job_id: int, worker: str, state: JobState, *, result: dict | None = None, error: str = ""
) -> None:
    """End a job that ``worker`` holds. Raises :class:`LeaseLost` when it does not."""
    job = session.get(Job, job_id)
    if job is None or job.worker != worker or job.state != JobState.RUNNING:
        raise LeaseLost(f"Job {job_id} is no longer held by {worker}.")
    job.result = result
    job.error = error
    _end(job, state)


def release(session: Session, job_id: int, worker: str) -> None:
    """Give a job back unfinished (the worker is shutting down); another one goes on with it at once."""
    job = session.get(Job, job_id)
    if job is not None and job.worker == worker and job.state == JobState.RUNNING:
        job.state = JobState.QUEUED
        job.worker = None
        job.lease_until = None
        job.attempts -= 1


def request_cancel(session: Session, job_id: int) -> Job:
    """Ask a running job to stop at its next step; a waiting one is cancelled at once."""
    job = session.get(Job, job_id)
    if job is None:
        raise UnknownJob(f"There is no job {job_id}.")
    if job.state not in ENDED:
        job.cancel_requested = True
        if job.state == JobState.QUEUED:
            _end(job, JobState.CANCELLED)
    return job


def add_log(session: Session, job_id: int, line: str) -> None:
    session.add(JobLogLine(job_id=job_id, line=line))


def log_lines(session: Session, job_id: int, *, limit: int = 200) -> list[JobLogLine]:
    """The newest ``limit`` lines of a job's log, oldest first."""
    newest = select(JobLogLine).where(JobLogLine.job_id == job_id).order_by(JobLogLine.id.desc()).limit(limit)
    return list(session.scalars(newest))[::-1]


def recent_jobs(session: Session, *, limit: int = 10) -> list[Job]:
    return list(session.scalars(select(Job).order_by(Job.id.desc()).limit(limit)))


def active_job(session: Session, kind: str) -> Job | None:
    """The job of that kind that waits or runs, if any."""
    return session.scalar(select(Job).where(Job.kind == kind, Job.state.not_in(ENDED)).order_by(Job.id).limit(1))


def _end(job: Job, state: JobState) -> None:
    job.state = state
    job.finished_at = utcnow()
    job.lease_until = None
