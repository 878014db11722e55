"""The Evaluate page's routes and figures, on evaluations of a tiny CLIP: choices, tables, drawings, shortcuts."""

from __future__ import annotations

import csv
import io
import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from app.cli import app as command_line
from app.evaluation_routes import evaluation_router
from app.figure_routes import figure_router
from app.worker import JobProgress, run_job
from db import jobs
from db.models import Evaluation, Job, JobState, Role, Run, User
from db.workspace import open_workspace
from ospcoop.evaluation.scores_file import read_scores
from ospcoop.figures.stored import hardest_backgrounds, id_classes
from ospcoop.metrics import auroc
from tests.evaluation_material import evaluation_material, request, run_request
from tests.training_material import tiny_encoder


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """Zero-shot and the run "first" on MCM and GL-MCM, on the classic four and a build."""
    root = evaluation_material(tmp_path_factory.mktemp("material"))
    workspace = open_workspace(root)
    run_request(workspace, request(runs=("first",)))
    workspace.close()
    return root


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
    for make in (evaluation_router, figure_router):
        app.include_router(make(workspace, lambda: user.id))
    return TestClient(app)


def work(workspace) -> Job:
    """Runs what waits, as the worker does; the last job as it ended."""
    while True:
        with workspace.write() as session:
            job = jobs.claim(session, "w")
        if job is None:
            break
        run_job(workspace, job, "w", JobProgress(workspace, job.id, "w"))
        last = job.id
    with workspace.read() as session:
        return session.get_one(Job, last)


def result(client, **wanted) -> dict:
    rows = client.get("/api/evaluation/results").json()["rows"]
    (row,) = (row for row in rows if all(row[name] == value for name, value in wanted.items()))
    return row


def test_the_form_offers_finished_runs_detectors_and_sets(opened):
    with opened.write() as session:
        done = session.query(Run).one()
        session.add(Run(name="half", objective="coop", encoder="clip", seed=1, config={}, config_hash="x", data={}))
    offered = client_of(opened).get("/api/evaluation").json()
    assert [run["name"] for run in offered["runs"]] == [done.name]
    assert offered["default_detectors"] == ["mcm", "gl-mcm"] and offered["detectors"]["gl-mcm"] == "GL-MCM"
    sets = {one["name"]: one for one in offered["sets"]}
    assert sets["val"]["role"] == "id" and sets["val"]["images"] == 8
    assert sets["bg-v1"]["group"] == "bg" and sets["SUN"]["group"] == "classic" and sets["SUN"]["images"] == 3
    assert offered["job_id"] is None and offered["id_set"] == "val"


def test_the_table_has_intervals_best_and_an_average_without_bg(opened):
    told = client_of(opened).get("/api/evaluation/results").json()
    assert len(told["rows"]) == 2 * 2 * 5 and len(told["averages"]) == 2 * 2
    for row in told["rows"]:
        for interval in row["metrics"].values():
            assert 0 <= interval["low"] <= interval["high"] <= 1
        assert (row["paired"] is not None) == (row["group"] == "bg")
    one = told["averages"][0]
    mine = [
        r for r in told["rows"] if (r["run"], r["detector"], r["group"]) == (one["run"], one["detector"], "classic")
    ]
    assert len(mine) == 4
    assert one["metrics"]["auroc"] == pytest.approx(np.mean([row["metrics"]["auroc"]["value"] for row in mine]))
    highest = max(row["metrics"]["auroc"]["value"] for row in told["rows"] if row["ood_set"] == "SUN")
    best = [r["metrics"]["auroc"]["value"] for r in told["rows"] if r["ood_set"] == "SUN" and "auroc" in r["best"]]
    assert best and set(best) == {highest}
    assert any("far too few" in sentence for sentence in told["sentences"])
    assert told["lower_is_better"] == ["fpr95_id_pos", "fpr95_ood_pos"]


def test_the_table_as_files(opened):
    client = client_of(opened)
    answer = client.get("/api/evaluation/results/table.csv")
    lines = list(csv.DictReader(io.StringIO(answer.text)))
    assert len(lines) == 20 and "results.csv" in answer.headers["content-disposition"]
    row = result(client, run="first", detector="MCM", ood_set="bg-v1")
    line = next(one for one in lines if (one["prompts"], one["detector"], one["ood_set"]) == ("first", "MCM", "bg-v1"))
    assert float(line["auroc"]) == pytest.approx(row["metrics"]["auroc"]["value"], abs=1e-6)
    assert r"\begin{tabular}" in client.get("/api/evaluation/results/table.tex").text
    assert "| --- |" in client.get("/api/evaluation/results/table.md").text
    assert client.get("/api/evaluation/results/table.exe").status_code == 422


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ({"detectors": []}, 422, "at least one detector"),
        ({"detectors": ["magic"]}, 422, "no detector called 'magic'"),
        ({"detectors": ["neglabel"]}, 422, "negative labels"),
        ({"runs": ["nobody"]}, 404, "no run called 'nobody'"),
        ({"ood_sets": ["val"]}, 404, "no OOD set called 'val'"),
        ({"id_set": "SUN"}, 404, "no ID set called 'SUN'"),
        ({"temperature": 0.0}, 422, "temperature"),
        ({"encoder": "x"}, 422, "no encoder called 'x'"),
        ({"surprise": 1}, 422, "surprise"),
    ],
)
def test_a_wrong_wish_is_refused_before_anything_is_queued(opened, body, status, words):
    client = client_of(opened)
    answer = client.post("/api/evaluation", json=body)
    assert answer.status_code == status and words in answer.json()["error"]
    assert client.get("/api/evaluation").json()["job_id"] is None


