"""The routes of the Export page: what may be asked for, what was written, going on with what was stopped, checks."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from app.export_routes import export_router
from app.job_routes import job_router
from app.worker import JobProgress, run_job
from db.jobs import claim
from db.models import Job, JobState, Role
from db.queries import ensure_user
from exports.builds import freeze
from exports.registry import EXPORTERS
from exports.rules import PRESETS
from tests.test_builds import make_small
from tests.test_id_side import add_photos

EXPORTS = "/api/exports"
WORKER = "test:1:1"


@pytest.fixture
def client(workspace):
    """A build of three images, bg-v1."""
    add_photos(make_small(workspace))
    freeze(workspace, "bg", PRESETS["bg"])
    with workspace.write() as session:
        ada = ensure_user(session, "Ada")
        ada.role = Role.ADMIN
        user = ada.id
    app = FastAPI()
    for make in (export_router, job_router):
        app.include_router(make(workspace, lambda: user))
    return TestClient(app)


def run_jobs(workspace) -> None:
    while True:
        with workspace.write() as session:
            job = claim(session, WORKER)
        if job is None:
            return
        run_job(workspace, job, WORKER, JobProgress(workspace, job.id, WORKER))


def export(client, workspace, format: str = "imagefolder", **options) -> dict:
    body = {"build": "bg", "format": format, "out": str(workspace.root / "archives"), "options": options}
    answer = client.post(EXPORTS, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_every_format_is_offered_with_its_sentence(client, workspace):
    choices = client.get(f"{EXPORTS}/choices").json()
    assert [one["name"] for one in choices["formats"]] == list(EXPORTERS)
    assert all(one["about"].endswith(".") for one in choices["formats"])
    assert [one["name"] for one in choices["formats"] if one["id_side"]] == ["imagefolder", "openood"]
    assert [(one["label"], one["images"]) for one in choices["builds"]] == [("bg-v1", 3)]
    assert choices["folder"] == str(workspace.root / "archives")


def test_options_reach_the_archive_and_a_file_can_be_fetched(client, workspace):
    export(client, workspace, images="jpeg", quality=70, id_side=True)
    run_jobs(workspace)
    (archive,) = client.get(EXPORTS).json()["archives"]
    assert (archive["build"], archive["format"], archive["said"]) == ("bg-v1", "imagefolder", "ID side, JPEG 70")
    assert Path(archive["path"]).name == "imagenet-bg-v1-id-jpeg70.zip" and archive["images"] == 3
    (file,) = archive["files"]
    content = client.get(file["url"]).content
    assert hashlib.sha256(content).hexdigest() == archive["sha256"]
    assert (archive["place"], archive["bytes"], archive["check"]) == ("here", len(content), None)


def test_the_files_of_a_folder_are_fetched_one_by_one_and_nothing_else(client, workspace):
    export(client, workspace, "croissant", part_gb=0.5)
    run_jobs(workspace)
    (archive,) = client.get(EXPORTS).json()["archives"]
    names = {file["name"] for file in archive["files"]}
    assert {"croissant.json", "images.zip", "metadata.csv", "SHA256SUMS"} <= names
    for file in archive["files"]:
        assert len(client.get(file["url"]).content) == file["bytes"]
    folder = Path(archive["path"])
    (folder / "link.txt").symlink_to("/etc/hostname")
    for name in ("link.txt", "../../workspace.db", "%2e%2e/%2e%2e/workspace.db", "no.txt"):
        assert client.get(f"/download/{archive['job_id']}/{name}").status_code == 404
    assert "link.txt" not in {file["name"] for file in client.get(EXPORTS).json()["archives"][0]["files"]}


def test_a_check_says_in_order_and_then_what_is_wrong(client, workspace):
    export(client, workspace)
    run_jobs(workspace)
    (archive,) = client.get(EXPORTS).json()["archives"]
    check = f"{EXPORTS}/{archive['job_id']}/check"
    client.post(check)
    assert client.get(EXPORTS).json()["archives"][0]["check"]["state"] == "queued"
    run_jobs(workspace)
    found = client.get(EXPORTS).json()["archives"][0]["check"]
    assert (found["ok"], found["faults"]) == (True, [])
    assert "images: there, decodable, 8-bit RGB, as named: 3" in found["looked_at"]
    path = Path(archive["path"])
    with zipfile.ZipFile(path, "a") as changed:
        changed.writestr("extra.txt", "")
    client.post(check)
    run_jobs(workspace)
    found = client.get(EXPORTS).json()["archives"][0]["check"]
    assert found["ok"] is False and "extra.txt: there, but not listed" in found["faults"]
    path.unlink()
    assert client.get(EXPORTS).json()["archives"][0]["place"] == "gone"
    assert client.post(check).status_code == 404


def test_a_stopped_export_is_listed_until_it_is_gone_on_with(client, workspace):
    job_id = export(client, workspace)["job_id"]
    client.post(f"/api/jobs/{job_id}/cancel")
    run_jobs(workspace)
    (stopped,) = client.get(EXPORTS).json()["stopped"]
    assert (stopped["job_id"], stopped["state"]) == (job_id, "cancelled")
    again = client.post(f"{EXPORTS}/{job_id}/again").json()["job_id"]
    with workspace.read() as session:
        assert session.get(Job, again).params == session.get(Job, job_id).params
    assert client.get(EXPORTS).json()["stopped"] == []
    run_jobs(workspace)
    answer = client.get(EXPORTS).json()
    assert (len(answer["archives"]), answer["stopped"]) == (1, [])
    assert client.post(f"{EXPORTS}/{again}/again").status_code == 409


def test_the_same_path_is_listed_once(client, workspace):
    export(client, workspace)
    second = export(client, workspace)["job_id"]
    run_jobs(workspace)
    assert [one["job_id"] for one in client.get(EXPORTS).json()["archives"]] == [second]


@pytest.mark.parametrize(
    ("changes", "status", "says"),
    [
        ({"build": "no"}, 404, "There is no build 'no'"),
        ({"format": "zip"}, 422, "There is no archive format 'zip'"),
        ({"out": "here"}, 422, "is relative"),
        ({"out": " "}, 422, "Name the folder"),
        ({"options": {"quality": 0}}, 422, "quality is 1 to 100"),
        ({"options": {"part_gb": 0.0000001}}, 422, "at least one MiB"),
        ({"options": {"colour": 1}}, 422, "options.colour"),
        ({"format": "coco", "options": {"id_side": True}}, 422, "imagefolder or openood"),
    ],
)
def test_what_cannot_be_is_refused_before_a_job_is_made(client, workspace, changes, status, says):
    body = {"build": "bg", "format": "imagefolder", "out": str(workspace.root)} | changes
    answer = client.post(EXPORTS, json=body)
    assert answer.status_code == status and says in answer.json()["error"]
    with workspace.read() as session:
        assert session.query(Job).count() == 0


def test_exports_are_for_admins_and_about_exports(client, workspace):
    with workspace.write() as session:
        session.add(Job(kind="import", params={}, state=JobState.DONE, result={"path": "/etc"}))
    for action in ("check", "again"):
        assert client.post(f"{EXPORTS}/1/{action}").status_code == 404
    with workspace.write() as session:
        ensure_user(session, "Ada").role = Role.ADJUDICATOR
    assert client.get(EXPORTS).status_code == 403
