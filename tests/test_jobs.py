"""The job queue and the worker: leases, heartbeats, cancel, a dead worker's job taken up again."""

from __future__ import annotations

import datetime as dt
import os
import signal
import subprocess
import sys
import time

import pytest
from sqlalchemy import update

from app import jobs as kinds
from app.worker import JobProgress, is_gone, run_job, work, worker_name
from db import jobs
from db.models import Job, JobState, utcnow
from tests.conftest import ROOT


def _enqueue(workspace, kind="count", **params) -> int:
    with workspace.write() as session:
        return jobs.enqueue(session, kind, params).id


def _claim(workspace, worker="w1", **options) -> Job | None:
    with workspace.write() as session:
        return jobs.claim(session, worker, **options)


def _job(workspace, job_id) -> Job:
    with workspace.read() as session:
        return session.get(Job, job_id)


def _expire(workspace, job_id) -> None:
    with workspace.write() as session:
        past = utcnow() - dt.timedelta(seconds=1)
        session.execute(update(Job).where(Job.id == job_id).values(lease_until=past))


def test_jobs_are_claimed_in_order_and_once(workspace):
    first, second = _enqueue(workspace), _enqueue(workspace)
    assert _claim(workspace, "w1").id == first
    assert _claim(workspace, "w2").id == second
    assert _claim(workspace, "w3") is None


def test_an_expired_lease_hands_the_job_over_and_the_old_worker_learns_it(workspace):
    job_id = _enqueue(workspace)
    _claim(workspace, "w1")
    _expire(workspace, job_id)
    taken = _claim(workspace, "w2")
    assert (taken.id, taken.attempts, taken.worker) == (job_id, 2, "w2")
    with pytest.raises(jobs.LeaseLost), workspace.write() as session:
        jobs.heartbeat(session, job_id, "w1", done=5)
    with pytest.raises(jobs.LeaseLost), workspace.write() as session:
        jobs.finish(session, job_id, "w1", JobState.DONE)
    with workspace.read() as session:
        assert "Taken up again by w2" in jobs.log_lines(session, job_id)[0].line


def test_a_job_that_keeps_killing_its_worker_is_given_up(workspace):
    job_id = _enqueue(workspace)
    for _ in range(jobs.MAX_ATTEMPTS):
        assert _claim(workspace).id == job_id
        _expire(workspace, job_id)
    assert _claim(workspace) is None
    assert _job(workspace, job_id).state is JobState.FAILED
    assert "its worker died" in _job(workspace, job_id).error


def test_a_waiting_job_is_cancelled_at_once(workspace):
    job_id = _enqueue(workspace)
    with workspace.write() as session:
        jobs.request_cancel(session, job_id)
    assert _job(workspace, job_id).state is JobState.CANCELLED
    assert _claim(workspace) is None


def _count(workspace, params, progress):
    for number in range(params["n"]):
        progress.update(number + 1, params["n"], "counting")
        time.sleep(params.get("pause", 0))
    return {"counted": params["n"]}


def _run(workspace, job_id) -> JobState:
    job = _claim(workspace, "w1", job_id=job_id)
    return run_job(workspace, job, "w1", JobProgress(workspace, job_id, "w1"))


def test_a_finished_job_keeps_its_result_and_progress(workspace, monkeypatch):
    monkeypatch.setitem(kinds.JOB_KINDS, "count", _count)
    job_id = _enqueue(workspace, n=7)
    assert _run(workspace, job_id) is JobState.DONE
    job = _job(workspace, job_id)
    assert (job.result, job.done, job.total, job.message) == ({"counted": 7}, 7, 7, "counting")


def test_a_cancel_stops_a_running_job_at_its_next_step(workspace, monkeypatch):
    def count_and_cancel(opened, params, progress):
        progress.update(1, 10)
        with opened.write() as session:
            jobs.request_cancel(session, job_id)
        progress.flush()
        progress.update(2, 10)
        raise AssertionError("went on after the cancel")

    monkeypatch.setitem(kinds.JOB_KINDS, "count", count_and_cancel)
    job_id = _enqueue(workspace)
    assert _run(workspace, job_id) is JobState.CANCELLED


def test_an_error_becomes_the_jobs_error_and_an_unknown_kind_says_so(workspace, monkeypatch):
    def broken(opened, params, progress):
        raise ValueError("the folder /nowhere is missing")

    monkeypatch.setitem(kinds.JOB_KINDS, "broken", broken)
    for kind, expected in (("broken", "the folder /nowhere is missing"), ("from-the-future", "update the code")):
        job_id = _enqueue(workspace, kind)
        assert _run(workspace, job_id) is JobState.FAILED
        assert expected in _job(workspace, job_id).error


def test_a_long_silent_step_keeps_its_lease(workspace, monkeypatch):
    monkeypatch.setattr("app.worker.HEARTBEAT_SECONDS", 0.05)

    def silent(opened, params, progress):
        before = _job(opened, job_id).heartbeat_at
        deadline = time.monotonic() + 5
        while _job(opened, job_id).heartbeat_at == before and time.monotonic() < deadline:
            time.sleep(0.02)
        return {"renewed": _job(opened, job_id).heartbeat_at > before}

    monkeypatch.setitem(kinds.JOB_KINDS, "count", silent)
    job_id = _enqueue(workspace)
    _run(workspace, job_id)
    assert _job(workspace, job_id).result == {"renewed": True}


def test_a_dead_process_on_this_machine_is_known_to_be_gone():
    child = subprocess.Popen(
        [sys.executable, "-c", "from app.worker import *; print(worker_name()); input()"],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    name = child.stdout.readline().strip()
    assert not is_gone(name)
    child.communicate("\n")
    assert is_gone(name)
    assert not is_gone(worker_name())
    assert not is_gone("another-host:1:0.00")


def test_the_worker_runs_what_waits_and_ends_when_idle(workspace, monkeypatch):
    monkeypatch.setitem(kinds.JOB_KINDS, "count", _count)
    ids = [_enqueue(workspace, n=n) for n in (1, 2, 3)]
    previous = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        assert work(workspace, until_idle=True) == 3
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert [_job(workspace, i).result["counted"] for i in ids] == [1, 2, 3]


def test_sigterm_gives_the_job_back_and_another_worker_finishes_it(workspace):
    script = (
        "import sys, time\n"
        "from app import jobs, worker\n"
        "from db.workspace import open_workspace\n"
        "def count(workspace, params, progress):\n"
        "    for n in range(params['n']):\n"
        "        progress.update(n, params['n']); time.sleep(params['pause'])\n"
        "    return {'counted': params['n']}\n"
        "jobs.JOB_KINDS['count'] = count\n"
        "worker.work(open_workspace(sys.argv[1]), until_idle=True)\n"
    )
    job_id = _enqueue(workspace, n=400, pause=0.01)
    command = [sys.executable, "-c", script, str(workspace.root)]
    child = subprocess.Popen(command, cwd=ROOT)
    deadline = time.monotonic() + 30
    while _job(workspace, job_id).done < 5 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait(timeout=20) == 0
    given_back = _job(workspace, job_id)
    assert (given_back.state, given_back.worker) == (JobState.QUEUED, None)
    subprocess.run(command, cwd=ROOT, check=True, timeout=60)
    assert _job(workspace, job_id).result == {"counted": 400}
