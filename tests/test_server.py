"""The server: what it serves and refuses, the job routes, the worker beside it, and what the pages say."""

from __future__ import annotations

import datetime as dt
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import psutil
import pytest
from fastapi.testclient import TestClient

from app.guard import LOCAL_HOSTS
from app.job_routes import archive_of
from app.listening import Listening, ServerError
from app.pages.generate_page import render_states
from app.pages.overview_page import Standing, next_step, render
from app.pages.shared import escape, state_table
from app.pages.sources_page import ANY_STATE, PAGE_SIZE, render_grid
from app.server import create_app
from app.worker_process import WorkerProcess
from db.jobs import enqueue
from db.models import Job, JobState, Outcome, State, utcnow
from db.queries import active_recipe, state_counts
from tests.browser import synthetic_candidates
from tests.conftest import ROOT

HOST = "http://127.0.0.1"
START_SECONDS = 60


@pytest.fixture(scope="module")
def shared_workspace(tmp_path_factory):
    from db.workspace import open_workspace

    opened = open_workspace(tmp_path_factory.mktemp("served") / "workspace")
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def gradio_cache(tmp_path_factory):
    folder = tmp_path_factory.mktemp("gradio")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        yield folder


@pytest.fixture(scope="module")
def app(shared_workspace, gradio_cache):
    return create_app(shared_workspace)


@pytest.fixture
def client(app):
    return TestClient(app, base_url=HOST)


def add_job(workspace, **values) -> int:
    with workspace.write() as session:
        job = Job(**{"kind": "generate", "params": {}, **values})
        session.add(job)
        session.flush()
        return job.id