def test_an_evaluation_goes_through_the_queue(opened, tiny):
    client = client_of(opened)
    body = {"runs": ["first"], "ood_sets": ["SUN"], "detectors": ["mcm"], "temperature": 2.0, "resamples": 20}
    started = client.post("/api/evaluation", json=body)
    assert started.status_code == 202
    again = client.post("/api/evaluation", json=body)
    assert again.status_code == 409 and "is evaluating already" in again.json()["error"]
    assert client.get("/api/evaluation").json()["job_id"] == started.json()["job_id"]
    done = work(opened)
    assert done.state is JobState.DONE and done.result["computed"] == 2
    warm = [row for row in client.get("/api/evaluation/results").json()["rows"] if row["detector"] == "MCM T=2"]
    assert {row["run"] for row in warm} == {"zero-shot", "first"}


def test_figures_are_of_the_stored_scores(opened):
    client = client_of(opened)
    row = result(client, run="first", detector="GL-MCM", ood_set="bg-v1")
    with opened.read() as session:
        columns = read_scores(opened, session.get_one(Evaluation, row["evaluation"]).scores)
    inside = columns["role"] == "id"
    told = client.get(f"/api/figures/evaluations/{row['evaluation']}").json()
    assert told["title"] == "GL-MCM, first" and (told["id_set"], told["ood_set"]) == ("val", "bg-v1")
    expected = auroc(columns["score"][inside], columns["score"][~inside])
    assert told["auroc"] == pytest.approx(expected) == row["metrics"]["auroc"]["value"]
    assert sum(told["histogram"]["id"]) == pytest.approx(1) and sum(told["histogram"]["ood"]) == pytest.approx(1)
    assert told["histogram"]["edges"][0] == pytest.approx(columns["score"].min())
    assert (told["roc"][0], told["roc"][-1]) == ([0, 0], [1, 1])
    bins = told["reliability"]
    assert sum(one["count"] for one in bins) == 8
    accuracy = sum(one["count"] * one["accuracy"] for one in bins) / 8
    assert accuracy == pytest.approx(row["metrics"]["id_accuracy"]["value"])
    assert sum(told["photos"]["id"]) == pytest.approx(1)
    classic = result(client, run="first", detector="GL-MCM", ood_set="SUN")
    assert client.get(f"/api/figures/evaluations/{classic['evaluation']}").json()["photos"] is None


def test_classes_and_the_backgrounds_that_look_most_id(opened):
    client = client_of(opened)
    row = result(client, run="zero-shot", detector="MCM", ood_set="bg-v1")
    base = f"/api/figures/evaluations/{row['evaluation']}"
    classes = client.get(f"{base}/classes").json()
    assert [one["wnid"] for one in classes] == ["n01440764", "n01443537", "n01484850", "n01491361"]
    assert sum(one["id_images"] for one in classes) == 8 and classes[0]["name"] == "tench"
    hardest = client.get(f"{base}/hardest", params={"limit": 3}).json()
    scores = [one["score"] for one in hardest]
    assert len(scores) == 3 and scores == sorted(scores)
    found = hardest_backgrounds(opened, row["evaluation"], 100)
    assert len(found) == row["ood_images"] and found[0].candidate_id == hardest[0]["candidate_id"]
    classic = result(client, run="zero-shot", detector="MCM", ood_set="SUN")["evaluation"]
    assert client.get(f"/api/figures/evaluations/{classic}/hardest").json() == [], "no candidates among these"
    assert id_classes(opened, classic) == [0, 1, 2, 3]


def test_what_is_gone_is_said(opened):
    client = client_of(opened)
    assert "no evaluation 99" in client.get("/api/figures/evaluations/99").json()["error"]
    row = result(client, run="first", detector="MCM", ood_set="SUN")
    with opened.read() as session:
        opened.path(session.get_one(Evaluation, row["evaluation"]).scores).unlink()
    for part in ("", "/classes", "/hardest"):
        answer = client.get(f"/api/figures/evaluations/{row['evaluation']}{part}")
        assert answer.status_code == 409 and "evaluate it again" in answer.json()["error"]


