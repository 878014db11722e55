"""The generation benchmark with tiny models on the CPU: its GPU part, its yardsticks, the published way's work."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from benchmarks import generation, gpu, published_scripts
from benchmarks.big_lama import BigLama, FourierUnit
from benchmarks.clip_pair import compare_clip
from benchmarks.gpu import BusyMeter, Stopwatch, nvidia_smi_reader, sam_encoder_flops
from benchmarks.published_clip import PublishedClip
from benchmarks.published_scripts import PublishedScripts
from benchmarks.random_models import ModelFiles, load_backends, save_lama, small_models
from generation.classes import load_imagenet_classes
from generation.masking.postprocess import dilate
from generation.protocols import MaskRequest, ScoreRequest
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.scores import class_text_features
from tests.tiny_models import TINY_SAM

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

CPU = torch.device("cpu")
PUBLISHED_LAMA_PARAMETERS = 51e6  # the publisher's own figure, two digits


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> ModelFiles:
    from segment_anything import sam_model_registry

    known = TINY_SAM in sam_model_registry
    yield small_models(tmp_path_factory.mktemp("models"))
    if not known:
        del sam_model_registry[TINY_SAM]


@pytest.fixture(scope="module")
def names() -> tuple[str, ...]:
    return load_imagenet_classes().names


@pytest.fixture(scope="module", autouse=True)
def few_classes(names):
    """The published text tower over 20 classes instead of 1000: the same code, in a test's time."""
    short = SimpleNamespace(names=names[:20], index_of=load_imagenet_classes().index_of)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published_scripts, "load_imagenet_classes", lambda: short)
        yield


def picture(seed: int, side: int = 224) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((side, side), Image.Resampling.BICUBIC))


# The command


@pytest.fixture(scope="module")
def measured(files, tmp_path_factory) -> generation.DeviceFigures:
    folder = tmp_path_factory.mktemp("device")
    return generation.measure_device(
        files, folder, CPU, 2, published_photos=1, matmul_sizes=(64,), utilisation=lambda: "50\n"
    )


def test_the_gpu_part_measures_every_stage_of_both_ways(measured):
    assert measured.result.made == 2
    assert sum(measured.result.states.values()) == 3  # and the one that warmed up
    shared = {"decode", "detector", "SAM encoder", "mask decoder", "LaMa", "CLIP", "write"}
    assert set(measured.stages) == shared | {"SAM encoder alone", "detector, second look"}
    assert set(measured.published_stages) == shared | {"LaMa from disk"}
    assert all(seconds > 0 for seconds in [*measured.stages.values(), *measured.published_stages.values()])
    assert measured.busy == 0.5
    flops = sam_encoder_flops(TINY_SAM)
    assert measured.ceiling_share == pytest.approx(flops / measured.stages["SAM encoder alone"] / measured.ceiling)
    assert measured.speedup == pytest.approx(measured.images_per_s / measured.published_images_per_s)
    figures = generation.device_figures(measured)
    assert set(figures) == {"pipeline_speedup", "sam_ceiling_share", "gpu_busy", "images_per_s"}
    json.dumps(figures, allow_nan=False)


def test_the_command_without_a_gpu(monkeypatch, capsys, files, measured):
    monkeypatch.setattr(generation, "small_models", lambda folder: files)
    monkeypatch.setattr(generation, "measure_device", lambda *given, **named: measured)
    generation.main(["--small", "--device", "cpu"])
    *printed, last = capsys.readouterr().out.strip().splitlines()
    assert set(json.loads(last)) == {"clip_pair_speedup"}
    text = "\n".join(printed)
    assert "these figures mean nothing" in text
    for words in ("CLIP score of a pair", "SAM encoder alone", "LaMa from disk", "whole, wall", "TFLOP/s"):
        assert words in text


def test_what_only_a_gpu_has_is_printed_too(monkeypatch, capsys, measured):
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Some GPU")
    monkeypatch.setattr(generation, "pick_dtype", lambda device: torch.bfloat16)
    on_gpu = replace(measured, result=replace(measured.result, gpu={"peak": 3 * 2**30}))
    generation.print_device(on_gpu, torch.device("cuda"))
    generation.print_device(replace(on_gpu, busy=None), torch.device("cuda"))
    printed = capsys.readouterr().out
    for words in ("Some GPU", "bfloat16", "over the run: 50%", "in the run: 3.0 GiB", "not measured (no answer"):
        assert words in printed


