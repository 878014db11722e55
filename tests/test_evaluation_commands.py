"""demo-train, train, evaluate and sets as a user types them: the demo from its candidates to the table."""

from __future__ import annotations

import csv
import io
import re
import shutil
import uuid
from pathlib import Path

import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli import app
from app.commands.demo_training import part_photos
from db.models import Candidate, FewShotItem, SourceImage, Split
from db.queries import ensure_user
from db.workspace import open_workspace
from ospcoop import runs
from ospcoop.evaluation.tables import results
from review.decisions import record
from review.events import DecisionEvent
from tests.evaluation_material import write_image

TRAIN = ("train", "--epochs", "4", "--lr", "0.01")


def call(workspace: Path, *arguments: str, expect: int = 0) -> tuple[str, str]:
    """What the command prints, and its error. In this process, so that models load once."""
    command, *rest = arguments
    group = [command, rest.pop(0)] if command == "sets" else [command]
    done = CliRunner().invoke(app, [*group, "--workspace", str(workspace), *rest], env={"COLUMNS": "200"})
    assert done.exit_code == expect, f"{done.output}{done.exception or ''}"
    return done.stdout, f"{done.stderr}{done.exception or ''}"


@pytest.fixture(scope="module")
def parted(demo_workspace, tmp_path_factory) -> Path:
    """The training workspace of a demo in which one background was accepted and one rejected."""
    demo = tmp_path_factory.mktemp("parted") / "demo"
    shutil.copytree(demo_workspace, demo)
    workspace = open_workspace(demo)
    with workspace.write() as session:
        user = ensure_user(session).id
        made = list(session.scalars(select(Candidate).order_by(Candidate.id)))
    verdicts = {made[6]: ("accept", ()), made[7]: ("reject", ("object_left",))}
    record(workspace, [_event(one, *verdict) for one, verdict in verdicts.items()], user)
    workspace.close()
    said, _ = call(demo, "demo-train")
    assert "ten train photos, ten val photos, 2 verdicts" in said
    assert f"launch.py train --workspace {demo}-training" in said
    return Path(f"{demo}-training")


def _event(one: Candidate, verdict: str, reasons: tuple[str, ...]) -> DecisionEvent:
    return DecisionEvent(str(uuid.uuid4()), verdict, one.id, one.result_sha256, reasons)


def test_the_photos_are_parted_and_the_candidates_are_the_demos(parted, demo_workspace):
    def of(root: Path) -> dict[str, SourceImage]:
        workspace = open_workspace(root)
        with workspace.read() as session:
            sources = {one.id: one for one in session.scalars(select(SourceImage))}
            pairs = session.execute(
                select(Candidate.source_id, Candidate.result_sha256).where(Candidate.kind == "background")
            )
            made = {sources[source].sha256: result for source, result in pairs}
            few = set(session.scalars(select(FewShotItem.source_id)))
        workspace.close()
        return sources, made, few

    (sources, made, few), (_, original, _) = of(parted), of(demo_workspace)
    splits = {one.split: {s.sha256 for s in sources.values() if s.split == one.split} for one in sources.values()}
    assert len(splits[Split.TRAIN]) == len(splits[Split.VAL]) == 10 and not splits[Split.TRAIN] & splits[Split.VAL]
    assert made == original
    assert {sources[one].split for one in few} == {Split.TRAIN} and len(few) == 10
    jeeps = [one for one in sources.values() if one.class_index == 609]
    assert {one.split for one in jeeps} == {Split.TRAIN, Split.VAL}


