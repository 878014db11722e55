"""Batch sizes: found by a probe with a made-up clock and card, remembered, followed by the pipeline."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict

import numpy as np
import pytest

from db.models import Split
from db.workspace import Workspace
from generation.backends import Backends, load_backends
from generation.passes import FILL_SECONDS, GPU_WORKERS, RunSettings, SettingsError, stage_settings
from generation.pipeline import Selection, generate
from generation.protocols import MaskProposal
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from generation.tuning import BatchKnob, BatchSize, BatchTuner, Probe, Trial, TuningRecord
from tests.conftest import write_photos

NOOP = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")


class OutOfMemory(RuntimeError):
    pass


class FakeGpu:
    """A card and a clock: n images take ``seconds(n)`` and ``share(n)`` of the memory; more than all is too much."""

    def __init__(
        self,
        seconds: Callable[[int], float] = lambda n: 0.1 + 0.01 * n,
        share: Callable[[int], float] = lambda n: 0.001 * n,
        *,
        name: str = "Imaginary A1 (12 GB)",
        models: float = 0.1,
        channels_last_factor: float = 1.0,
    ) -> None:
        self.name = name
        self.total_bytes = 12 << 30
        self.now = 0.0
        self.tried: list[int] = []
        self.channels_last: bool | None = None
        self._seconds = seconds
        self._share = share
        self._models = models
        self._factor = channels_last_factor
        self._activations = 0.0

    def clock(self) -> float:
        return self.now

    def used_share(self) -> float:
        return self._models + self._activations

    def empty(self) -> None:
        self._activations = 0.0

    def ran_out(self, error: RuntimeError) -> bool:
        return isinstance(error, OutOfMemory)

    def run(self, size: int) -> None:
        self.tried.append(size)
        if self._models + self._share(size) > 1:
            raise OutOfMemory
        self._activations = max(self._activations, self._share(size))
        self.now += self._seconds(size) * (self._factor if self.channels_last else 1.0)

    def lay_out(self, channels_last: bool | None) -> None:
        self.channels_last = channels_last

    def knob(self, part: str = "segmenter", stages: tuple[str, ...] = ("mask",), **facts: object) -> BatchKnob:
        facts = {"weights": "abc", **facts}
        return BatchKnob(part, stages, BatchSize(4), True, facts, self.run, self.lay_out)


def tuner(gpu: FakeGpu, tmp_path, batch: int | str = "auto") -> BatchTuner:
    return BatchTuner(batch, tmp_path, lambda: gpu, gpu.clock)


def settle(made: BatchTuner, *knobs: BatchKnob, at_once: int = 1) -> list[str]:
    said: list[str] = []
    made.settle(knobs, at_once=at_once, say=said.append)
    return said


def test_a_batch_grows_while_that_pays():
    # Images a second: 9.1, 16.7, 28.6, 44.4, 61.5, 76.2, 86.5, 92.8, 96.2; the last step gains 3.7 %.
    gpu = FakeGpu()
    found = Probe(gpu, limit=1.0, clock=gpu.clock, largest=512).find(gpu.knob())
    assert (found.batch, found.stopped) == (128, "no faster")
    assert [trial.batch for trial in found.trials] == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert [trial.images_per_s for trial in found.trials] == pytest.approx(
        [n / (0.1 + 0.01 * n) for n in 2 ** np.arange(9)]
    )
    assert gpu.tried[:4] == [1, 1, 1, 1], "one run that warms up, three that are timed"


@pytest.mark.parametrize(
    ("gpu", "limit", "batch", "stopped"),
    [
        (FakeGpu(lambda n: 0.1 * n), 1.0, 1, "no faster"),
        (FakeGpu(lambda n: 0.1 + 0.001 * n), 1.0, 256, "largest"),
        (FakeGpu(lambda n: 0.1 + 0.001 * n, lambda n: 0.05 * n), 0.5, 8, "memory"),
        (FakeGpu(lambda n: 0.1 + 0.001 * n, lambda n: 0.05 * n), 1.0, 16, "out of memory"),
        (FakeGpu(lambda n: 0.1, lambda n: 0.3), 0.2, 1, "memory"),
        (FakeGpu(share=lambda n: 2.0), 1.0, 1, "out of memory"),
    ],
)
def test_where_it_stops(gpu, limit, batch, stopped):
    found = Probe(gpu, limit=limit, clock=gpu.clock).find(gpu.knob())
    assert (found.batch, found.stopped) == (batch, stopped)
    assert all(trial.memory_share <= limit for trial in found.trials if trial.batch in range(2, batch + 1))


def test_an_error_that_is_no_lack_of_memory_goes_up():
    gpu = FakeGpu(seconds=lambda n: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        Probe(gpu, limit=1.0, clock=gpu.clock).find(gpu.knob())


@pytest.mark.parametrize(("factor", "pays"), [(0.9, True), (0.97, False), (1.2, False)])
def test_channels_last_is_kept_where_it_pays(factor, pays):
    gpu = FakeGpu(channels_last_factor=factor)
    found = Probe(gpu, limit=1.0, clock=gpu.clock).find(gpu.knob())
    assert found.channels_last is pays and gpu.channels_last is pays
    best = next(trial for trial in found.trials if trial.batch == found.batch)
    assert found.in_channels_last.images_per_s == pytest.approx(best.images_per_s / factor)


def test_what_was_found_is_remembered_by_what_it_depends_on(tmp_path):
    gpu = FakeGpu()
    knob = gpu.knob()
    first = tuner(gpu, tmp_path)
    assert settle(first, knob) == ["Finding the batch size of the segmenter"]
    assert (knob.size.now, first.settled["segmenter"].source) == (128, "probe")
    gpu.tried.clear()
    again = tuner(gpu, tmp_path)
    knob = gpu.knob()
    assert settle(again, knob) == [] and gpu.tried == []
    assert (knob.size.now, again.settled["segmenter"].source) == (128, "recorded")
    assert again.settled["segmenter"].tuned == first.settled["segmenter"].tuned
    # Other weights, another part, another number of batches at once: each is tried anew, and all are kept.
    assert settle(tuner(gpu, tmp_path), gpu.knob(weights="def"))
    assert settle(tuner(gpu, tmp_path), gpu.knob("scorer"))
    assert settle(tuner(gpu, tmp_path), gpu.knob(), at_once=6)
    path = tmp_path / "tuning-imaginary-a1-12-gb.json"
    content = json.loads(path.read_bytes())
    assert content["card"] == "Imaginary A1 (12 GB)" and len(content["entries"]) == 4
    assert settle(tuner(FakeGpu(name="Imaginary A2"), tmp_path), FakeGpu().knob())
    assert (tmp_path / "tuning-imaginary-a2.json").is_file()


@pytest.mark.parametrize(
    "damage", ["", "[]", "{}", '{"format": 9, "entries": {}}', '{"format": 1, "entries": []}', "entry", "trial"]
)
def test_a_damaged_record_is_made_anew(tmp_path, damage):
    gpu = FakeGpu()
    settle(tuner(gpu, tmp_path), gpu.knob())
    record = TuningRecord(tmp_path, gpu)
    if damage in ("entry", "trial"):
        content = json.loads(record.path.read_bytes())
        (entry,) = content["entries"].values()
        entry["found"] = {"batch": "many"} if damage == "entry" else {**entry["found"], "trials": [{"batch": 1}]}
        damage = json.dumps(content)
    record.path.write_text(damage)
    assert settle(tuner(gpu, tmp_path), gpu.knob())
    assert settle(tuner(gpu, tmp_path), gpu.knob()) == []


def test_models_that_run_at_once_share_the_memory(tmp_path):
    # Models take 10 %, so 80 % of the card may be filled: by one batch, or by four of 20 % each.
    for at_once, batch in ((1, 64), (4, 16)):
        gpu = FakeGpu(lambda n: 0.1 + 0.001 * n, lambda n: 0.0125 * n)
        knob = gpu.knob()
        settle(tuner(gpu, tmp_path), knob, at_once=at_once)
        assert knob.size.now == batch


def test_a_given_size_holds_for_every_model_until_auto_is_asked_again(tmp_path):
    gpu = FakeGpu()
    on_cpu = BatchKnob("scorer", ("score",), BatchSize(32), False, {}, gpu.run, gpu.lay_out)
    knobs = [gpu.knob(), on_cpu]
    given = tuner(gpu, tmp_path, batch=3)
    settle(given, *knobs)
    assert [knob.size.now for knob in knobs] == [3, 3] and gpu.tried == []
    assert {one.source for one in given.settled.values()} == {"given"}
    auto = tuner(gpu, tmp_path)
    settle(auto, *knobs)
    assert [knob.size.now for knob in knobs] == [128, 32]
    assert auto.settled["scorer"].as_dict() == {"batch": 32, "from": "default"}


def test_without_a_gpu_nothing_is_tried(tmp_path):
    def no_card():
        raise AssertionError("There is no card to ask.")

    gpu = FakeGpu()
    knob = BatchKnob("scorer", ("score",), BatchSize(32), False, {}, gpu.run, gpu.lay_out)
    made = BatchTuner("auto", tmp_path, no_card)
    settle(made, knob)
    assert knob.size.now == 32 and gpu.tried == [] and not any(tmp_path.iterdir())


def test_stages_follow_their_models():
    assert {name: stage.batch for name, stage in stage_settings([], "auto").items()} == {
        "mask": 8,
        "inpaint": 1,
        "score": 8,
    }
    gpu = FakeGpu()
    detector, segmenter = gpu.knob("detector", ("mask", "score")), gpu.knob()
    detector.size.set(16)
    segmenter.size.set(4)
    followed = stage_settings([detector, segmenter], "auto")
    assert {name: stage.batch for name, stage in followed.items()} == {"mask": 16, "inpaint": 1, "score": 16}
    assert {name: stage.workers for name, stage in followed.items()} == {
        "mask": GPU_WORKERS,
        "inpaint": 1,
        "score": GPU_WORKERS,
    }
    assert [stage.fill_seconds for stage in followed.values()] == [FILL_SECONDS, 0, FILL_SECONDS]
    assert {stage.batch for stage in stage_settings([detector], 5).values()} == {5}


@pytest.mark.parametrize("batch", [0, -1, "many", 1.5, True, None])
def test_a_batch_that_cannot_be_meant(batch):
    with pytest.raises(SettingsError, match="batch"):
        RunSettings(batch=batch)


def test_batch_sizes_start_at_one():
    with pytest.raises(ValueError, match="at least 1"):
        BatchSize(0)


# In a run


class TunableMasker:
    """A masker on the fake GPU, which counts how many images it is given at once."""

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu = gpu
        self.sizes: list[int] = []
        self._knob = gpu.knob("masker", ("mask",))

    def fingerprint(self):
        return {"name": "tunable"}

    def batch_knobs(self, image_size):
        assert image_size == (224, 224)
        return [self._knob]

    def propose(self, requests):
        self.sizes.append(len(requests))
        mask = np.zeros((224, 224), np.uint8)
        mask[50:150, 50:150] = 255
        return [MaskProposal(mask.copy()) for _ in requests]


@pytest.fixture
def photos(workspace: Workspace, tmp_path) -> Workspace:
    write_photos(tmp_path / "photos", 24)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.VAL))
    return workspace


def on_gpu(gpu: FakeGpu) -> tuple[TunableMasker, Backends]:
    masker = TunableMasker(gpu)
    rest = load_backends(NOOP)
    return masker, Backends(masker, rest.inpainter, rest.scorer)


def test_a_run_tunes_records_and_tells(photos):
    gpu = FakeGpu(lambda n: 0.1 + 0.01 * n, lambda n: 0.02 * n)  # half of 80 % beside the models: 20 images
    masker, backends = on_gpu(gpu)
    result = generate(photos, NOOP, Selection(limit=20), backends=backends, card=lambda: gpu)
    assert result.tuning["masker"]["batch"] == 16 and result.tuning["masker"]["from"] == "probe"
    assert result.tuning["masker"]["stopped"] == "memory"
    assert [trial["batch"] for trial in result.tuning["masker"]["trials"]] == [1, 2, 4, 8, 16, 32]
    assert max(masker.sizes) <= 16 and sum(masker.sizes) == 20
    assert result.batches["mask"] == pytest.approx(20 / len(masker.sizes), abs=0.01)
    assert (photos.root / "cache" / "tuning-imaginary-a1-12-gb.json").is_file()
    json.dumps(result.tuning)


def test_the_batch_is_no_part_of_the_recipe(photos):
    recipes, states = set(), []
    for batch in (1, 5, "auto"):
        masker, backends = on_gpu(FakeGpu())
        gpu = masker.gpu
        settings = RunSettings(batch=batch)
        result = generate(photos, NOOP, Selection(limit=8), backends=backends, settings=settings, card=lambda g=gpu: g)
        recipes.add(result.recipe_hash)
        states.append(result.states["candidate"])
        assert batch == "auto" or max(masker.sizes) <= batch
    assert len(recipes) == 1 and states == [8, 16, 24]


def test_trials_survive_json():
    gpu = FakeGpu()
    found = Probe(gpu, limit=1.0, clock=gpu.clock).find(gpu.knob())
    assert type(found).from_dict(json.loads(json.dumps(asdict(found)))) == found
    assert isinstance(found.trials[0], Trial)
