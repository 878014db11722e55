"""Checkpoints: whole or not there, resumed to the same bits after any kill, and the published ones read safely."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from sqlalchemy import select
from torch import nn
from typer.testing import CliRunner

from app.cli import app
from app.terminal import run_in_terminal
from app.worker import work
from db.models import Job, Run
from db.progress import NoProgress
from db.workspace import open_workspace
from generation.sources import open_source
from ospcoop import runs
from ospcoop.checkpoints import (
    CheckpointError,
    epochs_in,
    newest_checkpoint,
    read_checkpoint,
    read_facts,
    read_published,
    write_checkpoint,
)
from ospcoop.options import TrainingOptions
from ospcoop.prompt_learner import PromptLearner
from ospcoop.prompts import import_published, load_prompt
from ospcoop.runs import EncoderChoice, RunError
from ospcoop.text_tower import prompt_features
from ospcoop.training import train_run
from tests.tiny_models import tiny_clip
from tests.training_material import chosen, make_material, plan, read_set, tiny_encoder

OPTIONS = TrainingOptions(epochs=4, batch_size=12, n_ctx=4, lr=0.02)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def workspace(material, tmp_path):
    shutil.copytree(material, tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def some(seed=0):
    return {"context": torch.randn(4, 8, generator=torch.Generator().manual_seed(seed))}


def test_what_was_written_is_read(tmp_path):
    write_checkpoint(tmp_path, 7, some(), {"run": "mine"})
    found = read_checkpoint(tmp_path, 7)
    assert found.epoch == 7 and found.facts["run"] == "mine"
    assert torch.equal(found.tensors["context"], some()["context"])
    assert epochs_in(tmp_path) == [7] and newest_checkpoint(tmp_path / "nowhere") is None


@pytest.mark.parametrize("damage", ["cut", "other bytes", "no tensors", "bad json", "newer"])
def test_a_damaged_checkpoint_is_named_and_passed_over(tmp_path, damage):
    for epoch in (0, 1):
        path = write_checkpoint(tmp_path, epoch, some(epoch), {})
    if damage == "cut":
        os.truncate(path, path.stat().st_size - 4)
    elif damage == "other bytes":
        path.write_bytes((tmp_path / "epoch-0000.safetensors").read_bytes())
    elif damage == "no tensors":
        path.unlink()
    elif damage == "bad json":
        path.with_suffix(".json").write_text("{")
    else:
        path.with_suffix(".json").write_text(json.dumps({"format": 99}))
    with pytest.raises(CheckpointError, match="epoch-0001"):
        read_checkpoint(tmp_path, 1)
    assert newest_checkpoint(tmp_path).epoch == 0


class Killed(BaseException):
    """As final to the training as a SIGKILL: nothing catches it."""


class KillAt(NoProgress):
    """Kills at the first update whose message starts so, after ``skip`` others like it."""

    def __init__(self, start: str, skip: int = 0) -> None:
        self.start, self.skip = start, skip

    def update(self, done, total, message=""):
        if message.startswith(self.start):
            self.skip -= 1
            if self.skip < 0:
                raise Killed


def train(workspace, options, progress=None, **kinds):
    return train_run(
        workspace, plan(workspace, options, **kinds).run.id, tiny_encoder(), open_source, progress or NoProgress()
    )


@pytest.mark.parametrize("id_augs", [False, True], ids=["cached", "crops"])
def test_killed_at_any_epoch_it_ends_at_the_same_context(workspace, material, tmp_path, id_augs):
    undisturbed = train(workspace, OPTIONS, id_augs=id_augs)
    shutil.copytree(material, tmp_path / "other")
    other = open_workspace(tmp_path / "other")
    for kill in (KillAt("Computing"), *(KillAt(f"epoch {epoch}/4", skip=epoch % 2) for epoch in (1, 2, 3, 4))):
        with pytest.raises(Killed):
            train(other, OPTIONS, kill, id_augs=id_augs)
        with other.read() as session:
            assert runs.list_runs(session)[0].state == "running"
    resumed = train(other, OPTIONS, id_augs=id_augs)
    assert resumed.context_sha256 == undisturbed.context_sha256
    assert resumed.metrics["loss"] == undisturbed.metrics["loss"]
    with other.read() as session:
        (run,) = runs.list_runs(session)
        assert [one.epoch for one in runs.epochs_of(session, run.id)] == [0, 1, 2, 3]
    for epoch in range(4):
        both = (read_facts(opened.path(run.folder), epoch)["context_sha256"] for opened in (workspace, other))
        assert len(set(both)) == 1
    other.close()


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_low_precision_resumes_to_the_same_bits_too(workspace, material, tmp_path, precision):
    options = replace(OPTIONS, precision=precision, epochs=3)
    undisturbed = train(workspace, options)
    shutil.copytree(material, tmp_path / "other")
    other = open_workspace(tmp_path / "other")
    with pytest.raises(Killed):
        train(other, options, KillAt("epoch 2/3", skip=1))
    assert train(other, options).context_sha256 == undisturbed.context_sha256
    other.close()


def test_a_damaged_last_checkpoint_costs_its_epoch_alone(workspace):
    undisturbed = train(workspace, OPTIONS)
    with workspace.write() as session:
        run = session.get(Run, 1)
        run.state = "running"
    folder = workspace.path(run.folder)
    for epoch in (2, 3):
        os.truncate(folder / f"epoch-{epoch:04d}.safetensors", 10)
    assert train(workspace, OPTIONS).context_sha256 == undisturbed.context_sha256
    assert read_checkpoint(folder, 2).epoch == 2


def test_an_epoch_lost_between_checkpoint_and_database_is_recorded_on_resume(workspace):
    train(workspace, OPTIONS)
    with workspace.write() as session:
        run = session.get(Run, 1)
        run.state, run.epochs_done = "running", 3
        session.delete(runs.epochs_of(session, 1)[-1])
    train(workspace, OPTIONS)
    with workspace.read() as session:
        assert len(runs.epochs_of(session, 1)) == session.get(Run, 1).epochs_done == 4


def test_another_runs_checkpoints_are_refused(workspace):
    planned = plan(workspace, OPTIONS)
    facts = {"config_hash": "another", "code_sha256": ""}
    write_checkpoint(workspace.path(planned.run.folder), 0, some(), facts)
    with pytest.raises(RunError, match="another run's checkpoints"):
        train(workspace, OPTIONS)


def train_in_terminal(root, run_id):
    run_in_terminal(open_workspace(root), "train", {"run": run_id, "device": "cpu"}, "Train")


@pytest.fixture
def own_signals():
    """The worker's handlers are taken down again."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_a_killed_process_hands_its_run_on(workspace, material, tmp_path, own_signals):
    """SIGKILL of the process that trains; a worker takes the job up and ends at the undisturbed context."""
    weights = EncoderChoice("clip", str(tiny_clip(tmp_path / "clip.pt")))
    options = replace(OPTIONS, epochs=12)
    planned = runs.plan_run(workspace, read_set(workspace, options), chosen(workspace), weights, options)
    folder = workspace.path(planned.run.folder)
    # A fork has every library loaded already, which is most of what a new process would spend its time on.
    child = multiprocessing.get_context("fork").Process(target=train_in_terminal, args=(workspace.root, planned.run.id))
    child.start()
    while child.is_alive() and len(epochs_in(folder)) < 3:
        time.sleep(0.002)
    child.kill()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert 3 <= len(epochs_in(folder)) < 12
    assert work(workspace, until_idle=True) == 1
    with workspace.read() as session:
        assert runs.find_run(session, planned.run.name).state == "done"
        assert session.scalar(select(Job.attempts)) == 2

    shutil.copytree(material, tmp_path / "other")
    other = open_workspace(tmp_path / "other")
    assert read_facts(folder, 11)["context_sha256"] == train(other, options).context_sha256
    other.close()


