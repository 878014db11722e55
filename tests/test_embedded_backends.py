"""The embedded backends on real photos with their real weights: what they find, remove and measure."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from generation.classes import load_imagenet_classes
from generation.inpainting.patchmatch import PatchMatchInpainter
from generation.inpainting.telea import TeleaInpainter
from generation.masking.embedded_cam import EmbeddedCamMasker
from generation.masking.postprocess import area_share, composite, dilate
from generation.protocols import MaskRequest, ScoreRequest, SecondLook
from generation.registry import REGISTRIES
from generation.scoring.embedded_dual import EmbeddedDualScorer
from ospcoop.clip.efficientnet import load_efficientnet_lite0, to_input
from ospcoop.clip.embedded import PROMPT_TEMPLATE, EmbeddedDualEncoder

PHOTOS = sorted((Path(find_spec("foolbox").origin).parent / "data").glob("imagenet_*.jpg"))
BULLMASTIFF, BOTTLE_CAP, SHOE = 0, 9, 11


@pytest.fixture(scope="module", autouse=True)
def one_torch_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def request(number: int, size: tuple[int, int] = (224, 224)) -> MaskRequest:
    image = Image.open(PHOTOS[number]).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    index = int(PHOTOS[number].stem.split("_")[-1])
    return MaskRequest(np.asarray(image).copy(), index, load_imagenet_classes().names[index])


@pytest.fixture(scope="module")
def masker() -> EmbeddedCamMasker:
    return EmbeddedCamMasker()


@pytest.fixture(scope="module")
def cache_dir(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("text")


@pytest.fixture(scope="module")
def scorer(cache_dir) -> EmbeddedDualScorer:
    def refuse(*_):
        raise AssertionError("The embedded backends must not use the network.")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", refuse)
        return EmbeddedDualScorer(cache_dir=cache_dir)


@pytest.fixture(scope="module")
def encoder(scorer, cache_dir) -> EmbeddedDualEncoder:
    return EmbeddedDualEncoder(load_imagenet_classes().names, cache_dir=cache_dir)


@pytest.fixture(scope="module")
def removals(masker) -> list[tuple[MaskRequest, np.ndarray, np.ndarray]]:
    """Request, dilated mask and candidate of three photos."""
    requests = [request(number) for number in (BULLMASTIFF, BOTTLE_CAP, SHOE)]
    holes = [dilate(proposal.mask, 15, "ellipse") for proposal in masker.propose(requests)]
    answers = PatchMatchInpainter().inpaint([one.image for one in requests], holes)
    return [
        (one, hole, composite(one.image, answer.image, hole))
        for one, hole, answer in zip(requests, holes, answers, strict=True)
    ]


# the masker


def test_the_masker_finds_the_object_where_it_is(masker):
    proposal = masker.propose([request(BOTTLE_CAP)])[0]
    assert 0.4 < area_share(proposal.mask) < 0.65
    assert (proposal.mask[60:180, 60:160] == 255).all()
    assert (proposal.mask[:20] == 0).all()


def test_a_mask_is_binary_and_its_boxes_enclose_it(masker):
    goose = request(15)
    proposal = masker.propose([goose])[0]
    assert proposal.mask.dtype == np.uint8
    assert set(np.unique(proposal.mask)) == {0, 255}
    assert len(proposal.boxes) > 1
    covered = np.zeros_like(proposal.mask)
    for box in proposal.boxes:
        assert box.phrase == "goose"
        assert 0 <= box.confidence <= 1
        covered[box.y0 : box.y1, box.x0 : box.x1] = 255
    assert (covered >= proposal.mask).all()
    json.dumps([asdict(box) for box in proposal.boxes])


def test_a_batch_equals_its_images_and_threads_do_not_meet(masker):
    requests = [request(number) for number in (BULLMASTIFF, BOTTLE_CAP, SHOE)]
    images = [one.image.copy() for one in requests]
    alone = [masker.propose([one])[0] for one in requests]
    with ThreadPoolExecutor(3) as pool:
        threaded = list(pool.map(lambda one: masker.propose([one])[0], requests))
    for answers in (masker.propose(requests), threaded):
        for answer, expected in zip(answers, alone, strict=True):
            np.testing.assert_array_equal(answer.mask, expected.mask)
            assert answer.boxes == expected.boxes
    for one, image in zip(requests, images, strict=True):
        np.testing.assert_array_equal(one.image, image)


def test_any_size_goes_in_and_the_same_size_comes_out(masker):
    small = masker.propose([request(BULLMASTIFF)])[0]
    large = masker.propose([request(BULLMASTIFF, (500, 375))])[0]
    assert large.mask.shape == (375, 500)
    assert abs(area_share(large.mask) - area_share(small.mask)) < 0.03
    assert large.boxes[0].x1 <= 500


def test_flat_images_do_not_break_the_masker(masker):
    for grey in (0, 255):
        proposal = masker.propose([MaskRequest(np.full((64, 64, 3), grey, np.uint8), 0, "tench")])[0]
        assert proposal.mask.shape == (64, 64)


@pytest.mark.parametrize("level", [0.0, 0.2, 0.5])
def test_a_map_without_foreground_or_background_is_no_detection(masker, level):
    evidence = np.full((224, 224), level, np.float32)
    assert not masker._cut_out(request(BULLMASTIFF).image, evidence).any()


def test_levels_out_of_order_are_refused():
    with pytest.raises(ValueError, match="must rise"):
        EmbeddedCamMasker(certain_background=0.5)


def test_the_second_look_sees_an_object_left_behind(masker):
    cap = request(BOTTLE_CAP)
    part = masker.propose([cap])[0].mask
    part[:, :112] = 0
    left = composite(cap.image, np.full_like(cap.image, 200), part)
    enlarged = masker.second_look(cap, part, left)
    assert isinstance(masker, SecondLook)
    assert (enlarged >= part).all()
    assert area_share(enlarged) > area_share(part) + 0.02


def test_the_second_look_is_content_when_the_object_is_gone(masker, removals):
    one, hole, candidate = removals[2]
    assert masker.second_look(one, hole, candidate) is None


def test_the_second_look_has_nothing_to_add_to_a_full_mask(masker):
    cap = request(BOTTLE_CAP)
    assert masker.second_look(cap, np.full((224, 224), 255, np.uint8), cap.image) is None


def test_less_evidence_helps_and_more_does_not(masker, removals):
    one, _, candidate = removals[0]
    assert masker.second_look_helped(one, one.image, candidate)
    assert not masker.second_look_helped(one, candidate, one.image)
    assert not masker.second_look_helped(one, candidate, candidate)


# the inpainters


@pytest.mark.parametrize("inpainter", [PatchMatchInpainter(), TeleaInpainter()], ids=["patchmatch", "telea"])
def test_filling_is_repeatable_and_touches_the_hole_only(inpainter):
    image = request(BULLMASTIFF, (96, 80)).image
    hole = np.zeros((80, 96), np.uint8)
    hole[20:50, 30:70] = 255
    before = image.copy()
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(lambda _: inpainter.inpaint([image], [hole])[0], range(2))
    np.testing.assert_array_equal(first.image, second.image)
    np.testing.assert_array_equal(first.image[hole == 0], image[hole == 0])
    np.testing.assert_array_equal(image, before)
    assert first.image.dtype == np.uint8
    assert (first.image[hole == 255] != image[hole == 255]).any()
    assert not first.notes
    np.testing.assert_array_equal(inpainter.inpaint([image], [np.zeros_like(hole)])[0].image, image)


def test_a_hole_that_leaves_no_patch_falls_back_and_says_so():
    image = request(BULLMASTIFF).image
    hole = np.full((224, 224), 255, np.uint8)
    hole[:, 220:] = 0
    answer = PatchMatchInpainter().inpaint([image], [hole])[0]
    assert answer.notes == {"fallback": "telea"}
    np.testing.assert_array_equal(answer.image, TeleaInpainter().inpaint([image], [hole])[0].image)
    assert (answer.image != image).any()


@pytest.mark.parametrize("inpainter", [PatchMatchInpainter(), TeleaInpainter()], ids=["patchmatch", "telea"])
def test_a_hole_without_an_edge_never_gives_the_object_back(inpainter):
    image = request(BULLMASTIFF).image
    answer = inpainter.inpaint([image], [np.full((224, 224), 255, np.uint8)])[0]
    assert answer.notes == {"fallback": "mean_colour"}
    assert np.ptp(answer.image, axis=(0, 1)).tolist() == [0, 0, 0]


def test_a_wrong_size_is_an_error_and_not_a_fallback():
    with pytest.raises(ValueError, match="Sizes differ"):
        PatchMatchInpainter().inpaint([np.zeros((32, 32, 3), np.uint8)], [np.zeros((16, 32), np.uint8)])
    with pytest.raises(ValueError, match="odd"):
        PatchMatchInpainter(patch_size=6)


# the scorer


def test_removing_the_object_drops_the_logit(scorer, removals):
    for one, _, candidate in removals:
        score = scorer.score([ScoreRequest(one.image, candidate, one.class_index)])[0]
        assert score.drop > 3
        assert score.rank > 5
        assert score.probability < 0.05
        untouched = scorer.score([ScoreRequest(one.image, one.image, one.class_index)])[0]
        assert untouched.drop == 0
        assert untouched.residual > score.residual
        assert untouched.rank == 1


def test_scores_do_not_depend_on_the_batch(scorer, removals):
    requests = [ScoreRequest(one.image, candidate, one.class_index) for one, _, candidate in removals]
    assert scorer.score(requests) == [scorer.score([one])[0] for one in requests]


def test_the_logit_is_the_scaled_cosine_with_the_prompt(scorer, encoder, removals):
    one, _, candidate = removals[0]
    score = scorer.score([ScoreRequest(one.image, candidate, one.class_index)])[0]
    images, _ = encoder.encode_image([one.image, candidate])
    text = encoder.encode_text([PROMPT_TEMPLATE.format(one.class_name)])
    expected = encoder.logit_scale * (images @ text.T)[:, 0]
    assert [score.logit_source, score.logit_candidate] == pytest.approx(expected.tolist(), abs=1e-3)


# the dual encoder


def test_the_towers_are_aligned(encoder):
    requests = [request(number) for number in range(20)]
    images, local = encoder.encode_image([one.image for one in requests])
    assert images.shape == (20, 1280)
    assert local.shape == (20, 49, 1280)
    assert encoder.class_features.shape == (1000, 1280)
    torch.testing.assert_close(images.norm(dim=1), torch.ones(20))
    best = (images @ encoder.class_features.T).argmax(1)
    right = sum(int(guess) == one.class_index for guess, one in zip(best, requests, strict=True))
    assert right >= 15


def test_local_features_are_the_map_whose_mean_is_the_global(encoder):
    pixels = encoder.preprocess(request(SHOE).image)
    images, local = encoder.encode_image(pixels[None])
    torch.testing.assert_close(torch.nn.functional.normalize(local.mean(1), dim=-1), images)
    final = load_efficientnet_lite0().features(pixels).final
    torch.testing.assert_close(local[0, 7 * 2 + 5], final[:, 2, 5])


def test_images_do_not_depend_on_the_batch(encoder):
    images = [request(number).image for number in (BULLMASTIFF, SHOE)]
    together, _ = encoder.encode_image(images)
    assert torch.equal(together[1], encoder.encode_image(images[1:])[0][0])
    assert encoder.encode_image([])[0].shape == (0, 1280)


def test_gradients_reach_every_context_vector(encoder):
    token_ids, attention_mask = encoder.tokenize(["a photo of a goose", "a photo of a thatched roof in the rain"])
    embeddings = encoder.embed_tokens(token_ids).clone().requires_grad_()
    features = encoder.encode_token_embeddings(embeddings, attention_mask)
    torch.testing.assert_close(features.norm(dim=1), torch.ones(2))
    features[:, 0].sum().backward()
    reached = embeddings.grad.abs().sum(-1) > 0
    assert torch.equal(reached, attention_mask.bool())


def test_class_embeddings_come_from_the_cache_or_are_made_anew(encoder, cache_dir, monkeypatch):
    names = load_imagenet_classes().names
    (path,) = cache_dir.iterdir()
    embeddings = encoder._anchors.clone()
    monkeypatch.setattr(EmbeddedDualEncoder, "_embed_sentences", lambda *_: embeddings.clone())
    for damage in (b"", b"PK\x03\x04 not really", path.read_bytes()[:5000]):
        path.write_bytes(damage)
        repaired = EmbeddedDualEncoder(names, cache_dir=cache_dir)
        assert torch.equal(repaired.class_features, encoder.class_features)
    monkeypatch.setattr(EmbeddedDualEncoder, "_embed_sentences", lambda *_: pytest.fail("The cache was not used."))
    assert torch.equal(EmbeddedDualEncoder(names, cache_dir=cache_dir).class_features, encoder.class_features)
    assert list(cache_dir.iterdir()) == [path]


def test_the_encoder_wants_the_thousand_classes():
    with pytest.raises(ValueError, match="1000 class names"):
        EmbeddedDualEncoder(["goose"])


def test_only_colour_bytes_go_in():
    with pytest.raises(ValueError, match="uint8 image"):
        to_input(np.zeros((8, 8), np.uint8))


# all of them


@pytest.mark.parametrize("stage", ["masker", "inpainter"])
def test_every_registered_backend_loads_and_records_itself(stage):
    for name, entry in REGISTRIES[stage].items():
        if entry.grade != "paper":
            record = entry.load().fingerprint()
            assert record["name"] == name
            assert record["grade"] == entry.grade
            assert json.loads(json.dumps(record)) == record


def test_weights_are_in_the_record(masker, scorer):
    record = scorer.fingerprint()
    assert json.loads(json.dumps(record)) == record
    assert (record["name"], record["grade"], record["logit_scale"]) == ("embedded_dual", "embedded", 34.0)
    checksum = record["weights_sha256"]["efficientnet-lite0-57934424.pth"]
    assert checksum.startswith("57934424")
    assert masker.fingerprint()["weights_sha256"] == {"efficientnet-lite0-57934424.pth": checksum}


def test_the_benchmark_backends_agree_with_the_protocols():
    one = request(BULLMASTIFF, (60, 40))
    proposal = REGISTRIES["masker"]["noop"].load().propose([one])[0]
    assert area_share(proposal.mask) == 0.25
    filled = REGISTRIES["inpainter"]["noop"].load().inpaint([one.image], [proposal.mask])[0].image
    np.testing.assert_array_equal(filled[proposal.mask == 0], one.image[proposal.mask == 0])
    flat = np.zeros((10, 10, 3), np.uint8)
    half = flat.copy()
    half[:5] = 255
    score = REGISTRIES["scorer"]["noop"].load().score([ScoreRequest(flat, half, 0)])[0]
    assert (score.logit_source, score.drop, score.residual) == (10.0, 5.0, 5.0)
