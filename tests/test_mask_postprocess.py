"""Masks as pixels: cleaning, the published dilation, compositing, area, hashes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from generation.masking.postprocess import (
    area_share,
    binarise,
    clean_mask,
    composite,
    dilate,
    hamming,
    perceptual_hash,
)

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT.parent / "shared" / "conformance" / "public" / "geometry_scripts.npz"

masks = arrays(np.uint8, (24, 32), elements=st.sampled_from([0, 255]))


def blank(height: int = 100, width: int = 100) -> np.ndarray:
    return np.zeros((height, width), np.uint8)


def photo(seed: int, side: int = 96) -> np.ndarray:
    """A smooth random image: something a perceptual hash is made for."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return cv2.resize(coarse, (side, side), interpolation=cv2.INTER_CUBIC)


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    if not GOLDEN.is_file():
        message = f"The golden vectors are not at {GOLDEN}."
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with np.load(GOLDEN, allow_pickle=False) as archive:
        return {name: archive[name] for name in ("dilate.mask_in", "dilate.mask_out")}


def test_dilation_matches_the_published_masks(golden):
    for mask, expected in zip(golden["dilate.mask_in"], golden["dilate.mask_out"], strict=True):
        np.testing.assert_array_equal(dilate(mask), expected)


def test_published_dilation_reaches_further_down_and_right():
    mask = blank()
    mask[50, 40] = 255
    ys, xs = np.nonzero(dilate(mask))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (45, 56, 35, 46)


def test_an_ellipse_of_odd_size_is_symmetric_and_has_no_corners():
    mask = blank()
    mask[50, 50] = 255
    grown = dilate(mask, 15, "ellipse")[43:58, 43:58]
    np.testing.assert_array_equal(grown, grown[::-1, ::-1])
    assert grown[0, 7] == grown[7, 0] == 255
    assert grown[0, 0] == 0


@pytest.mark.parametrize(("size", "shape"), [(0, "square"), (-3, "ellipse"), (12, "round")])
def test_dilation_refuses_what_it_cannot_do(size, shape):
    with pytest.raises(ValueError):
        dilate(blank(), size, shape)


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(1, 15), st.sampled_from(["square", "ellipse"]))
def test_dilation_only_adds(mask, size, shape):
    before = mask.copy()
    grown = dilate(mask, size, shape)
    assert (grown >= mask).all()
    assert np.array_equal(mask, before)


def test_cleaning_drops_blobs_and_fills_small_holes_only():
    mask = blank()
    mask[10:60, 10:60] = 255
    mask[20:24, 20:24] = 0  # a hole of 0.16 %
    mask[30:50, 30:50] = 0  # a hole of 4 %
    mask[80:84, 80:84] = 255  # a blob of 0.16 %
    cleaned = clean_mask(mask, min_component=0.002, fill_holes=0.01)
    expected = mask.copy()
    expected[20:24, 20:24] = 255
    expected[80:84, 80:84] = 0
    np.testing.assert_array_equal(cleaned, expected)


def test_a_notch_at_the_edge_is_not_a_hole():
    mask = blank()
    mask[0:50, 10:60] = 255
    mask[0:3, 30:33] = 0
    np.testing.assert_array_equal(clean_mask(mask), mask)


def test_cleaning_keeps_the_largest_components():
    mask = blank()
    mask[0:10, 0:10] = 255
    mask[0:30, 50:80] = 255
    mask[60:80, 0:20] = 255
    two = clean_mask(mask, keep_components=2)
    assert two[5, 5] == 0
    assert two[10, 60] == two[70, 10] == 255
    with pytest.raises(ValueError):
        clean_mask(mask, keep_components=0)


def test_diagonal_neighbours_are_one_component():
    mask = blank(10, 10)
    mask[2:4, 2:4] = mask[4:6, 4:6] = 255
    assert area_share(clean_mask(mask, min_component=0.08)) == 0.08


def test_empty_and_full_masks_stay_what_they_are():
    np.testing.assert_array_equal(clean_mask(blank()), blank())
    np.testing.assert_array_equal(clean_mask(blank() + 255), blank() + 255)


@settings(max_examples=60, deadline=None)
@given(masks, st.sampled_from([0.0, 0.01, 0.1]), st.sampled_from([None, 1, 3]), st.sampled_from([0.0, 0.01, 0.2]))
def test_cleaning_twice_changes_nothing_more(mask, smallest, count, hole):
    options = {"min_component": smallest, "keep_components": count, "fill_holes": hole}
    once = clean_mask(mask, **options)
    assert set(np.unique(once)) <= {0, 255}
    np.testing.assert_array_equal(clean_mask(once, **options), once)


def test_binarise_reads_greys_like_the_trainer():
    np.testing.assert_array_equal(binarise(np.array([[0, 50, 51, 255]], np.uint8)), [[0, 0, 255, 255]])


@settings(max_examples=40, deadline=None)
@given(masks, st.integers(0, 2**32 - 1))
def test_composite_leaves_the_outside_exactly_alone(mask, seed):
    source, filled = np.random.default_rng(seed).integers(0, 256, (2, 24, 32, 3), dtype=np.uint8)
    result = composite(source, filled, mask)
    np.testing.assert_array_equal(result[mask == 0], source[mask == 0])
    np.testing.assert_array_equal(result[mask == 255], filled[mask == 255])


def test_composite_refuses_another_size():
    image = np.zeros((24, 32, 3), np.uint8)
    with pytest.raises(ValueError, match="Sizes differ"):
        composite(image, image[:16], blank(24, 32))


def test_float_masks_and_grey_images_are_refused():
    with pytest.raises(ValueError, match="uint8 mask"):
        area_share(np.zeros((4, 4)))
    with pytest.raises(ValueError, match="uint8 image"):
        perceptual_hash(blank())


def test_area_is_a_share():
    mask = blank(10, 20)
    mask[:5, :10] = 255
    assert area_share(mask) == 0.25


def test_near_images_have_near_hashes():
    image = photo(1)
    again = cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 60])[1], cv2.IMREAD_COLOR)
    smaller = cv2.resize(image, (64, 64), interpolation=cv2.INTER_AREA)
    own = perceptual_hash(image)
    assert len(own) == 16
    assert hamming(own, perceptual_hash(again)) <= 4
    assert hamming(own, perceptual_hash(smaller)) <= 4
    assert min(hamming(own, perceptual_hash(photo(seed))) for seed in range(2, 12)) >= 14


def test_flat_images_hash_alike_at_any_grey():
    hashes = {perceptual_hash(np.full((50, 70, 3), grey, np.uint8)) for grey in (1, 77, 128, 255)}
    assert hashes == {"8000000000000000"}


def test_hamming_counts_bits():
    assert hamming("0" * 16, "f" * 16) == 64
    assert hamming("8000000000000000", "0000000000000001") == 2
    with pytest.raises(ValueError):
        hamming("00", "0" * 16)


def test_pixel_work_needs_no_torch():
    modules = (
        "generation.masking.postprocess",
        "generation.masking.noop",
        "generation.inpainting.noop",
        "generation.inpainting.telea",
        "generation.inpainting.patchmatch",
        "generation.scoring.noop",
    )
    code = f"import sys, {', '.join(modules)}; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0