def test_the_prompt_of_a_run_gives_its_text_features(workspace):
    result = train(workspace, OPTIONS)
    with workspace.read() as session:
        run = runs.find_run(session, result.run)
    prompt = load_prompt(workspace, run)
    assert prompt.epoch == 3 and prompt.classes.indices == (0, 1, 2, 3)
    learner = PromptLearner(tiny_encoder(), prompt.classes.names, n_ctx=4)
    with torch.no_grad():
        learner.context.copy_(prompt.context)
        expected = prompt_features(tiny_encoder(), learner)
    assert torch.equal(prompt.text_features(tiny_encoder()), expected)
    earlier = load_prompt(workspace, run, 0)
    assert not torch.equal(earlier.context, prompt.context)
    with pytest.raises(CheckpointError, match="epoch-0009"):
        load_prompt(workspace, run, 9)
    with pytest.raises(ValueError, match="tokens of 5"):
        replace(prompt, context=prompt.context[:, :5]).text_features(tiny_encoder())


class Evil:
    def __reduce__(self):
        return os.mkdir, ("EVIL",)


def published(path, *, classes=1000, width=64, extra=None, **options):
    """A file as the published trainer writes it, with all that it drags along."""
    context = nn.Parameter(torch.randn(4, width, generator=torch.Generator().manual_seed(3)).half())
    optimizer = torch.optim.SGD([context], lr=0.002, momentum=0.9)
    context.grad = torch.ones_like(context)
    optimizer.step()
    after_warmup = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50)
    state = {
        "ctx": context.detach(),
        "token_prefix": torch.zeros(classes, 1, width).half(),
        "token_suffix": torch.zeros(classes, 72, width).half(),
    }
    content = {
        "state_dict": state,
        "epoch": 50,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": after_warmup, "last_epoch": 50},
        "val_result": np.mean([0.9, 0.95]),
    }
    torch.save({**content, **(extra or {})}, path, **options)
    return path, context.detach().float()