def test_the_demo_to_its_end(parted):
    call(parted, *TRAIN)
    workspace = open_workspace(parted)
    with workspace.read() as session:
        (run,) = runs.list_runs(session)
        losses = [one.metrics["loss"] for one in runs.epochs_of(session, run.id)]
    assert losses[-1] < losses[0]
    table, _ = call(parted, "evaluate", "--all-runs", "--resamples", "100")
    lines = [line for line in table.splitlines() if re.match(r"bg(_s)?-v1 \(", line)]
    assert len(lines) == 8
    for name in ("zero-shot", run.name):
        assert {line.split()[2] for line in lines if name in line} == {"MCM", "GL-MCM"}
    assert "bg-v1 (9)" in table, "the rejected one is not in it"
    assert "Demo encoder, not CLIP" in table and "twenty photos" in table
    again, _ = call(parted, "evaluate", "--all-runs", "--resamples", "100")
    assert "0 evaluations computed, 8 were there already" in again
    printed, shown = call(parted, "evaluate", "--all-runs", "--resamples", "100", "--format", "csv")
    rows = list(csv.DictReader(io.StringIO(printed)))
    assert len(rows) == 8 and "Evaluate" in shown
    with workspace.read() as session:
        assert [f"{row.metrics['auroc'].value:.6f}" for row in results(session)] == [one["auroc"] for one in rows]
    call(parted, "evaluate", "--all-runs", "--resamples", "100", "--format", "latex", "--out", str(parted / "t.tex"))
    assert (parted / "t.tex").read_text().startswith("% embedded_dual, ID set val (10 images")
    workspace.close()


def test_as_published_without_a_photo_of_the_runs_classes_is_refused(parted, tmp_path):
    """The demo's val photos are of other classes but for one: bg images are scored all the same, so it can choose."""
    shutil.copytree(parted, tmp_path / "w")
    said, _ = call(tmp_path / "w", *TRAIN, "--as-published", "--name", "published")
    assert "by the OOD test sets, as published" in said
    table, _ = call(tmp_path / "w", "evaluate", "--run", "published", "--detector", "gl-mcm", "--resamples", "20")
    assert "as published: chosen on the test sets" in table
    assert "Chosen on the test sets, as published, and so too good: published." in table


def test_sets_are_added_listed_and_removed(parted, tmp_path):
    shutil.copytree(parted, tmp_path / "w")
    for number in range(3):
        write_image(tmp_path / "images" / f"{number}.png", number)
    (tmp_path / "images/torn.png").write_bytes(b"no image")
    said, _ = call(tmp_path / "w", "sets", "add", "SUN", str(tmp_path / "images"))
    assert re.search(r"SUN, classic OOD set: 3 images, 1 left out, sha256 [0-9a-f]{64}", said)
    assert "torn.png:" in said
    said, _ = call(tmp_path / "w", "sets", "list")
    assert [line.split()[0] for line in said.splitlines()[1:]] == ["val", "SUN", "bg-v1", "bg_s-v1"]
    said, _ = call(tmp_path / "w", "evaluate", "--ood-set", "SUN", "--detector", "mcm", "--resamples", "20")
    assert "SUN (3)" in said and "bg-v1" not in said
    call(tmp_path / "w", "sets", "remove", "SUN")
    assert "SUN" not in call(tmp_path / "w", "sets", "list")[0]
    _, error = call(tmp_path / "w", "evaluate", "--ood-set", "SUN", expect=1)
    assert "There is no evaluation set called 'SUN'" in error


def test_wrong_options_are_refused_before_a_job_begins(parted):
    for arguments, said in (
        (("--format", "word"), "Choose one of table"),
        (("--detector", "csp"), "CSP needs negative labels"),
        (("--encoder", "clap"), "no encoder called 'clap'"),
    ):
        done = CliRunner().invoke(app, ["evaluate", "--workspace", str(parted), *arguments])
        assert done.exit_code and said in f"{done.output}{done.exception}"


def test_the_demos_photos_are_parted_the_same_way_each_time(tmp_path):
    first, again = part_photos(tmp_path / "a"), part_photos(tmp_path / "b")
    for split in first:
        names = [
            sorted(path.relative_to(roots[split]) for path in roots[split].rglob("*.jpg")) for roots in (first, again)
        ]
        assert names[0] == names[1] and len(names[0]) == 10