def test_differing_logits_stop_the_comparison(monkeypatch, tmp_path, files):
    monkeypatch.setattr(PublishedClip, "logits", lambda self, image: (torch.zeros(1000), None))
    with pytest.raises(AssertionError, match="differ by"):
        compare_clip(files.clip, tmp_path)


# The published way does the published work, with our results


def test_the_published_clip_gives_our_logits_and_local_logits(files, names):
    model = OpenClipModel.from_file(files.clip)
    text = class_text_features(model, names[:30])
    published = PublishedClip(files.clip, names[:30], CPU)
    for seed in range(2):
        whole, local = published.logits(picture(seed))
        features = model.encode_image([picture(seed)])
        ours = [model.logit_scale * F.normalize(one, dim=-1) @ text.T for one in features]
        assert whole.std() > 0.01
        assert torch.allclose(whole, ours[0][0], atol=1e-4)
        assert torch.allclose(local, ours[1][0], atol=1e-4)


def test_the_published_clip_in_half_precision(files, names):
    exact, _ = PublishedClip(files.clip, names[:30], CPU).logits(picture(0))
    half, _ = PublishedClip(files.clip, names[:30], CPU, torch.float16).logits(picture(0))
    assert half.dtype is torch.float16
    assert 0 < float((half.float() - exact).abs().max()) < 0.1


def test_the_text_tower_runs_for_each_image_and_lama_is_read_for_each(tmp_path, monkeypatch, files):
    scripts = PublishedScripts(files, tmp_path / "work", CPU, Stopwatch(CPU))
    texts, built = [], []
    scripts._clip._clip.ln_final.register_forward_hook(lambda module, inputs, output: texts.append(output.shape))
    monkeypatch.setattr(published_scripts, "BigLama", lambda **sizes: built.append(sizes) or BigLama(**sizes))
    for seed in range(2):
        Image.fromarray(picture(seed, side=300)).save(tmp_path / f"photo{seed}.png")
        drop = scripts.run(tmp_path / f"photo{seed}.png", seed)
        assert (tmp_path / "work" / "score_inpaint" / f"photo{seed}_{drop}.JPEG").is_file()
        with Image.open(tmp_path / "work" / "raw" / f"photo{seed}.JPEG") as raw:
            assert raw.size == (224, 224)
    assert texts == [(20, 77, 64)] * 4
    assert len(built) == 2


def test_both_ways_give_the_same_mask_filling_and_drop(tmp_path, files, names):
    backends = load_backends(files, CPU, tmp_path / "cache")
    scripts = PublishedScripts(files, tmp_path / "work", CPU, Stopwatch(CPU))
    seen = 0
    for index in range(2):
        raw = tmp_path / "work" / "raw" / f"{index}.png"
        Image.fromarray(picture(index)).save(raw)
        proposal = backends.masker.propose([MaskRequest(picture(index), index, names[index])])[0]
        scripts.mask(raw, names[index])
        mask = np.asarray(Image.open(tmp_path / "work" / "mask" / raw.name))[:, :, 0]
        assert np.mean(mask != proposal.mask) < 0.001
        seen += int(mask.any() and not mask.all())
        scripts.inpaint(raw)
        filled = np.asarray(Image.open(tmp_path / "work" / "inpaint" / raw.name))
        ours = backends.inpainter.inpaint([picture(index)], [dilate(mask, 12)])[0].image
        assert np.abs(filled.astype(int) - ours).max() <= 1
        assert (filled != picture(index)).any()
        score = backends.scorer.score([ScoreRequest(picture(index), filled, index)])[0]
        assert scripts.score(raw, index) == pytest.approx(score.drop, abs=1e-3)
    assert seen, "every mask is empty or full, so this test shows nothing"


# big-lama


def test_big_lama_has_the_published_number_of_parameters():
    with torch.device("meta"):
        model = BigLama()
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert parameters == 50_975_875
    assert parameters == pytest.approx(PUBLISHED_LAMA_PARAMETERS, rel=0.01)


def test_big_lama_keeps_its_contract(tmp_path):
    lama = torch.jit.load(save_lama(tmp_path / "lama.pt", width=8, blocks=1))
    image = torch.rand(2, 3, 40, 128, generator=torch.Generator().manual_seed(0))
    hole = torch.zeros(2, 1, 40, 128)
    hole[:, :, 8:16, 8:24] = 1
    with torch.no_grad():
        filled = lama(image, hole)
        assert filled.shape == image.shape and filled.min() >= 0 and filled.max() <= 1
        assert torch.equal(filled * (1 - hole), image * (1 - hole))
        assert torch.allclose(lama(image[:1], hole[:1]), filled[:1], atol=1e-6)
        inside = filled[:, :, 8:16, 8:24]
        assert torch.equal(lama(image * (1 - hole), hole)[:, :, 8:16, 8:24], inside)
        # Ninety pixels off, out of every local convolution's reach, but not of the Fourier unit's.
        far = image.clone()
        far[:, :, :, 120:] = 0
        assert (lama(far, hole)[:, :, 8:16, 8:24] != inside).float().mean() > 0.5


