"""The Train page's routes: what is offered and counted, what is refused in sentences, and runs through the queue."""

from __future__ import annotations

import shutil

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import select, update

from app.training_routes import training_router
from app.worker import JobProgress, run_job
from db import jobs
from db.models import JobState, Role, Run, SourceImage, Split, User
from db.workspace import open_workspace
from ospcoop.options import TrainingOptions
from tests.training_material import make_material, tiny_encoder

FAST = {"epochs": 2, "batch_size": 8, "n_ctx": 4}


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def opened(material, tmp_path):
    shutil.copytree(material, tmp_path / "workspace")
    workspace = open_workspace(tmp_path / "workspace")
    yield workspace
    workspace.close()


@pytest.fixture
def tiny(monkeypatch):
    """Every encoder is the tiny CLIP of random weights."""
    monkeypatch.setattr("app.encoders.load_encoder", lambda *_args, **_options: tiny_encoder())


def client_of(workspace, role: Role = Role.ADMIN) -> TestClient:
    with workspace.write() as session:
        user = User(name=f"the {role}", role=role)
        session.add(user)
    app = FastAPI()
    app.include_router(training_router(workspace, lambda: user.id))
    return TestClient(app)


def work(workspace) -> list[JobState]:
    """Runs what waits, as the worker does; how each job ended."""
    ends = []
    while True:
        with workspace.write() as session:
            job = jobs.claim(session, "w")
        if job is None:
            return ends
        ends.append(run_job(workspace, job, "w", JobProgress(workspace, job.id, "w")))


def test_the_form_offers_the_published_values_and_what_there_is(opened):
    offered = client_of(opened).get("/api/training").json()
    assert offered["defaults"]["loss1"] == 1.5 and offered["defaults"]["lr"] == 0.002
    assert set(offered["defaults"]) == set(TrainingOptions().as_dict()) - {"objective", "seed"}
    assert offered["choices"]["class_position"] == ["end", "middle", "front"]
    assert (offered["epochs"], offered["epochs_with_id_aug"]) == (50, 20)
    (one,) = offered["fewshot_sets"]
    assert (one["shots"], one["seed"], one["sources"], one["classes"]) == (16, 1, 16, 4)
    assert {entry["grade"] for entry in offered["encoders"]} == {"embedded", "paper"}


def test_a_plan_counts_by_kind_and_class(opened):
    client = client_of(opened)
    plan = client.post("/api/training/plan", json={}).json()
    assert plan["data"]["kinds"]["id"] == 16 and plan["data"]["kinds"]["background"] > 0
    by_class = plan["data"]["by_class"]
    assert sum(counts["id"] for counts in by_class.values()) == 16
    assert set(plan["class_names"]) == set(by_class) and plan["class_names"]["n01440764"] == "tench"
    alone = client.post("/api/training/plan", json={"options": {"objective": "coop"}}).json()
    assert alone["data"]["kinds"] == {"id": 16}
    held = {"options": {"selection": "held_out", "held_out_share": 0.5}}
    # Two classes have backgrounds; of the four photos of each one stays to be trained on.
    assert client.post("/api/training/plan", json=held).json()["data"]["held_out"] == {"id": 6, "background": 6}
    with_crops = client.post("/api/training/plan", json={"id_augs": True}).json()
    assert with_crops["data"]["kinds"]["id_aug"] > 0 and with_crops["data"]["crops"]


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"options": {"epochs": 0}}, 422, "epochs must be at least 1"),
        ({"options": {"learning_rate": 1}}, 422, "Unknown training option: learning_rate"),
        ({"options": {"epochs": "5"}}, 422, "epochs is a str"),
        ({"fewshot_set": 9}, 409, "no few-shot set 9"),
        ({"surprise": 1}, 422, "surprise"),
        ({"textures": 1}, 422, "textures"),
    ],
)
def test_a_wrong_wish_is_refused_in_a_sentence(opened, body, status, words):
    client = client_of(opened)
    answer = client.post("/api/training/plan", json=body)
    assert answer.status_code == status and words in answer.json()["error"]
    assert client.post("/api/training/runs", json=body).status_code == status
    assert client.get("/api/training/runs").json() == []


