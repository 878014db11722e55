"""Options of the published backends that change speed alone: channels_last, torch.compile, batches, no SAM."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from generation import gpu
from generation.backends import Backends
from generation.compiling import Compiler
from generation.devices import lay_out_convolutions
from generation.inpainting.lama import LamaInpainter
from generation.masking.groundingdino import GroundingDinoDetector
from generation.masking.groundingdino_sam import GroundingDinoSamMasker
from generation.masking.sam import SamSegmenter
from generation.protocols import MaskRequest, ScoreRequest
from generation.scoring.clip import ClipScorer
from tests.tiny_models import (
    TINY_DINO,
    TINY_SAM,
    build_tiny_sam,
    tiny_bert,
    tiny_clip,
    tiny_groundingdino,
    tiny_lama,
    tiny_sam,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore:torch.meshgrid"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
SMALL = {"architecture": TINY_DINO, "short_side": 96, "max_side": 160, "device": "cpu"}
SIZE = (64, 72)
NAMES = ("goldfish", "tabby cat", "great white shark", "goldfish", "tabby cat")


@pytest.fixture(scope="module", autouse=True)
def tiny_variant():
    from segment_anything import sam_model_registry

    sam_model_registry[TINY_SAM] = build_tiny_sam
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
    del sam_model_registry[TINY_SAM]


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    bert = tiny_bert(folder / "bert")
    return {
        "bert": bert,
        "dino": tiny_groundingdino(folder / "dino.pth", bert),
        "sam": tiny_sam(folder / "sam.pth"),
        "lama": tiny_lama(folder / "lama.pt"),
        "clip": tiny_clip(folder / "clip.pt"),
        "text": folder / "text",
    }


def dino(files: dict[str, Path], **options: object) -> GroundingDinoDetector:
    return GroundingDinoDetector(files["dino"], files["bert"], **SMALL, **options)


def sam(files: dict[str, Path], **options: object) -> SamSegmenter:
    return SamSegmenter(files["sam"], variant=TINY_SAM, device="cpu", **options)


def lama(files: dict[str, Path], **options: object) -> LamaInpainter:
    return LamaInpainter(files["lama"], device="cpu", **options)


def clip(files: dict[str, Path], **options: object) -> ClipScorer:
    return ClipScorer(files["clip"], device="cpu", cache_dir=files["text"], **options)


BUILDERS = {"dino": dino, "sam": sam, "lama": lama, "clip": clip}


def pictures() -> list[np.ndarray]:
    return list(np.random.default_rng(5).integers(0, 256, (5, *SIZE, 3), dtype=np.uint8))


def answers(backend) -> np.ndarray:
    """Numbers that a backend makes of the five pictures, in one array."""
    images = pictures()
    if isinstance(backend, GroundingDinoDetector):
        return np.array([box.confidence for boxes in backend.detect(images, NAMES) for box in boxes])
    if isinstance(backend, SamSegmenter):
        return torch.cat([one.features for one in backend.encode(images)]).numpy()
    if isinstance(backend, LamaInpainter):
        hole = np.zeros(SIZE, np.uint8)
        hole[10:40, 20:50] = 255
        return np.stack([one.image for one in backend.inpaint(images, [hole] * 5)]).astype(float) / 255
    scores = backend.score([ScoreRequest(image, images[0], 7) for image in images])
    return np.array([(score.logit_source, score.logit_candidate) for score in scores])


def convolutions(backend) -> list[nn.Module]:
    if isinstance(backend, GroundingDinoDetector):
        modules = backend._model.backbone[0]
    elif isinstance(backend, SamSegmenter):
        modules = backend._model.image_encoder
    elif isinstance(backend, ClipScorer):
        modules = backend._model.model.visual
    else:
        modules = backend._model
    return [one for one in modules.modules() if hasattr(one, "weight") and one.weight.dim() == 4]


def is_channels_last(backend) -> bool:
    # A kernel of one pixel or one channel has both layouts at once.
    told = [one.weight for one in convolutions(backend) if min(one.weight.shape[1:]) > 1]
    found = {weight.is_contiguous(memory_format=torch.channels_last) for weight in told}
    assert len(found) == 1
    return found.pop()


@pytest.mark.parametrize("name", list(BUILDERS))
def test_channels_last_changes_the_layout_and_no_answer(files, name):
    plain, other = BUILDERS[name](files), BUILDERS[name](files, channels_last=True)
    assert not is_channels_last(plain) and is_channels_last(other)
    expected = answers(plain)
    assert expected.size > 0 and np.ptp(expected) > 0
    np.testing.assert_allclose(answers(other), expected, rtol=0, atol=1 / 255 if name == "lama" else 1e-4)
    assert other.fingerprint() == plain.fingerprint()
    (knob,) = other.batch_knobs(SIZE)
    for wanted, becomes in ((False, False), (True, True), (None, True)):
        knob.lay_out(wanted)
        assert is_channels_last(other) is becomes
    (knob,) = plain.batch_knobs(SIZE)
    knob.lay_out(True)
    knob.lay_out(None)
    assert not is_channels_last(plain)


def test_only_convolutions_are_laid_out():
    module = nn.Sequential(nn.Conv2d(3, 4, 2), nn.Linear(3, 3))
    module.positions = nn.Parameter(torch.zeros(1, 5, 6, 7))
    lay_out_convolutions(module, True)
    assert module[0].weight.is_contiguous(memory_format=torch.channels_last)
    assert module.positions.is_contiguous()


@pytest.mark.parametrize(
    ("name", "part"), [("dino", "detector"), ("sam", "segmenter"), ("lama", "inpainter"), ("clip", "scorer")]
)
def test_a_knob_turns_the_batch_that_the_model_sees(files, name, part, monkeypatch):
    backend = BUILDERS[name](files)
    (knob,) = backend.batch_knobs(SIZE)
    assert knob.part == part and not knob.on_gpu and knob.size.now == knob.size.default > 1
    seen = []

    def watch(target: object, method: str, count) -> None:
        original = getattr(target, method)
        monkeypatch.setattr(target, method, lambda *args: seen.append(count(*args)) or original(*args))

    if name == "dino":
        watch(backend, "_detect_batch", lambda images, *_: len(images))
    elif name == "clip":
        watch(backend._model, "encode_image", lambda images: len(images) // 2)
    else:
        watch(backend, "_encoder" if name == "sam" else "_model", lambda inputs, *_: len(inputs))
    knob.try_batch(3)
    assert seen == [3]
    seen.clear()
    knob.size.set(2)
    answers(backend)
    assert seen == [2, 2, 1]
    knob.size.reset()
    assert knob.size.now == knob.size.default


def test_what_the_best_batch_depends_on_is_told(files):
    assert dino(files).batch_knobs(SIZE)[0].facts != dino(files).batch_knobs((64, 64))[0].facts
    assert sam(files, precision="bfloat16").batch_knobs(SIZE)[0].facts != sam(files).batch_knobs(SIZE)[0].facts
    assert dino(files).batch_knobs(SIZE)[0].stages == ("mask", "score")


def test_lama_takes_fewer_only_of_the_size_that_did_not_fit(files, monkeypatch):
    backend = lama(files, batch_size=4)
    model, sizes = backend._model, []

    def small_memory(pixels, masks):
        sizes.append((pixels.shape[-1], len(pixels)))
        if pixels.shape[-1] > 80 and len(pixels) > 1:
            raise RuntimeError("The following operation failed in the TorchScript interpreter: CUDA out of memory.")
        return model(pixels, masks)

    monkeypatch.setattr(backend, "_model", small_memory)
    images = [*pictures()[:4], *(np.zeros((64, 160, 3), np.uint8) for _ in range(2))]
    holes = [np.full(image.shape[:2], 255, np.uint8) for image in images]
    for _ in range(2):
        backend.inpaint(images, holes)
    assert sizes == [(72, 4), (160, 2), (160, 1), (160, 1), (72, 4), (160, 1), (160, 1)]


# The detector alone


def test_the_detector_alone_finds_the_same_and_loads_no_sam(files, monkeypatch):
    whole = GroundingDinoSamMasker(detector=dino(files), segmenter=sam(files))

    def refuse(*_, **__):
        raise AssertionError("SAM must not be loaded.")

    monkeypatch.setattr("generation.masking.groundingdino_sam.SamSegmenter", refuse)
    alone = GroundingDinoSamMasker(detector=dino(files), detector_only=True)
    asked = [MaskRequest(image, 0, name) for image, name in zip(pictures(), NAMES, strict=True)]
    assert alone.residual_boxes(asked, pictures()) == whole.residual_boxes(asked, pictures())
    assert alone.fingerprint().items() <= whole.fingerprint().items()
    assert [knob.part for knob in whole.batch_knobs(SIZE)] == ["detector", "segmenter"]
    (knob,) = alone.batch_knobs(SIZE)
    assert (knob.part, knob.stages) == ("detector", ("score",))
    with pytest.raises(RuntimeError, match="detector_only"):
        alone.propose(asked)


def test_backends_collect_the_knobs_of_those_that_have_some(files):
    class Plain:
        def fingerprint(self):
            return {}

    assert [knob.part for knob in Backends(Plain(), lama(files), clip(files)).batch_knobs(SIZE)] == [
        "inpainter",
        "scorer",
    ]


# torch.compile


def broken(module: nn.Module):
    def call(*arguments: object) -> object:
        raise TypeError("no compiler knows this\nand more lines")

    return call


@pytest.mark.parametrize("name", ["sam", "clip"])
def test_where_compiling_fails_the_model_goes_on_without(files, name, monkeypatch, caplog):
    expected = answers(BUILDERS[name](files))
    monkeypatch.setattr(torch, "compile", broken)
    with caplog.at_level(logging.WARNING, logger="generation.compiling"):
        backend = BUILDERS[name](files, compiled=True)
        assert np.array_equal(answers(backend), expected)
        answers(backend)
    (line,) = [record.getMessage() for record in caplog.records]
    assert "TypeError: no compiler knows this): going on without it" in line


@pytest.mark.parametrize("name", ["sam", "clip"])
def test_what_is_compiled_is_used(files, name, monkeypatch):
    calls = []

    def compiling(module: nn.Module):
        return lambda *arguments: calls.append(type(module).__name__) or module(*arguments)

    monkeypatch.setattr(torch, "compile", compiling)
    backend = BUILDERS[name](files, compiled=True)
    plain = BUILDERS[name](files)
    assert np.array_equal(answers(backend), answers(plain))
    assert set(calls) == {"ImageEncoderViT" if name == "sam" else "ResidualAttentionBlock"}
    assert backend.fingerprint() == plain.fingerprint()
    assert backend.batch_knobs(SIZE)[0].facts != plain.batch_knobs(SIZE)[0].facts


class Picky(nn.Module):
    def forward(self, value: int) -> int:
        if value < 0:
            raise ValueError("negative")
        return value + 1


def test_errors_of_the_input_and_of_memory_do_not_end_compiling(monkeypatch):
    compiled = []

    def compiling(module: nn.Module):
        def call(value: int) -> int:
            compiled.append(value)
            if value == 99:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return module(value)

        return call

    monkeypatch.setattr(torch, "compile", compiling)
    compiler = Compiler("the model")
    module = compiler.wrap(Picky())
    with pytest.raises(ValueError, match="negative"):
        module(-1)
    with pytest.raises(torch.OutOfMemoryError):
        module(99)
    assert module(1) == 2 and compiler.works
    assert compiled == [-1, 99, 1]


def test_a_compiler_that_is_not_there_is_told_once(monkeypatch, caplog):
    def refuse(module: nn.Module):
        raise RuntimeError("torch.compile is not supported on this Python")

    monkeypatch.setattr(torch, "compile", refuse)
    compiler = Compiler("the model")
    plain = [Picky(), Picky()]
    with caplog.at_level(logging.WARNING, logger="generation.compiling"):
        assert [compiler.wrap(one) for one in plain] == plain
    assert len(caplog.records) == 1


# What a GPU is asked


def test_a_gpu_tells_its_memory(monkeypatch):
    assert gpu.gpu_memory() is None
    card = type("Properties", (), {"name": "NVIDIA X", "total_memory": 1000})()
    asked = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: card)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (250, 1000))
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 300)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 400)
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: asked.append("empty"))
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: asked.append("forget"))
    assert gpu.gpu_memory() == gpu.GpuMemory("NVIDIA X", 300, 400, 1000)
    found = gpu.CudaCard()
    assert (found.name, found.total_bytes, found.used_share()) == ("NVIDIA X", 1000, 0.75)
    assert found.ran_out(torch.OutOfMemoryError("CUDA out of memory.")) and not found.ran_out(RuntimeError("sizes"))
    found.empty()
    gpu.forget_peak()
    assert asked == ["empty", "forget"]
