"""The worker: takes jobs from the database and runs them, one at a time, until it is told to stop."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time

import psutil

from app.jobs import find_handler
from db import jobs
from db.models import Job, JobState
from db.progress import Cancelled, Progress
from db.workspace import Workspace

log = logging.getLogger(__name__)

HEARTBEAT_SECONDS = 5.0
WRITE_SECONDS = 0.5
IDLE_SECONDS = 0.5
# Their exceptions are sentences for the operator; anything else is a bug, whose traceback is wanted.
OUR_PACKAGES = ("app", "db", "exports", "generation", "ospcoop", "review")


class WorkerStopping(Exception):
    """The worker was told to end; its job goes back to the queue."""


def worker_name() -> str:
    """Host, process id and the process's start, so that a reused process id is not taken for this one."""
    process = psutil.Process()
    return f"{socket.gethostname()}:{process.pid}:{process.create_time():.2f}"


def is_gone(worker: str) -> bool:
    """Whether that worker ran on this machine and its process is no more. False when it cannot be known."""
    host, _, rest = worker.rpartition(":")[0].rpartition(":")
    if host != socket.gethostname() or not rest.isdigit():
        return False
    try:
        started = psutil.Process(int(rest)).create_time()
    except psutil.NoSuchProcess:
        return True
    return f"{started:.2f}" != worker.rpartition(":")[2]


class JobProgress:
    """Writes a job's progress at most twice a second, keeps its lease alive in between, learns of cancels.

    ``mirror`` sees every update too (a terminal's progress bar).
    """

    def __init__(self, workspace: Workspace, job_id: int, worker: str, mirror: Progress | None = None) -> None:
        self._workspace = workspace
        self._job_id = job_id
        self._worker = worker
        self._mirror = mirror
        self._latest: tuple[int, int | None, str] = (0, None, "")
        self._written_at = 0.0
        self._cancelled = threading.Event()
        self._stopping = threading.Event()
        self._ended = threading.Event()
        self._lost: jobs.LeaseLost | None = None
        self._beat = threading.Thread(target=self._keep_alive, name="heartbeat", daemon=True)

    def __enter__(self) -> JobProgress:
        self._beat.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._ended.set()
        self._beat.join()

    def update(self, done: int, total: int | None, message: str = "") -> None:
        self._latest = (done, total, message)
        if self._mirror is not None:
            self._mirror.update(done, total, message)
        if time.monotonic() - self._written_at >= WRITE_SECONDS:
            self._write()
        if self._lost is not None:
            raise self._lost
        if self._stopping.is_set():
            raise WorkerStopping
        if self._cancelled.is_set():
            raise Cancelled

    def log(self, line: str) -> None:
        if self._mirror is not None:
            self._mirror.log(line)
        with self._workspace.write() as session:
            jobs.add_log(session, self._job_id, line)

    def stop(self) -> None:
        """Make the next :meth:`update` raise :class:`WorkerStopping`."""
        self._stopping.set()

    def cancel(self) -> None:
        """Make the next :meth:`update` raise :class:`db.progress.Cancelled`."""
        self._cancelled.set()

    def flush(self) -> None:
        self._write()

    def _write(self) -> None:
        self._written_at = time.monotonic()
        done, total, message = self._latest
        try:
            with self._workspace.write() as session:
                values = {"done": done, "total": total, "message": message}
                if jobs.heartbeat(session, self._job_id, self._worker, **values):
                    self._cancelled.set()
        except jobs.LeaseLost as error:
            self._lost = error

    def _keep_alive(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS) and self._lost is None:
            if time.monotonic() - self._written_at >= HEARTBEAT_SECONDS:
                self._write()


def run_job(workspace: Workspace, job: Job, worker: str, progress: JobProgress) -> JobState:
    """Run a claimed job to its end and record it. The state it ended in; ``queued`` when it was given back.

    Any exception of the handler ends as the job's error.
    """
    state, result, error = JobState.DONE, None, ""
    try:
        with progress:
            result = find_handler(job.kind)(workspace, job.params, progress)
            progress.flush()
    except Cancelled:
        state = JobState.CANCELLED
    except WorkerStopping:
        with workspace.write() as session:
            jobs.release(session, job.id, worker)
        return JobState.QUEUED
    except jobs.LeaseLost as lost:
        log.warning("%s", lost)
        return JobState.RUNNING
    except Exception as failure:  # whatever a handler raises is the job's end, not the worker's
        named = type(failure).__module__.partition(".")[0] in OUR_PACKAGES
        log.error("Job %s (%s) failed: %s", job.id, job.kind, failure, exc_info=None if named else failure)
        state, error = JobState.FAILED, f"{failure}" or type(failure).__name__
    _finish(workspace, job, worker, state, result, error)
    return state


def _finish(workspace: Workspace, job: Job, worker: str, state: JobState, result: dict | None, error: str) -> None:
    with workspace.write() as session:
        jobs.finish(session, job.id, worker, state, result=result, error=error)


def work(workspace: Workspace, *, until_idle: bool = False) -> int:
    """Run jobs until SIGTERM or SIGINT (or, ``until_idle``, until none waits). The number of jobs run.

    The job in hand stops at its next step and goes back to the queue; models stay loaded between jobs.
    """
    limit_threads()
    name = worker_name()
    parent = os.getppid()
    stopping = threading.Event()
    current: list[JobProgress] = []

    def stop(signum: int, frame: object) -> None:
        stopping.set()
        for progress in current:
            progress.stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    ran = 0
    while not stopping.is_set() and os.getppid() == parent:
        with workspace.write() as session:
            job = jobs.claim(session, name, is_gone=is_gone)
        if job is None:
            if until_idle:
                break
            stopping.wait(IDLE_SECONDS)
            continue
        progress = JobProgress(workspace, job.id, name)
        current[:] = [progress]
        if stopping.is_set():
            progress.stop()
        log.info("Job %s (%s) started", job.id, job.kind)
        state = run_job(workspace, job, name, progress)
        log.info("Job %s (%s): %s", job.id, job.kind, state.value)
        current.clear()
        ran += 1
    return ran


def limit_threads() -> None:
    """One math thread on small machines: measured, two competing ones run 5 to 20 times slower there."""
    if (os.cpu_count() or 1) <= 4:
        for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
            os.environ.setdefault(variable, "1")
