"""The training benchmark on a tiny model: both ways do the same step, and the last line holds the figures."""

from __future__ import annotations

import json
import sys

import pytest

from benchmarks import training
from benchmarks.published_training import PublishedTrainer
from ospcoop.features import FeatureCache
from ospcoop.options import TrainingOptions
from ospcoop.trainer import PromptTrainer
from tests.training_material import tiny_encoder

NAMES = ["tench", "goldfish", "great white shark", "kite (bird of prey)", "cock"]


@pytest.mark.parametrize("at_once", [None, 2])
def test_the_published_step_gives_our_loss_and_gradient(tmp_path, at_once):
    encoder, sizes = tiny_encoder(), training.Sizes(classes=5, batch=4, images=8, evaluated=0, at_once=at_once)
    images = training.Images(encoder, sizes, FeatureCache(tmp_path, encoder))
    trainer = PromptTrainer(encoder, NAMES, TrainingOptions())
    published = PublishedTrainer(encoder, NAMES, trainer.context, at_once=at_once).step(*images.pixels(0))
    ours = training.our_step(trainer, images, 0)
    assert published.parts.as_numbers() == pytest.approx(ours.as_numbers(), abs=1e-5)
    assert (published.gradient - trainer.context.grad).norm() < 1e-4 * published.gradient.norm()
    assert {"image tower", "text tower forward", "text tower backward"} <= set(published.costs)


def test_the_last_line_is_json_and_the_losses_agree(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(sys, "argv", ["training.py", "--small", "--steps", "1", "--device", "cpu"])
    monkeypatch.chdir(tmp_path)
    training.main()
    figures = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert set(figures) == {"step_speedup", "max_loss_diff", "epoch_speedup", "reeval_s"}
    assert figures["max_loss_diff"] <= training.LOSS_TOLERANCE
    assert figures["step_speedup"] > 0 and figures["epoch_speedup"] is None
    assert not list(tmp_path.iterdir()), "nothing is left behind"