@pytest.mark.parametrize("options", [{}, {"_use_new_zipfile_serialization": False}], ids=["zip", "legacy"])
def test_a_published_checkpoint_is_read_without_being_run(tmp_path, options):
    path, context = published(tmp_path / "model-best.pth.tar", classes=7, **options)
    found = read_published(path)
    assert torch.equal(found.context, context) and found.context.dtype == torch.float32
    assert (found.epochs, found.classes, found.is_best) == (50, 7, True)
    assert found.val_result == pytest.approx(0.925)


def test_a_file_that_asks_for_more_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path, _ = published(tmp_path / "evil.pth.tar", extra={"hook": Evil()})
    with pytest.raises(CheckpointError, match=r"evil\.pth\.tar is refused: it asks for posix\.mkdir"):
        read_published(path)
    assert not (tmp_path / "EVIL").exists()


@pytest.mark.parametrize("content", [b"", b"no checkpoint", {"state_dict": {}}, {"ctx": torch.zeros(4, 8)}, [1]])
def test_what_is_no_prompt_is_named(tmp_path, content):
    path = tmp_path / "model.pth.tar-50"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(CheckpointError, match=r"model\.pth\.tar-50"):
        read_published(path)


def test_an_imported_prompt_is_a_finished_run(workspace, tmp_path):
    path, context = published(tmp_path / "model-best.pth.tar")
    run = import_published(workspace, path, "clip")
    assert run.state == "done" and run.chosen_epoch == 49
    assert run.config["options"]["selection"] == "test" and run.config["imported"]["val_result"] == pytest.approx(0.925)
    prompt = load_prompt(workspace, run)
    assert torch.equal(prompt.context, context) and len(prompt.classes) == 1000
    assert prompt.text_features(tiny_encoder()).shape == (1000, 32)
    with pytest.raises(RunError, match="another --name"):
        import_published(workspace, path, "clip")
    last, _ = published(tmp_path / "model.pth.tar-50")
    assert import_published(workspace, last, "clip", name="last").config["options"]["selection"] == "last"
    few, _ = published(tmp_path / "few.pth.tar", classes=100)
    with pytest.raises(CheckpointError, match="100 classes; the class list has 1000"):
        import_published(workspace, few, "clip", name="few")


def test_the_command_imports_and_says_how_the_epoch_was_chosen(workspace, tmp_path):
    path, _ = published(tmp_path / "model-best.pth.tar")
    arguments = ["runs", "import", str(path), "--name", "theirs", "--workspace", str(workspace.root)]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "Run theirs is done: 50 epochs. Epoch 50 is chosen, by the OOD test sets, as published." in done.output
    shown = CliRunner().invoke(app, ["runs", "show", "theirs", "--workspace", str(workspace.root)])
    assert "1000 classes" in shown.output