def test_a_shortcut_map_is_made_by_the_worker(opened, tiny):
    client = client_of(opened)
    row = result(client, run="first", detector="MCM", ood_set="bg-v1")
    candidate = client.get(f"/api/figures/evaluations/{row['evaluation']}/hardest").json()[0]["candidate_id"]
    wish = {"candidate": candidate, "runs": ["first"], "shown": "source", "top": 3, "evaluation": row["evaluation"]}
    queued = client.post("/api/figures/shortcuts", json=wish).json()
    assert queued["state"] == "queued" and queued["map"] is None
    drawing = f"/api/figures/shortcuts/{queued['job_id']}/figure.svg"
    assert client.get(drawing).status_code == 409
    assert work(opened).state is JobState.DONE
    made = client.get(f"/api/figures/shortcuts/{queued['job_id']}").json()["map"]
    assert [panel["name"] for panel in made["panels"]] == ["zero-shot", "first"]
    assert made["class_name"] == made["source_class"] and made["classes"] == 4 and made["candidate"] == candidate
    for panel in made["panels"]:
        evidence = np.array(panel["evidence"])
        assert evidence.shape == tiny_encoder().local_grid and evidence.min() > 0 and evidence.max() <= made["highest"]
        assert panel["top"] == np.argsort(-evidence.ravel(), kind="stable")[:3].tolist()
    assert made["panels"][0]["evidence"] != made["panels"][1]["evidence"]
    root = ElementTree.fromstring(client.get(drawing).text)
    assert len(list(root.iter("{http://www.w3.org/2000/svg}image"))) == 3


def test_a_map_that_cannot_be_made_is_refused(opened, tiny):
    client = client_of(opened)
    assert client.post("/api/figures/shortcuts", json={"candidate": 999}).status_code == 404
    unknown = client.post("/api/figures/shortcuts", json={"candidate": 1, "runs": ["nobody"]})
    assert unknown.status_code == 404 and "no run called" in unknown.json()["error"]
    with opened.write() as session:
        config = {"encoder": {"name": "clip_b32", "weights": None}, "options": {}}
        session.add(Run(name="other", objective="coop", encoder="clip_b32", seed=1, config=config, config_hash="y"))
    mixed = client.post("/api/figures/shortcuts", json={"candidate": 1, "runs": ["first", "other"]})
    assert mixed.status_code == 422 and "different encoders" in mixed.json()["error"]
    queued = client.post("/api/figures/shortcuts", json={"candidate": 1, "runs": ["first"], "shown": "n02102040"})
    assert work(opened).state is JobState.FAILED
    answer = client.get(f"/api/figures/shortcuts/{queued.json()['job_id']}").json()
    assert "not among the 4" in answer["error"] and answer["map"] is None
    assert client.get("/api/figures/shortcuts/999").status_code == 404


def test_everything_is_for_admins(opened):
    judge = client_of(opened, Role.ADJUDICATOR)
    for path in ("/api/evaluation", "/api/evaluation/results", "/api/evaluation/results/table.csv"):
        assert judge.get(path).status_code == 403
    for path in ("evaluations/1", "evaluations/1/classes", "evaluations/1/hardest", "shortcuts/1"):
        assert judge.get(f"/api/figures/{path}").status_code == 403
    for path in ("/api/evaluation", "/api/figures/shortcuts"):
        assert judge.post(path, json={"candidate": 1}).status_code == 403


def test_the_same_headless(opened, tiny, tmp_path):
    def run(*arguments: str) -> list[str]:
        done = CliRunner().invoke(
            command_line, ["figures", *arguments, "-w", str(opened.root), "--out", str(tmp_path / "out")]
        )
        assert done.exit_code == 0, done.output
        made = sorted(path.name for path in (tmp_path / "out").iterdir())
        for path in (tmp_path / "out").iterdir():
            ElementTree.fromstring(path.read_text())
            path.unlink()
        return made

    assert run("curves", "first") == [f"first-{name}.svg" for name in ("accuracy", "learning-rate", "losses")]
    names = ("histogram", "photos", "reliability", "roc")
    chosen = ("--run", "first", "--detector", "GL-MCM", "--set", "bg-v1")
    assert run("scores", *chosen) == [f"val-bg-v1-GL-MCM-first-{name}.svg" for name in names]
    assert len(run("scores", "--set", "SUN")) == 4 * 3, "two prompts, two detectors, and no pairs"
    nothing = CliRunner().invoke(command_line, ["figures", "scores", "-w", str(opened.root), "--run", "nobody"])
    assert nothing.exit_code == 2 and "no such result" in nothing.output
    assert run("shortcuts", "1", "--run", "first", "--class", "source") == ["candidate-1-shortcuts.svg"]