def test_the_fourier_unit_mixes_the_spectrum():
    unit = FourierUnit(2).eval()
    mixing = torch.randn(4, 4, generator=torch.Generator().manual_seed(0))
    unit.norm.eps = 0.0
    with torch.no_grad():
        unit.mix.weight.copy_(mixing[:, :, None, None])
    maps = np.random.default_rng(0).normal(size=(1, 2, 6, 10)).astype(np.float32)
    spectrum = np.fft.rfft2(maps[0], norm="ortho")
    parts = np.stack([spectrum[0].real, spectrum[0].imag, spectrum[1].real, spectrum[1].imag])
    mixed = np.maximum(np.einsum("oi,ihw->ohw", mixing.numpy(), parts), 0)
    expected = np.fft.irfft2(mixed[0::2] + 1j * mixed[1::2], s=(6, 10), norm="ortho")
    with torch.no_grad():
        assert np.allclose(unit(torch.from_numpy(maps))[0].numpy(), expected, atol=1e-5)


# The yardsticks


def test_the_encoders_flops_are_the_sum_of_its_products(files):
    """The tiny SAM: two blocks of width 16 and two heads, all in windows of 14x14 tokens (64 padded to 70)."""
    width, heads, tokens, windows, window = 16, 2, 64 * 64, 25, 14 * 14
    inside = windows * window
    attention = 2 * windows * heads * window * window * (width // heads)
    positions = 2 * windows * heads * window * 14 * (width // heads)
    mlp = tokens * 2 * width * 4 * width
    block = inside * width * 3 * width + inside * width * width + attention + positions + mlp
    neck = tokens * width * 256 + tokens * 256 * 256 * 9
    patches = tokens * 3 * 16 * 16 * width
    assert sam_encoder_flops(TINY_SAM) == 2 * (patches + 2 * block + neck)


def test_the_ceiling_is_the_best_rate_of_all_sizes(monkeypatch):
    seconds = iter([1.0, 0.5, 1.0, 8.0])  # for each size: three trial runs, then the timed ones
    monkeypatch.setattr(gpu, "_mean_seconds", lambda device, run, repeats: run() is None or next(seconds))
    assert gpu.matmul_ceiling(CPU, torch.float32, (10, 20)) == max(2 * 10**3 / 0.5, 2 * 20**3 / 8.0)


def test_the_busy_meter_averages_what_is_a_number(monkeypatch):
    monkeypatch.setattr(gpu, "SAMPLE_SECONDS", 0.001)
    answers = ["0\n", "90\n", "[N/A]\n", "30\n"]
    meter = BusyMeter(lambda: answers.pop(0) if answers else meter._left.set() or "")
    with meter:
        meter._left.wait(30)
    assert meter.share == pytest.approx(0.6)  # the first only tries whether there is an answer
    with BusyMeter(lambda: "[N/A]") as silent:
        pass
    assert silent.share is None


def test_a_meter_that_cannot_read_fails_where_it_is_used():
    def broken() -> str:
        raise OSError("no driver")

    with pytest.raises(OSError, match="no driver"), BusyMeter(broken):
        pass


def test_nvidia_smi_is_asked_about_this_gpu(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda device: SimpleNamespace(uuid="1234-abcd"))
    monkeypatch.setenv("PATH", str(tmp_path))
    assert nvidia_smi_reader(CPU) is None
    program = tmp_path / "nvidia-smi"
    program.write_text('#!/bin/sh\necho "$@" >&2\n[ "$2" = GPU-1234-abcd ] && echo 42\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}/bin")
    assert nvidia_smi_reader(CPU)() == "42\n"


def test_the_stopwatch_adds_up_by_name(monkeypatch):
    clock = iter([0.0, 1.0, 10.0, 12.0, 20.0, 25.0])
    monkeypatch.setattr(gpu.time, "perf_counter", lambda: next(clock))
    stopwatch = Stopwatch(CPU)
    for name in ("mask", "mask", "score"):
        with stopwatch(name):
            pass
    assert stopwatch.seconds == {"mask": 3.0, "score": 5.0}