def test_building_the_application_needs_no_torch():
    code = (
        "import sys, tempfile\nfrom db.workspace import open_workspace\nfrom app.server import create_app\n"
        "create_app(open_workspace(tempfile.mkdtemp()))\nsys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == 0


def test_health_and_page(client):
    assert client.get("/healthz").json() == {"status": "ok"}
    page = client.get("/")
    assert page.status_code == 200
    assert "/static/app.css" in page.text
    assert page.headers["x-content-type-options"] == "nosniff"


def test_nothing_looks_for_page_events_a_thousand_times_a_second(app):
    for demo in app.state.pages.demos.values():
        assert demo._queue.sleep_when_free >= 0.02


def test_another_host_name_is_refused(app):
    answer = TestClient(app, base_url="http://evil.example").get("/healthz")
    assert answer.status_code == 400


def test_static_files_are_revalidated_and_not_listed(client):
    answer = client.get("/static/app.js")
    assert answer.headers["cache-control"] == "no-cache"
    assert client.get("/static/app.js", headers={"If-None-Match": answer.headers["etag"]}).status_code == 304
    assert client.get("/static/").status_code == 404
    assert client.get("/static/../server.py").status_code == 404
    # Gradio's page asks for this one under the same address.
    assert client.get("/static/js/iframeResizer.contentWindow.min.js").status_code == 200


def test_an_input_cannot_name_a_file_of_the_machine(client, app, gradio_cache):
    """Gradio leaves this check off after mounting unless ``has_launched`` is set."""
    demo = app.state.demo
    number, function = next((n, f) for n, f in demo.fns.items() if f.fn and f.inputs and not f.queue)
    file = {"path": "/etc/passwd", "meta": {"_type": "gradio.FileData"}}
    body = {"fn_index": number, "data": [file] * len(function.inputs), "session_hash": "abc"}
    answer = client.post("/gradio_api/run/predict", json=body)
    assert answer.status_code == 500
    assert not list(gradio_cache.rglob("passwd"))


def test_the_database_is_not_served(client, shared_workspace):
    for path in (shared_workspace.root / "workspace.db", "/etc/passwd"):
        assert client.get(f"/gradio_api/file={path}").status_code in (403, 404)


def test_jobs_tell_rate_and_time_left(client, shared_workspace):
    started = utcnow() - dt.timedelta(seconds=100)
    running = {"state": JobState.RUNNING, "started_at": started, "lease_until": utcnow() + dt.timedelta(minutes=1)}
    job_id = add_job(shared_workspace, done=50, total=200, message="mask: a", **running)
    job = client.get(f"/api/jobs/{job_id}").json()
    assert job["active"] and job["label"] == "Generation"
    assert job["rate"] == pytest.approx(0.5, rel=0.05)
    assert job["seconds_left"] == pytest.approx(300, rel=0.05)
    waiting = add_job(shared_workspace)
    assert client.get("/api/jobs").json()[0]["note"] == f"Waits for job {job_id} to end."
    stopped = client.post(f"/api/jobs/{waiting}/cancel").json()
    assert stopped["state"] == "cancelled"
    assert client.post(f"/api/jobs/{job_id}/cancel").json()["cancel_requested"]
    assert client.get("/api/jobs/999999").json() == {"error": "There is no job 999999."}
    assert client.post("/api/jobs/999999/cancel").status_code == 404


def test_jobs_are_cancelled_from_our_own_pages_only(client, shared_workspace):
    job_id = add_job(shared_workspace)
    answer = client.post(f"/api/jobs/{job_id}/cancel", headers={"Origin": "http://evil.example"})
    assert answer.status_code == 403
    assert client.get(f"/api/jobs/{job_id}").json()["state"] == "queued"


def test_download_gives_finished_archives_of_the_workspace_only(client, shared_workspace, tmp_path):
    inside = shared_workspace.root / "archives" / "a.zip"
    inside.parent.mkdir(exist_ok=True)
    inside.write_bytes(b"zip")
    outside = tmp_path / "b.zip"
    outside.write_bytes(b"zip")
    link = inside.with_name("link.zip")
    link.symlink_to(outside)
    done = {"kind": "export", "state": JobState.DONE}
    answer = client.get(f"/download/{add_job(shared_workspace, result={'path': str(inside)}, **done)}")
    assert answer.content == b"zip"
    assert 'filename="a.zip"' in answer.headers["content-disposition"]
    refused = [
        add_job(shared_workspace, result={"path": str(outside)}, **done),
        add_job(shared_workspace, result={"path": str(link)}, **done),
        add_job(shared_workspace, result={"path": f"{inside.parent}/../../../etc/passwd"}, **done),
        add_job(shared_workspace, result={"path": str(inside)}, kind="export", state=JobState.FAILED),
        add_job(shared_workspace, result={"path": str(inside)}, kind="import", state=JobState.DONE),
        add_job(shared_workspace, result=None, **done),
    ]
    for job_id in refused:
        assert client.get(f"/download/{job_id}").status_code == 404, job_id
    with shared_workspace.read() as session:
        assert archive_of(shared_workspace, session.get(Job, refused[0])) is None


def test_the_next_free_port_is_taken():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with Listening("127.0.0.1", port).open() as listener:
            assert port < listener.getsockname()[1] < port + 100
            assert listener.proto == socket.IPPROTO_TCP, "else every answer waits for Nagle's algorithm"
    with pytest.raises(ServerError, match="No port"):
        Listening("192.0.2.1", 65535).open()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.0.0.2"])
def test_this_machines_own_addresses_need_no_account(host):
    listening = Listening(host)
    listening.check(admin_exists=False)
    assert listening.is_local
    assert set(LOCAL_HOSTS) <= set(listening.host_names)


@pytest.mark.parametrize(
    "listening",
    [
        Listening("0.0.0.0"),
        Listening("::"),
        Listening("192.0.2.1"),
        Listening(allowed_hosts=["lab.example"]),
        Listening(trusted_proxies=["127.0.0.1"]),
    ],
)
def test_what_others_could_reach_needs_an_admin(listening):
    with pytest.raises(ServerError, match=r"users add NAME --role admin.*SSH tunnel"):
        listening.check(admin_exists=False)
    listening.check(admin_exists=True)


def test_names_of_hosts_and_proxies_are_checked():
    for name in ("http://lab.example", "lab.example/", "", "*", "a b"):
        with pytest.raises(ServerError, match="--allow-host"):
            Listening(allowed_hosts=[name]).check(admin_exists=True)
    for proxy in ("*", "proxy.lab", ""):
        with pytest.raises(ServerError, match="--trusted-proxy"):
            Listening(trusted_proxies=[proxy]).check(admin_exists=True)
    good = Listening(
        "0.0.0.0", allowed_hosts=["Lab.example", "lab.example:8443", "[::2]"], trusted_proxies=["10.0.0.0/8"]
    )
    good.check(admin_exists=True)
    assert {"127.0.0.1", "Lab.example", socket.gethostname()} <= set(good.host_names)
    assert "0.0.0.0" not in good.host_names
    assert (good.shown, Listening("::").shown, Listening("::1").shown) == ("127.0.0.1", "[::1]", "[::1]")


def _wait_for(condition, seconds: float = 10.0):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = condition()
        if found:
            return found
        time.sleep(0.05)
    raise AssertionError("It did not happen in time.")


def test_a_worker_that_dies_is_started_again_and_ended_with_the_server(tmp_path):
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    worker = WorkerProcess(command, cwd=tmp_path, first_wait_seconds=0.05)
    worker.start()
    first = _wait_for(lambda: worker.pid)
    os.kill(first, signal.SIGKILL)
    second = _wait_for(lambda: worker.pid if worker.pid != first else None)
    worker.stop()
    assert worker.pid is None
    assert not psutil.pid_exists(second)


def test_launch_serves_with_one_worker_and_ends_both(tmp_path):
    with Listening("127.0.0.1", 20000 + os.getpid() % 20000).open() as listener:
        port = listener.getsockname()[1]
    command = [sys.executable, "launch.py", "--workspace", str(tmp_path / "w"), "--port", str(port)]
    server = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        url = server.stdout.readline().split()[-1]

        def answers() -> bool:
            try:
                return httpx.get(f"{url}/healthz").status_code == 200
            except httpx.TransportError:
                return False

        _wait_for(answers, START_SECONDS)
        [child] = _wait_for(lambda: psutil.Process(server.pid).children())
        assert child.cmdline()[-1] == "worker"
    finally:
        server.send_signal(signal.SIGTERM)
        output, _ = server.communicate(timeout=START_SECONDS)
    assert server.returncode == 0, output
    assert "Traceback" not in output
    assert not child.is_running()


def test_escape_leaves_nothing_that_a_template_engine_runs():
    text = escape("<b onclick='x'>${alert(1)} `{{x}}` \\u0041")
    assert not set("<>'\"${}`\\") & set(text)


def test_states_on_the_page_add_up_to_the_sources(workspace):
    ids = synthetic_candidates(workspace, 12)
    with workspace.write() as session:
        recipe = active_recipe(session)
        for source_id in range(1, 8):
            state = State.CANDIDATE if source_id < 6 else State.FAILED
            session.add(Outcome(source_id=source_id, recipe_id=recipe.id, state=state, reason="out <of> memory"))
    with workspace.read() as session:
        counts = state_counts(session, active_recipe(session))
    assert sum(counts.values()) == len(ids)
    assert '<th scope="row">All sources</th><td class="number">12</td>' in state_table(counts)
    assert "out &lt;of&gt; memory" in render_states(workspace)
    page = render(workspace, 1)
    assert "5 photos wait for generation" in page and str(workspace.root) in page


@pytest.mark.parametrize(
    ("changes", "page"),
    [
        ({"sources": 0, "pending": 0, "candidates": 0, "unreviewed": 0}, "sources"),
        ({}, "generate"),
        ({"pending": 0}, "review"),
        ({"pending": 0, "unreviewed": 0}, "build"),
        ({"pending": 0, "unreviewed": 0, "builds": 1}, "export"),
        ({"pending": 0, "unreviewed": 0, "candidates": 0}, "generate"),
        ({"running": Job(kind="import")}, "sources"),
    ],
)
def test_what_to_do_next(changes, page):
    values = {"sources": 9, "pending": 3, "candidates": 5, "unreviewed": 2, "builds": 0, "exported": False}
    assert next_step(Standing(**{**values, "running": None, **changes}))[1] == page


def test_photos_are_paged_and_filtered(workspace):
    synthetic_candidates(workspace, PAGE_SIZE + 5, size=16)
    first = render_grid(workspace, "", ANY_STATE, 0)
    assert first.html.count("<li>") == PAGE_SIZE
    second = render_grid(workspace, "", ANY_STATE, first.next_after)
    assert second.html.count("<li>") == 5 and second.next_after is None
    assert render_grid(workspace, "SHARK", ANY_STATE, 0).html.count("<li>") == (PAGE_SIZE + 5) // 3
    assert render_grid(workspace, "1", State.PENDING.value, 0).html.count("goldfish") > 0
    assert "No photo matches" in render_grid(workspace, "50%", ANY_STATE, 0).html
    assert "No photo matches" in render_grid(workspace, "", State.FAILED.value, 0).html


def test_a_job_that_waits_says_so(client, shared_workspace):
    with shared_workspace.write() as session:
        job = enqueue(session, "import", {})
    assert client.get(f"/api/jobs/{job.id}").json()["note"].startswith("Waits for")
