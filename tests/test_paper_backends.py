"""The published backends on tiny random weights: against the packages' own code, in batches, in threads, gone wrong."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generation import devices
from generation.classes import load_imagenet_classes
from generation.devices import (
    DeviceUnavailable,
    exact_float32,
    is_out_of_memory,
    pick_device,
    pick_dtype,
    run_in_batches,
)
from generation.inpainting.lama import LamaInpainter
from generation.masking.groundingdino import GroundingDinoDetector
from generation.masking.groundingdino_sam import GroundingDinoSamMasker
from generation.masking.postprocess import composite
from generation.masking.prompts import prompt_for
from generation.masking.sam import SamSegmenter
from generation.masking.sam_click import BadPrompt, Click, SamClick
from generation.protocols import Box, MaskRequest, ScoreRequest
from generation.scoring.clip import ClipScorer
from generation.weights import WeightsMissing, WrongWeights
from tests.tiny_models import (
    TINY_DINO,
    TINY_SAM,
    build_tiny_clip,
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

NAMES = ("great white shark", "goldfish", "tabby cat", "great white shark", "St. Bernard")
SIZES = ((64, 64), (64, 64), (50, 80), (64, 64), (90, 61))
SMALL = {"architecture": TINY_DINO, "short_side": 96, "max_side": 160, "device": "cpu"}


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", autouse=True)
def tiny_variant():
    from segment_anything import sam_model_registry

    sam_model_registry[TINY_SAM] = build_tiny_sam
    yield
    del sam_model_registry[TINY_SAM]


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tiny")
    bert = tiny_bert(folder / "bert")
    return {
        "bert": bert,
        "dino": tiny_groundingdino(folder / "dino.pth", bert),
        "sam": tiny_sam(folder / "sam.pth"),
        "lama": tiny_lama(folder / "lama.pt"),
        "clip": tiny_clip(folder / "clip.pt"),
    }


@pytest.fixture(scope="module")
def detector(files) -> GroundingDinoDetector:
    return GroundingDinoDetector(files["dino"], files["bert"], **SMALL)


@pytest.fixture(scope="module")
def segmenter(files) -> SamSegmenter:
    return SamSegmenter(files["sam"], variant=TINY_SAM, device="cpu")


@pytest.fixture(scope="module")
def masker(files, segmenter) -> GroundingDinoSamMasker:
    detector = GroundingDinoDetector(files["dino"], files["bert"], max_boxes=2, **SMALL)
    return GroundingDinoSamMasker(detector=detector, segmenter=segmenter)


@pytest.fixture(scope="module")
def lama(files) -> LamaInpainter:
    return LamaInpainter(files["lama"], device="cpu")


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def clip(files, cache_dir) -> ClipScorer:
    return ClipScorer(files["clip"], device="cpu", cache_dir=cache_dir)


def picture(number: int, size: tuple[int, int] | None = None) -> np.ndarray:
    height, width = size or SIZES[number % len(SIZES)]
    noise = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC))


def requests() -> list[MaskRequest]:
    return [MaskRequest(picture(number), number, name) for number, name in enumerate(NAMES)]


def assert_same_boxes(found: tuple[Box, ...], expected: tuple[Box, ...]) -> None:
    assert [box.phrase for box in found] == [box.phrase for box in expected]
    for one, other in zip(found, expected, strict=True):
        assert (one.x0, one.y0, one.x1, one.y1) == pytest.approx((other.x0, other.y0, other.x1, other.y1), abs=1e-2)
        assert one.confidence == pytest.approx(other.confidence, abs=1e-4)


# GroundingDINO


def test_the_prompt_is_the_whole_name():
    assert prompt_for("great white shark") == "great white shark ."
    assert prompt_for(" Soft-coated Wheaten Terrier ") == "soft-coated wheaten terrier ."
    assert prompt_for("toilet_paper") == "toilet paper ."
    # A full stop would end the phrase: the model would look for a "st" and for a "bernard".
    assert prompt_for("St. Bernard") == "st bernard ."
    for name in load_imagenet_classes().names:
        prompt = prompt_for(name)
        assert prompt.count(".") == 1 and len(prompt.split()) >= len(name.split()) + 1
    with pytest.raises(ValueError, match="class name"):
        prompt_for(" . ")


def test_boxes_equal_the_packages_own_prediction(detector, files):
    import groundingdino.datasets.transforms as T
    from groundingdino.config import GroundingDINO_SwinT_OGC
    from groundingdino.models import build_model
    from groundingdino.util.inference import predict
    from groundingdino.util.misc import clean_state_dict
    from groundingdino.util.slconfig import SLConfig

    shipped = {key: value for key, value in vars(GroundingDINO_SwinT_OGC).items() if not key.startswith("__")}
    model = build_model(SLConfig({**shipped, **TINY_DINO, "text_encoder_type": str(files["bert"])}))
    state = torch.load(files["dino"], weights_only=True)["model"]
    model.load_state_dict(clean_state_dict(state), strict=False)
    steps = [
        T.RandomResize([96], max_size=160),
        T.ToTensor(),
        T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
    for number, name in ((0, "great white shark"), (2, "tabby cat")):
        image = picture(number)
        pixels, _ = T.Compose(steps)(Image.fromarray(image), None)
        boxes, confidences, phrases = predict(model.eval(), pixels, name, 0.3, 0.25, device="cpu")
        height, width = image.shape[:2]
        expected = []
        for (x, y, w, h), confidence, phrase in zip(boxes.tolist(), confidences.tolist(), phrases, strict=True):
            corners = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
            words = phrase.replace("[CLS]", "").replace("[SEP]", "").strip()
            expected.append(Box(*corners, words, confidence))
        expected.sort(key=lambda box: -box.confidence)
        found = detector.detect([image], [name])[0]
        assert expected
        assert_same_boxes(tuple(sorted(found, key=lambda box: box.x0)), tuple(sorted(expected, key=lambda box: box.x0)))
        assert [box.confidence for box in found] == sorted((box.confidence for box in found), reverse=True)


def test_a_batch_of_mixed_sizes_and_captions_equals_its_images(detector):
    images = [request.image for request in requests()]
    together = detector.detect(images, NAMES)
    assert any(together)
    for image, name, found in zip(images, NAMES, together, strict=True):
        assert_same_boxes(found, detector.detect([image], [name])[0])


def test_the_caption_decides_the_boxes(detector):
    shark, goldfish = detector.detect([picture(0)] * 2, ["great white shark", "goldfish"])
    words = {word for box in shark for word in box.phrase.split()}
    assert words == {"great", "white", "shark"}
    assert {box.phrase for box in goldfish} == {"goldfish"}
    assert [box.x0 for box in shark] != [box.x0 for box in goldfish]


def test_boxes_are_capped_at_the_most_confident(detector, files):
    every = detector.detect([picture(0)], [NAMES[0]])[0]
    capped = GroundingDinoDetector(files["dino"], files["bert"], max_boxes=2, **SMALL)
    assert len(every) > 2
    assert_same_boxes(capped.detect([picture(0)], [NAMES[0]])[0], every[:2])


def test_low_precision_stays_inside_the_backbone(files):
    detector = GroundingDinoDetector(files["dino"], files["bert"], precision="bfloat16", **SMALL)
    assert detector.fingerprint()["backbone_dtype"] == "bfloat16"
    maps = []
    detector._model.backbone[0].register_forward_hook(lambda module, args, output: maps.append(output))
    detector.detect([picture(0)], [NAMES[0]])
    assert {one.tensors.dtype for one in maps[0].values()} == {torch.float32}


@pytest.mark.parametrize(
    "wrong",
    [
        {"box_threshold": 0.0},
        {"text_threshold": 1.0},
        {"max_boxes": 0},
        {"batch_size": 0},
        {"short_side": 200},
        {"architecture": {"layers": 3}},
    ],
)
def test_detector_parameters_out_of_range(files, wrong):
    with pytest.raises(ValueError):
        GroundingDinoDetector(files["dino"], files["bert"], **{**SMALL, **wrong})


# Segment Anything


def test_masks_equal_the_packages_own_predictor(segmenter, files):
    from segment_anything import SamPredictor

    boxes = np.array([[5.0, 5, 40, 40], [20, 20, 60, 45]])
    image = picture(2)
    predictor = SamPredictor(build_tiny_sam(str(files["sam"])))
    predictor.set_image(image)
    prompts = predictor.transform.apply_boxes_torch(torch.tensor(boxes), image.shape[:2])
    expected, quality, _ = predictor.predict_torch(None, None, prompts, multimask_output=False)
    masks, guessed = segmenter.decode(segmenter.encode([image])[0], boxes=boxes)
    assert masks.shape == (2, 1, *image.shape[:2])
    assert (masks == expected.numpy()).mean() > 0.999
    assert guessed == pytest.approx(quality.numpy(), abs=1e-4)
    union = segmenter.outline_boxes([image], [boxes])[0]
    assert union.dtype == np.uint8
    assert np.array_equal(union != 0, masks.any(axis=(0, 1)))


def test_sam_in_low_precision_decodes_in_float32(files, segmenter):
    low = SamSegmenter(files["sam"], variant=TINY_SAM, device="cpu", precision="bfloat16")
    embedding = low.encode([picture(0)])[0]
    assert embedding.features.dtype is torch.float32
    exact = segmenter.encode([picture(0)])[0].features
    assert not torch.equal(embedding.features, exact)
    assert torch.nn.functional.cosine_similarity(embedding.features, exact).mean() > 0.99
    assert low.fingerprint() != segmenter.fingerprint()


def test_the_encoder_can_be_compiled(files, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda module: compiled.append(module) or module)
    segmenter = SamSegmenter(files["sam"], variant=TINY_SAM, device="cpu", compiled=True)
    assert compiled == [segmenter._model.image_encoder]


# The masker


def test_proposals_of_a_batch_equal_those_of_its_images(masker):
    together = masker.propose(requests())
    for request, proposal in zip(requests(), together, strict=True):
        alone = masker.propose([request])[0]
        assert proposal.mask.shape == request.image.shape[:2] and proposal.mask.dtype == np.uint8
        assert set(np.unique(proposal.mask)) <= {0, 255}
        assert (proposal.mask == alone.mask).mean() > 0.999
        assert_same_boxes(proposal.boxes, alone.boxes)
    assert sum(proposal.mask.any() for proposal in together) >= 3


def test_several_boxes_are_united(masker, segmenter):
    proposal = masker.propose(requests()[:1])[0]
    assert len(proposal.boxes) > 1
    embedding = segmenter.encode([requests()[0].image])[0]
    union = np.zeros(proposal.mask.shape, bool)
    for box in proposal.boxes:
        union |= segmenter.decode(embedding, boxes=np.array([[box.x0, box.y0, box.x1, box.y1]]))[0][0, 0]
    assert ((proposal.mask != 0) == union).mean() > 0.999


def test_no_detection_is_an_empty_mask(files, segmenter):
    strict = GroundingDinoDetector(files["dino"], files["bert"], box_threshold=1 - 1e-12, **SMALL)
    masker = GroundingDinoSamMasker(detector=strict, segmenter=segmenter)
    for request, proposal in zip(requests(), masker.propose(requests()), strict=True):
        assert proposal.boxes == ()
        assert proposal.mask.shape == request.image.shape[:2] and not proposal.mask.any()
    assert masker.propose([]) == []


def test_the_residual_is_the_detector_on_the_candidate(masker):
    candidates = [picture(number + 10, request.image.shape[:2]) for number, request in enumerate(requests())]
    found = masker.residual_boxes(requests(), candidates)
    for boxes, expected in zip(found, masker.detector.detect(candidates, NAMES), strict=True):
        assert_same_boxes(boxes, expected)


def test_threads_share_a_masker(masker):
    alone = masker.propose(requests())
    with ThreadPoolExecutor(2) as pool:
        runs = list(pool.map(masker.propose, [requests(), requests()[::-1]]))
    for proposals in (runs[0], runs[1][::-1]):
        for proposal, expected in zip(proposals, alone, strict=True):
            assert (proposal.mask == expected.mask).mean() > 0.999
            assert_same_boxes(proposal.boxes, expected.boxes)


# Clicks


@pytest.fixture
def encoded(segmenter, monkeypatch) -> list[int]:
    """How many images each call of the encoder got."""
    calls = []
    encode = segmenter.encode
    monkeypatch.setattr(segmenter, "encode", lambda images: calls.append(len(images)) or encode(images))
    return calls


def test_clicks_and_boxes_use_one_embedding(segmenter, encoded):
    from segment_anything import SamPredictor

    click = SamClick(segmenter)
    image = picture(2)
    predictor = SamPredictor(segmenter._model)
    predictor.set_image(image)
    one = click.segment(image, clicks=[Click(30, 20)])
    masks, quality, _ = predictor.predict(np.array([[30, 20]]), np.array([1]))
    assert np.array_equal(one.mask != 0, masks[quality.argmax()])
    assert one.quality == pytest.approx(float(quality.max()), abs=1e-5)
    several = click.segment(image.copy(), clicks=[Click(30, 20), Click(5, 5, positive=False)])
    masks, _, _ = predictor.predict(np.array([[30, 20], [5, 5]]), np.array([1, 0]), multimask_output=False)
    assert np.array_equal(several.mask != 0, masks[0])
    boxed = click.segment(image, box=(10, 5, 60, 45))
    masks, _, _ = predictor.predict(box=np.array([10, 5, 60, 45]), multimask_output=False)
    assert np.array_equal(boxed.mask != 0, masks[0])
    both = click.segment(image, clicks=[Click(30, 20)], box=(10, 5, 60, 45))
    assert both.mask.shape == image.shape[:2] and both.mask.dtype == np.uint8
    assert encoded == [1]


def test_the_oldest_embedding_goes_first(segmenter, encoded):
    click = SamClick(segmenter, cache_size=2)
    for number in (0, 1, 0, 2, 0, 1):
        click.segment(picture(number), clicks=[Click(1, 1)])
    assert len(encoded) == 4


def test_two_annotators_wait_for_one_embedding(segmenter, encoded):
    click = SamClick(segmenter)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: click.segment(picture(0), clicks=[Click(3, 3)]), range(2))
    assert np.array_equal(first.mask, second.mask)
    assert encoded == [1]


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"clicks": [Click(80, 1)]},
        {"clicks": [Click(1, -1)]},
        {"box": (10, 10, 10, 20)},
        {"box": (0, 0, 81, 20)},
        {"box": (float("nan"), 0, 20, 20)},
    ],
)
def test_prompts_that_cannot_be_meant(segmenter, encoded, prompt):
    with pytest.raises(BadPrompt):
        SamClick(segmenter).segment(picture(2), **prompt)
    assert encoded == []


# LaMa


def holes(images: list[np.ndarray]) -> list[np.ndarray]:
    answer = []
    for image in images:
        hole = np.zeros(image.shape[:2], np.uint8)
        hole[10:30, 5:40] = 255
        answer.append(hole)
    return answer


def test_lama_keeps_sizes_and_fills_only_the_hole(lama):
    images = [picture(number) for number in range(5)]
    before = [image.copy() for image in images]
    for image, hole, result in zip(images, holes(images), lama.inpaint(images, holes(images)), strict=True):
        assert result.image.shape == image.shape and result.image.dtype == np.uint8
        filled = composite(image, result.image, hole)
        assert np.array_equal(filled[hole == 0], image[hole == 0])
        assert not np.array_equal(filled[hole != 0], image[hole != 0])
    assert all(np.array_equal(one, other) for one, other in zip(images, before, strict=True))


def test_lama_equals_the_package(lama, files, monkeypatch):
    from simple_lama_inpainting import SimpleLama

    monkeypatch.setenv("LAMA_MODEL", str(files["lama"]))
    published = SimpleLama(device=torch.device("cpu"))
    images = [picture(number) for number in range(3)]
    for image, hole, result in zip(images, holes(images), lama.inpaint(images, holes(images)), strict=True):
        expected = np.asarray(published(image, hole))[: image.shape[0], : image.shape[1]]
        assert np.abs(result.image.astype(int) - expected).max() <= 1


def test_lama_batches_equal_their_images(lama, files):
    images = [picture(number) for number in range(5)]
    together = lama.inpaint(images, holes(images))
    layout = LamaInpainter(files["lama"], device="cpu", channels_last=True).inpaint(images, holes(images))
    for image, hole, result, other in zip(images, holes(images), together, layout, strict=True):
        alone = lama.inpaint([image], [hole])[0]
        assert np.abs(result.image.astype(int) - alone.image).max() <= 1
        assert np.abs(result.image.astype(int) - other.image).max() <= 1


def test_lama_thresholds_the_mask(lama):
    image = picture(0)
    hole = holes([image])[0]
    grey = np.where(hole == 0, np.uint8(127), np.uint8(128))
    assert np.array_equal(lama.inpaint([image], [grey])[0].image, lama.inpaint([image], [hole])[0].image)
    with pytest.raises(ValueError, match="mask"):
        lama.inpaint([image], [hole[1:]])


# CLIP


def pairs() -> list[ScoreRequest]:
    return [ScoreRequest(picture(number), picture(number + 10, SIZES[number]), 7 * number) for number in range(5)]


def test_scores_equal_open_clips_own_logits(clip):
    import open_clip
    from open_clip.transform import image_transform

    model = build_tiny_clip()
    names = load_imagenet_classes().names
    preprocess = image_transform(32, is_train=False)
    with torch.no_grad():
        text = open_clip.get_tokenizer("ViT-B-16")([f"a photo of a {name}" for name in names])
        text = model.encode_text(text, normalize=True)
        for request, score in zip(pairs(), clip.score(pairs()), strict=True):
            images = torch.stack([preprocess(Image.fromarray(one)) for one in (request.source, request.candidate)])
            source, candidate = model.logit_scale.exp() * model.encode_image(images, normalize=True) @ text.T
            index = request.class_index
            assert score.logit_source == pytest.approx(float(source[index]), abs=1e-3)
            assert score.residual == score.logit_candidate == pytest.approx(float(candidate[index]), abs=1e-3)
            assert score.drop == pytest.approx(float(source[index] - candidate[index]), abs=2e-3)
            assert score.probability == pytest.approx(float(candidate.softmax(0)[index]), rel=1e-3)
            assert abs(score.rank - 1 - int((candidate > candidate[index]).sum())) <= 1
            assert score.top5 == tuple(candidate.topk(5).indices.tolist())


def test_scores_of_a_batch_equal_those_of_its_pairs(clip):
    for request, score in zip(pairs(), clip.score(pairs()), strict=True):
        assert clip.score([request])[0].drop == pytest.approx(score.drop, abs=1e-4)
    same = clip.score([ScoreRequest(picture(0), picture(0), 1)])[0]
    assert same.drop == pytest.approx(0, abs=1e-4)


def test_text_features_are_computed_once(clip, files, cache_dir, monkeypatch):
    kept = list(cache_dir.iterdir())
    assert [path.name.split("-")[:2] for path in kept] == [["clip", "text"]]

    def refuse(*_):
        raise AssertionError("The text tower must not run again.")

    monkeypatch.setattr("generation.scoring.clip.class_text_features", refuse)
    again = ClipScorer(files["clip"], device="cpu", cache_dir=cache_dir)
    assert again.score(pairs()) == clip.score(pairs())


def test_a_damaged_text_cache_is_made_anew(clip, files, tmp_path, cache_dir):
    damaged = tmp_path / next(cache_dir.iterdir()).name
    damaged.write_bytes(b"PK\x03\x04 not whole")
    assert ClipScorer(files["clip"], device="cpu", cache_dir=tmp_path).score(pairs()) == clip.score(pairs())
    with np.load(damaged) as archive:
        assert archive["features"].shape == (1000, 32)


# What is recorded, and what is wrong


def test_fingerprints_hold_sums_and_parameters(masker, lama, clip, files, segmenter):
    def sha256(name: str) -> str:
        return hashlib.sha256(files[name].read_bytes()).hexdigest()

    record = masker.fingerprint()
    assert record["detector"]["weights_sha256"]["groundingdino"] == sha256("dino")
    assert "bert/vocab.txt" in record["detector"]["weights_sha256"]
    assert record["detector"]["box_threshold"] == 0.3 and record["detector"]["text_threshold"] == 0.25
    assert record["segmenter"]["weights_sha256"] == {f"sam_{TINY_SAM}": sha256("sam")}
    assert lama.fingerprint()["weights_sha256"] == {"big_lama": sha256("lama")}
    assert clip.fingerprint()["weights_sha256"] == {"clip": sha256("clip")}
    assert SamClick(segmenter).fingerprint()["variant"] == TINY_SAM
    for backend in (masker, lama, clip):
        assert backend.fingerprint()["grade"] == "paper"
        assert json.loads(json.dumps(backend.fingerprint())) == backend.fingerprint()
    other = LamaInpainter(files["lama"], device="cpu", threshold=50)
    assert other.fingerprint() != lama.fingerprint()


def builders(files: dict[str, Path]) -> dict[str, Callable[[Path], object]]:
    return {
        "dino": lambda path: GroundingDinoDetector(path, files["bert"], **SMALL),
        "sam": lambda path: SamSegmenter(path, variant=TINY_SAM, device="cpu"),
        "lama": lambda path: LamaInpainter(path, device="cpu"),
        "clip": lambda path: ClipScorer(path, device="cpu"),
    }


@pytest.mark.parametrize("name", ["dino", "sam", "lama", "clip"])
def test_a_wrong_file_is_named(files, tmp_path, name):
    build = builders(files)[name]
    foreign = tmp_path / "foreign.pt"
    torch.save({"some.weight": torch.zeros(3)}, foreign)
    garbage = tmp_path / "garbage.pt"
    garbage.write_bytes(b"<html>404</html>")
    short = tmp_path / "short.pt"
    short.write_bytes(files[name].read_bytes()[:2000])
    for path in (foreign, garbage, short):
        with pytest.raises(WrongWeights, match=path.name):
            build(path)
    with pytest.raises(WeightsMissing, match=r"absent\.pt"):
        build(tmp_path / "absent.pt")


class Evil:
    def __reduce__(self):
        return (print, ("this must not run",))


def test_a_pickle_is_never_run(files, tmp_path, capsys):
    path = tmp_path / "evil.pth"
    torch.save({"model": Evil()}, path)
    for name in ("dino", "sam", "clip"):
        with pytest.raises(WrongWeights, match=r"evil\.pth"):
            builders(files)[name](path)
    assert "must not run" not in capsys.readouterr().out


def test_weights_of_another_size_are_named(files, tmp_path):
    state = torch.load(files["sam"], weights_only=True)
    state["image_encoder.pos_embed"] = torch.zeros(1, 2, 2, 16)
    torch.save(state, tmp_path / "other.pth")
    with pytest.raises(WrongWeights, match=r"other\.pth does not fit SAM tiny"):
        SamSegmenter(tmp_path / "other.pth", variant=TINY_SAM, device="cpu")


class OneInput(torch.nn.Module):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image


class WrongShape(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return mask


def test_torchscript_that_is_not_lama(tmp_path):
    torch.jit.script(OneInput()).save(tmp_path / "one.pt")
    with pytest.raises(WrongWeights, match=r"one\.pt is not LaMa"):
        LamaInpainter(tmp_path / "one.pt", device="cpu")
    torch.jit.script(WrongShape()).save(tmp_path / "shape.pt")
    with pytest.raises(WrongWeights, match=r"shape\.pt is not LaMa"):
        LamaInpainter(tmp_path / "shape.pt", device="cpu").inpaint([picture(0)], holes([picture(0)]))


def test_without_arguments_the_manifest_is_asked(monkeypatch, tmp_path):
    monkeypatch.setenv("IMAGENET_BG_WEIGHTS", str(tmp_path))
    for variable in ("GROUNDINGDINO_WEIGHTS", "SAM_VIT_H", "LAMA_MODEL", "CLIP_VIT_B_16"):
        monkeypatch.delenv(variable, raising=False)
    for build, name in (
        (GroundingDinoSamMasker, "groundingdino"),
        (SamClick, "sam_vit_h"),
        (LamaInpainter, "big_lama"),
        (ClipScorer, "clip_vit_b_16"),
    ):
        with pytest.raises(WeightsMissing, match=name):
            build()


def test_a_folder_that_is_no_bert_is_named(files, tmp_path):
    with pytest.raises(WeightsMissing, match="BERT"):
        GroundingDinoDetector(files["dino"], tmp_path, **SMALL)
    with pytest.raises(ValueError, match="vit_h"):
        SamSegmenter(files["sam"], variant="vit_x", device="cpu")


# Devices


def test_running_out_of_memory_halves_the_batch(caplog):
    sizes, shrunk = [], []

    def fits_three(batch):
        sizes.append(len(batch))
        if len(batch) > 3:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return [10 * item for item in batch]

    with caplog.at_level(logging.WARNING, logger=devices.__name__):
        assert run_in_batches(fits_three, range(9), 8, on_oom=shrunk.append, what="pictures") == list(range(0, 90, 10))
    assert sizes == [8, 4, 2, 2, 2, 2, 1]
    assert shrunk == [4, 2]
    assert "8 pictures at once: going on with 4" in caplog.text


def test_a_single_item_that_does_not_fit_raises():
    def never(batch):
        raise torch.OutOfMemoryError("CUDA out of memory.")

    with pytest.raises(torch.OutOfMemoryError):
        run_in_batches(never, [1, 2, 3], 2)


def test_other_errors_are_not_taken_for_memory():
    calls = []

    def broken(batch):
        calls.append(len(batch))
        raise RuntimeError("sizes differ")

    with pytest.raises(RuntimeError, match="sizes differ"):
        run_in_batches(broken, [1, 2, 3], 3)
    assert calls == [3]
    assert is_out_of_memory(RuntimeError("in the TorchScript interpreter: CUDA out of memory. Tried to allocate"))
    with pytest.raises(ValueError, match="batch size"):
        run_in_batches(broken, [1], 0)
    with pytest.raises(ValueError, match="gave 0 results"):
        run_in_batches(lambda batch: [], [1], 1)
    assert run_in_batches(broken, [], 4) == []


def test_backends_go_on_with_the_smaller_batch(files, monkeypatch):
    lama = LamaInpainter(files["lama"], device="cpu", batch_size=4)
    images = [picture(0)] * 4
    expected = lama.inpaint(images, holes(images))
    sizes = []
    model = lama._model

    def small_memory(pixels, masks):
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise RuntimeError("The following operation failed in the TorchScript interpreter: CUDA out of memory.")
        return model(pixels, masks)

    monkeypatch.setattr(lama, "_model", small_memory)
    for _ in range(2):
        for one, other in zip(lama.inpaint(images, holes(images)), expected, strict=True):
            assert np.abs(one.image.astype(int) - other.image).max() <= 1
    assert sizes == [4, 2, 2, 2, 2]


def test_the_scorer_convolves_in_full_float32(clip, monkeypatch):
    seen = []
    encode = clip._model.encode_image

    def encode_image(images):
        seen.append(torch.backends.cudnn.allow_tf32)
        return encode(images)

    before = torch.backends.cudnn.allow_tf32
    monkeypatch.setattr(clip._model, "encode_image", encode_image)
    clip.score(pairs())
    assert seen == [False]
    with pytest.raises(KeyError), exact_float32():
        raise KeyError
    assert torch.backends.cudnn.allow_tf32 == before


def test_devices_and_precision(monkeypatch):
    cpu = torch.device("cpu")
    assert pick_dtype(cpu) is torch.float32 and pick_dtype(cpu, "bfloat16") is torch.bfloat16
    with pytest.raises(DeviceUnavailable, match="float16"):
        pick_dtype(cpu, "float16")
    with pytest.raises(ValueError, match="half"):
        pick_dtype(cpu, "half")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert pick_device() == cpu
    with pytest.raises(DeviceUnavailable, match="cuda"):
        pick_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert pick_device().type == "cuda"
    for has_bfloat16, dtype in ((True, torch.bfloat16), (False, torch.float16)):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, has=has_bfloat16: has)
        assert pick_dtype(torch.device("cuda")) is dtype
