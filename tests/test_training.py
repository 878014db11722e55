"""Objectives, the loop and whole runs on a tiny CLIP: numbers that can be worked out, and losses that fall."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from typer.testing import CliRunner

from app.cli import app
from app.encoders import UnknownEncoder
from app.terminal import JobFailed
from db.models import Candidate
from db.progress import Cancelled, NoProgress
from db.workspace import open_workspace
from generation.sources import open_source
from ospcoop import runs
from ospcoop.checkpoints import epochs_in, read_facts
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.data import NoTrainingData
from ospcoop.losses import ospcoop_loss
from ospcoop.objectives import OBJECTIVES, Batch, locoop_loss
from ospcoop.options import OptionError, TrainingOptions
from ospcoop.prompt_learner import cosine_logits
from ospcoop.runs import RunError, UnknownRun
from ospcoop.trainer import PromptTrainer, TrainingDiverged
from ospcoop.training import choose_epoch, train_run
from ospcoop.validation import HeldOut
from tests.tiny_models import build_tiny_clip, tiny_clip
from tests.training_material import Silent, embedded_encoder, make_material, plan, read_set, tiny_encoder

SCALE = 20.0
FAST = TrainingOptions(epochs=3, batch_size=12, n_ctx=4, lr=0.02)


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def workspace(material, tmp_path):
    shutil.copytree(material, tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def random_batch(classes=6, patches=16, size=5, dim=32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    label = torch.tensor([0, 3, classes, 2, classes][:size])
    selected = torch.rand(size, patches, generator=generator) < 0.5
    selected[label == classes] = True
    local = torch.randn(size, patches, dim, generator=generator)
    text = torch.randn(classes, dim, generator=generator).requires_grad_()
    return Batch(torch.randn(size, dim, generator=generator), label, local, selected), text


def test_ospcoop_computes_only_the_logits_it_needs_and_loses_nothing():
    batch, text = random_batch()
    parts = OBJECTIVES["ospcoop"].make_loss(TrainingOptions(loss1=1.1, loss2=0.3), 6)(batch, text, SCALE)
    logits, local = (cosine_logits(part, text, SCALE) for part in (batch.whole, batch.local))
    expected = ospcoop_loss(logits, local, batch.label, batch.selected, loss1=1.1, loss2=0.3)
    assert parts.as_numbers() == pytest.approx(expected.as_numbers(), abs=1e-6)
    (got,), (wanted,) = (torch.autograd.grad(one.total, text) for one in (parts, expected))
    assert torch.allclose(got, wanted, atol=1e-6)


def test_coop_is_the_cross_entropy_alone():
    batch, text = random_batch()
    photos = Batch(batch.whole[:2], batch.label[:2])
    parts = OBJECTIVES["coop"].make_loss(TrainingOptions(), 6)(photos, text, SCALE)
    wanted = F.cross_entropy(cosine_logits(photos.whole, text, SCALE), photos.label)
    assert parts.total.item() == pytest.approx(wanted.item())
    assert set(parts.as_numbers()) == {"loss", "loss_id", "accuracy"}


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_locoop_raises_the_entropy_where_the_class_is_not_among_the_first(rank):
    generator = torch.Generator().manual_seed(1)
    logits, local = torch.randn(4, 6, generator=generator), torch.randn(4, 9, 6, generator=generator)
    label = torch.tensor([0, 5, 2, 2])
    background = []
    for image, patches in zip(label.tolist(), local, strict=True):
        for patch in patches:
            if image not in patch.topk(rank).indices.tolist():
                probability = patch.softmax(0)
                background.append((probability * torch.log(probability + 1e-5)).sum().item())
    parts = locoop_loss(logits, local, label, weight=0.25, rank=rank)
    assert background
    assert parts.loss_en.item() == pytest.approx(sum(background) / len(background), abs=1e-6)
    expected = F.cross_entropy(logits, label).item() + 0.25 * sum(background) / len(background)
    assert parts.total.item() == pytest.approx(expected, abs=1e-6)


def test_locoop_without_background_patches_is_coop():
    logits, local = torch.randn(2, 6), torch.randn(2, 4, 6)
    parts = locoop_loss(logits, local, torch.tensor([1, 2]), rank=6)
    assert parts.loss_en.item() == 0 and parts.total.item() == parts.loss_id.item()


def test_locoops_rank_is_a_fifth_of_the_classes():
    batch, _ = random_batch(classes=10)
    text = torch.randn(10, 32)
    photos = Batch(batch.whole[:2], batch.label[:2], batch.local[:2])
    make = OBJECTIVES["locoop"].make_loss
    found, two, five = (
        make(TrainingOptions(objective="locoop", locoop_rank=rank), 10)(photos, text, SCALE).total.item()
        for rank in (None, 2, 5)
    )
    assert found == two != five


def tiny_trainer(**options):
    return PromptTrainer(tiny_encoder(), ["tench", "goldfish", "great white shark"], replace(FAST, **options))


def steps(trainer, count, seed=0):
    for number in range(count):
        batch, _ = random_batch(classes=3, size=3, seed=seed + number)
        trainer.step(batch, 0.01)
    return trainer.context.detach().clone()


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
def test_a_state_taken_and_given_back_goes_on_to_the_same_bits(precision):
    through = tiny_trainer(precision=precision)
    steps(through, 3)
    state = through.state()
    assert state["context"].dtype == torch.float32
    assert ("loss_scale" in state) == (precision == "float16")
    final = steps(through, 3, seed=10)
    resumed = tiny_trainer(precision=precision, seed=8)
    resumed.load_state(state)
    assert torch.equal(steps(resumed, 3, seed=10), final)
    assert torch.equal(resumed.generator.get_state(), through.generator.get_state())


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_a_low_precision_tower_moves_the_context_nearly_as_float32_does(precision):
    start = tiny_trainer().context.detach().clone()
    exact, rounded = (steps(tiny_trainer(precision=p), 3) for p in ("float32", precision))
    moved = (exact - start).norm()
    assert 0 < (rounded - exact).norm() < 0.1 * moved


def test_a_context_of_another_shape_is_refused():
    with pytest.raises(ValueError, match="context is"):
        tiny_trainer().load_state(tiny_trainer(n_ctx=5).state())


def test_a_loss_that_is_no_number_stops_the_training_unharmed():
    trainer = tiny_trainer()
    before = trainer.context.detach().clone()
    batch, _ = random_batch(classes=3, size=3)
    with pytest.raises(TrainingDiverged, match="smaller"):
        trainer.step(replace(batch, whole=torch.full_like(batch.whole, float("nan"))), 0.01)
    assert torch.equal(trainer.context, before)


def train(workspace, options, *, encoder=None, progress=None, epoch_metrics=None, **kinds):
    planned = plan(workspace, options, **kinds)
    return train_run(
        workspace,
        planned.run.id,
        encoder or tiny_encoder(),
        open_source,
        progress or NoProgress(),
        epoch_metrics=epoch_metrics,
    )


def run_of(workspace, name):
    with workspace.read() as session:
        run = runs.find_run(session, name)
        return run, runs.epochs_of(session, run.id)


@pytest.mark.parametrize("objective", ["ospcoop", "coop", "locoop"])
def test_every_objective_trains_and_its_loss_falls(workspace, objective):
    progress = Silent()
    result = train(workspace, replace(FAST, objective=objective, epochs=6), progress=progress)
    run, epochs = run_of(workspace, result.run)
    assert run.state == "done" and run.epochs_done == 6 and run.chosen_epoch == result.chosen_epoch == 5
    assert [one.epoch for one in epochs] == list(range(6))
    assert epochs[0].lr == 1e-5 and epochs[1].lr == 0.02
    losses = [one.metrics["loss"] for one in epochs]
    assert losses[-1] < losses[0] - 0.01
    named = {"ospcoop": {"loss_id", "loss_ood", "loss_en"}, "coop": {"loss_id"}, "locoop": {"loss_id", "loss_en"}}
    assert named[objective] <= set(epochs[-1].metrics) and epochs[-1].metrics["images_per_s"] > 0
    assert sum(line.startswith("epoch ") for line in progress.lines) == 6


def test_with_id_augmentations_the_crops_run_through_the_tower(workspace):
    result = train(workspace, FAST, id_augs=True)
    run, _ = run_of(workspace, result.run)
    assert run.data["crops"] and run.data["kinds"]["id_aug"] > 0


def test_the_seed_decides_and_two_trainings_of_one_seed_are_equal(workspace, material, tmp_path):
    first = train(workspace, FAST).context_sha256
    assert train(workspace, replace(FAST, seed=2)).context_sha256 != first
    shutil.copytree(material, tmp_path / "again")
    other = open_workspace(tmp_path / "again")
    assert train(other, FAST).context_sha256 == first
    other.close()


def test_the_text_memory_changes_how_but_not_what(workspace):
    plenty = train(workspace, FAST)
    scarce = train(workspace, replace(FAST, text_memory=1))
    assert scarce.metrics["loss"] == pytest.approx(plenty.metrics["loss"], abs=1e-5)


def test_held_out_photos_choose_the_epoch(workspace):
    result = train(workspace, replace(FAST, selection="held_out", held_out_share=0.25, epochs=4))
    run, epochs = run_of(workspace, result.run)
    scores = [one.metrics[HeldOut.best] for one in epochs]
    assert all(0 <= score <= 1 for score in scores)
    assert run.chosen_epoch == scores.index(max(scores))
    assert run.data["held_out"] == {"id": 4, "background": 4}


class Scripted:
    """Metrics known beforehand."""

    best = "score"

    def __init__(self, *scores: float) -> None:
        self.scores = list(scores)
        self.shapes: list[tuple] = []

    def __call__(self, text):
        self.shapes.append((tuple(text.shape), text.requires_grad))
        return {"score": self.scores[len(self.shapes) - 1], "other": 1.0}


def test_metrics_of_the_callers_choose_the_first_of_the_best_epochs(workspace):
    metrics = Scripted(0.5, 0.9, 0.9)
    result = train(workspace, FAST, epoch_metrics=metrics)
    run, epochs = run_of(workspace, result.run)
    assert result.chosen_epoch == run.chosen_epoch == 1
    assert [one.metrics["score"] for one in epochs] == [0.5, 0.9, 0.9]
    assert metrics.shapes == [((4, 32), False)] * 3
    assert choose_epoch(workspace.path(run.folder), range(3), None) == 2


def test_planning_again_goes_on_and_a_finished_run_is_not_trained_twice(workspace):
    first = plan(workspace, FAST)
    assert first.is_new and first.run.name == "ospcoop-clip-s1" and first.run.state == "queued"
    again = plan(workspace, FAST)
    assert not again.is_new and again.run.id == first.run.id
    other = plan(workspace, replace(FAST, epochs=2))
    assert other.is_new and other.run.name == "ospcoop-clip-s1-2"
    assert plan(workspace, FAST, name="mine").run.name == "mine"
    with pytest.raises(RunError, match="other options or data"):
        plan(workspace, replace(FAST, epochs=5), name="mine")
    with pytest.raises(RunError, match="lower-case"):
        plan(workspace, FAST, name="../mine")
    train(workspace, replace(FAST, epochs=1))
    with pytest.raises(RunError, match="exactly this training"):
        plan(workspace, replace(FAST, epochs=1))
    with pytest.raises(UnknownRun, match="mine"), workspace.read() as session:
        runs.find_run(session, "nobody")


def test_changed_data_or_weights_are_not_gone_on_with(workspace):
    planned = plan(workspace, FAST)
    with workspace.write() as session:
        session.get(Candidate, 1).drop = 0.0
    with pytest.raises(RunError, match="training data of run ospcoop-clip-s1 have changed"):
        train_run(workspace, planned.run.id, tiny_encoder(), open_source, NoProgress())
    run, _ = run_of(workspace, planned.run.name)
    assert run.state == "failed" and "changed" in run.error

    fresh = plan(workspace, FAST)
    runs.begin(workspace, fresh.run.id, {"weights_sha256": "another"})
    with pytest.raises(RunError, match="other weights"):
        train_run(workspace, fresh.run.id, tiny_encoder(), open_source, NoProgress())


def test_a_cancel_is_recorded_and_gone_on_from(workspace):
    class CancelInTheSecondEpoch(NoProgress):
        def update(self, done, total, message=""):
            if "epoch 2/3" in message:
                raise Cancelled

    with pytest.raises(Cancelled):
        train(workspace, FAST, progress=CancelInTheSecondEpoch())
    run, epochs = run_of(workspace, "ospcoop-clip-s1")
    assert run.state == "cancelled" and len(epochs) == 1 and epochs_in(workspace.path(run.folder)) == [0]
    assert not plan(workspace, FAST).is_new
    train(workspace, FAST)
    assert run_of(workspace, "ospcoop-clip-s1")[0].state == "done"


def test_a_checkpoint_says_what_it_belongs_to(workspace):
    result = train(workspace, FAST)
    run, _ = run_of(workspace, result.run)
    facts = read_facts(workspace.path(run.folder), 2)
    data = read_set(workspace, FAST)
    assert facts["data_sha256"] == data.sha256 == run.data["sha256"]
    assert facts["classes"]["sha256"] == data.classes.sha256
    assert facts["config"]["options"] == FAST.as_dict()
    assert facts["config"]["encoder_facts"]["weights_sha256"] == dict(tiny_encoder().weights_sha256)
    assert re.fullmatch("[0-9a-f]{64}", facts["code_sha256"])


def test_float16_features_train_too(workspace):
    exact = train(workspace, FAST)
    half = train(workspace, replace(FAST, feature_storage="float16"))
    assert half.metrics["loss"] == pytest.approx(exact.metrics["loss"], abs=0.02)


def test_a_resnet_and_class_specific_contexts_train(workspace):
    from tests.tiny_clip import tiny_state_dict

    encoder = OpenClipModel(tiny_state_dict(resnet=True))
    result = train(workspace, replace(FAST, epochs=2, class_specific=True), encoder=encoder)
    assert result.epochs == 2 and result.metrics["loss"] < 10


def test_the_embedded_encoder_trains_in_seconds(workspace):
    result = train(workspace, replace(FAST, epochs=3, lr=0.05), encoder=embedded_encoder())
    _, epochs = run_of(workspace, result.run)
    assert epochs[-1].metrics["loss"] < epochs[0].metrics["loss"]


def command(workspace, *arguments):
    """What the command prints, run in this process."""
    done = CliRunner().invoke(app, [*arguments, "--workspace", str(workspace.root)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def test_the_commands_show_the_data_train_and_list(workspace, tmp_path):
    weights = str(tiny_clip(tmp_path / "clip.pt"))
    arguments = ("train", "--encoder", "clip", "--weights", weights, "--epochs", "2", "--n-ctx", "4", "--name", "demo")
    planned = command(workspace, *arguments, "--plan")
    assert re.search(r"few-shot photos +16", planned) and re.search(r"pseudo-OOD backgrounds +8", planned)
    assert "No run yet" in command(workspace, "runs", "list")
    output = command(workspace, *arguments)
    assert re.search(r"n01440764 +4 +4", output)
    assert "8 images have no usable background" in output
    assert len(re.findall(r"epoch \d: lr \S+, loss -?\d", output)) == 2
    assert "Run demo is done: 2 epochs. Epoch 2 is chosen, the last." in output
    with pytest.raises(RunError, match="exactly this training"):
        command(workspace, *arguments)
    with pytest.raises(RunError, match="is finished"):
        command(workspace, "train", "--resume", "demo")
    shown = command(workspace, "runs", "show", "demo")
    assert re.search(r"^ *2 +0\.002 ", shown, re.MULTILINE) and "class_position" in shown
    assert re.search(r"demo +ospcoop +clip +1 +\d+ +done +2 +2", command(workspace, "runs", "list"))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("--encoder", "clop"), UnknownEncoder, "embedded_dual, clip"),
        (("--epochs", "0"), OptionError, "epochs must be at least 1"),
        (("--objective", "tip"), OptionError, "ospcoop, coop, locoop"),
        (("--fewshot-set", "9"), NoTrainingData, "no few-shot set 9"),
        (("--resume", "nobody"), UnknownRun, "None was trained yet"),
    ],
)
def test_a_wrong_choice_is_named(workspace, arguments, error, message):
    with pytest.raises(error, match=message):
        command(workspace, "train", *arguments)


def test_the_embedded_encoder_takes_no_weights_file(workspace, tmp_path):
    weights = str(tiny_clip(tmp_path / "clip.pt"))
    with pytest.raises(JobFailed, match="takes no --weights file"):
        command(workspace, "train", "--weights", weights, "--epochs", "1")


def test_the_tiny_clip_is_the_one_the_file_holds(tmp_path):
    from_file = OpenClipModel.from_file(tiny_clip(tmp_path / "clip.pt"))
    assert from_file.weights_sha256 == tiny_encoder().weights_sha256
    assert from_file.text_layers == len(build_tiny_clip().transformer.resblocks)