def test_nothing_is_planned_without_the_weights_or_an_encoder(opened, monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGENET_BG_WEIGHTS", str(tmp_path / "none"))
    client = client_of(opened)
    answer = client.post("/api/training/runs", json={"encoder": "clip"})
    assert answer.status_code == 409 and "weights" in answer.json()["error"]
    answer = client.post("/api/training/runs", json={"encoder": "nothing"})
    assert answer.status_code == 422 and "embedded_dual" in answer.json()["error"]
    assert client.get("/api/training/runs").json() == []


def test_an_empty_workspace_says_what_to_do(workspace):
    client = client_of(workspace)
    assert client.get("/api/training").json()["fewshot_sets"] == []
    answer = client.post("/api/training/plan", json={})
    assert answer.status_code == 409 and "launch.py fewshot" in answer.json()["error"]


def test_val_photos_are_refused(opened):
    with opened.write() as session:
        session.execute(update(SourceImage).where(SourceImage.id == 1).values(split=Split.VAL))
    answer = client_of(opened).post("/api/training/plan", json={})
    assert answer.status_code == 409 and "val" in answer.json()["error"]


def test_seeds_become_runs_that_are_trained_and_have_curves(opened, tiny):
    client = client_of(opened)
    body = {"options": FAST | {"selection": "held_out"}, "seeds": [3, 4, 3], "name": "mine"}
    started = client.post("/api/training/runs", json=body)
    assert started.status_code == 202 and started.json() == {"started": ["mine-s3", "mine-s4"], "refused": []}
    listed = client.get("/api/training/runs").json()
    assert [(run["name"], run["seed"], run["state"]) for run in listed] == [
        ("mine-s4", 4, "queued"),
        ("mine-s3", 3, "queued"),
    ]
    again = client.post("/api/training/runs", json=body)
    assert again.status_code == 409 and "being trained already" in again.json()["error"]
    assert work(opened) == [JobState.DONE, JobState.DONE]
    run = client.get("/api/training/runs/mine-s3").json()
    assert run["state"] == "done" and not run["can_resume"] and run["job_id"] is None
    assert [one["epoch"] for one in run["curves"]] == [0, 1]
    assert {"loss", "loss_id", "loss_en", "accuracy", "held_out_auroc"} <= set(run["curves"][0]["metrics"])
    assert run["curves"][0]["lr"] == pytest.approx(1e-5) and run["options"]["epochs"] == 2
    assert run["created_by"] == "the admin" and run["data"]["sha256"]
    brief = client.get("/api/training/runs/mine-s3", params={"brief": True}).json()
    assert brief == run | {"data": {}}
    # One seed that is done does not keep another from being started.
    more = client.post("/api/training/runs", json=body | {"seeds": [3, 5]}).json()
    assert more["started"] == ["mine-s5"] and "is exactly this training" in more["refused"][0]
    assert [run["name"] for run in client.get("/api/training/runs", params={"limit": 1}).json()] == ["mine-s5"]
    before = client.get("/api/training/runs", params={"before": listed[0]["id"]}).json()
    assert [run["name"] for run in before] == ["mine-s3"]


def test_a_run_is_cancelled_and_goes_on(opened, tiny):
    client = client_of(opened)
    (name,) = client.post("/api/training/runs", json={"options": FAST}).json()["started"]
    cancelled = client.post(f"/api/training/runs/{name}/cancel")
    assert cancelled.status_code == 202
    assert cancelled.json()["state"] == "stopped" and cancelled.json()["can_resume"], "it had not begun"
    answer = client.post(f"/api/training/runs/{name}/cancel")
    assert answer.status_code == 409 and "nothing to cancel" in answer.json()["error"]
    assert work(opened) == []
    resumed = client.post(f"/api/training/runs/{name}/resume").json()
    assert resumed["state"] == "queued" and resumed["job_id"] is not None
    assert "being trained already" in client.post(f"/api/training/runs/{name}/resume").json()["error"]
    with opened.write() as session:
        job = jobs.claim(session, "w")
    running = client.get(f"/api/training/runs/{name}").json()
    assert running["state"] == "running"
    client.post(f"/api/training/runs/{name}/cancel")
    assert client.get(f"/api/training/runs/{name}").json()["message"] == "Stopping"
    progress = JobProgress(opened, job.id, "w")
    progress.cancel()
    assert run_job(opened, job, "w", progress) is JobState.CANCELLED
    client.post(f"/api/training/runs/{name}/resume")
    assert work(opened) == [JobState.DONE]
    done = client.get(f"/api/training/runs/{name}").json()
    assert done["state"] == "done" and done["chosen_epoch"] == 1
    answer = client.post(f"/api/training/runs/{name}/resume")
    assert answer.status_code == 409 and "finished" in answer.json()["error"]


def test_a_failed_run_says_why(opened, tiny):
    client = client_of(opened)
    (name,) = client.post("/api/training/runs", json={"options": FAST}).json()["started"]
    with opened.write() as session:
        run = session.scalars(select(Run)).one()
        run.data = {**run.data, "sha256": "0" * 64}
    assert work(opened) == [JobState.FAILED]
    failed = client.get(f"/api/training/runs/{name}").json()
    assert failed["state"] == "failed" and "have changed" in failed["error"] and failed["can_resume"]


def test_it_is_for_admins_and_unknown_runs_are_said(opened):
    client = client_of(opened)
    for path, method in (("x", "GET"), ("x/resume", "POST"), ("x/cancel", "POST")):
        answer = client.request(method, f"/api/training/runs/{path}")
        assert answer.status_code == 404 and "no run called 'x'" in answer.json()["error"]
    judge = client_of(opened, Role.ADJUDICATOR)
    for method, path in (("GET", ""), ("GET", "/runs"), ("POST", "/plan"), ("POST", "/runs")):
        assert judge.request(method, f"/api/training{path}", json={}).status_code == 403
