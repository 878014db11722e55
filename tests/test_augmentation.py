"""The training augmentation, texture cells and ID composites: what the golden vectors do not ask."""

from __future__ import annotations

import numpy as np
import pytest

from generation.id_aug import object_area, on_background, score_in_name
from generation.texture import draw_cell, eligible_cells, hole_around_cell
from ospcoop.augmentation import (
    Crop,
    Sample,
    area_range,
    augment,
    crop_of_area,
    draw_crop,
    draw_flip,
    resized_crop,
    visible_share,
)

OOD = 9


def sample(mask):
    image = np.random.default_rng(0).integers(0, 256, (*mask.shape, 3), dtype=np.uint8)
    return Sample(image, mask, 4)


@pytest.fixture
def right_half():
    mask = np.zeros((224, 224), np.uint8)
    mask[:, 112:] = 255
    return mask


def test_crops_are_drawn_from_the_published_areas():
    assert area_range(224) == (4014, 50177)
    rng = np.random.default_rng(0)
    crops = [draw_crop(224, rng) for _ in range(200)]
    assert {(crop.top, crop.left) for crop in crops} == {(0, 0)}
    assert 63 <= min(crop.size for crop in crops) < max(crop.size for crop in crops) <= 224
    moved = [draw_crop(224, rng, random_position=True) for _ in range(200)]
    assert len({crop.top for crop in moved}) > 20
    assert all(crop.top + crop.size <= 224 and crop.left + crop.size <= 224 for crop in moved)
    assert draw_crop(224, np.random.default_rng(5)) == draw_crop(224, np.random.default_rng(5))
    assert 60 < sum(draw_flip(rng) for _ in range(200)) < 140
    assert crop_of_area(10029).size == 100


def test_a_whole_crop_changes_nothing(right_half):
    assert np.array_equal(resized_crop(right_half, Crop(0, 0, 224)), right_half)


def test_visible_share_counts_inside_the_crop(right_half):
    assert visible_share(right_half, Crop(0, 0, 168)) == 168 * 56 / (224 * 112)
    enlarged = visible_share(right_half, Crop(0, 0, 168), as_published=True)
    assert enlarged == pytest.approx((224 * 56 * 224 / 168) / (224 * 112), rel=0.02)
    assert visible_share(right_half, Crop(0, 100, 100), as_published=True) > 1
    assert visible_share(right_half, None) == 1
    for as_published in (False, True):
        assert visible_share(np.zeros((224, 224), np.uint8), None, as_published=as_published) == 0


def test_a_crop_that_cuts_the_object_away_makes_a_background(right_half):
    source = sample(right_half)
    gone = augment(source, crop=Crop(0, 0, 100), flip=False, ood_label=OOD)
    assert gone.label == OOD and not gone.mask.any()
    kept = augment(source, crop=Crop(0, 0, 100), flip=False, ood_label=OOD, relabel=False)
    assert kept.label == 4
    assert source.label == 4 and source.mask is right_half, "the source is not changed"
    # 16 of 112 columns of 128 rows: 8 % of the object by count, but 25 % after enlarging.
    between = Crop(0, 0, 144)
    assert augment(source, crop=between, flip=False, ood_label=OOD).label == OOD
    assert augment(source, crop=between, flip=False, ood_label=OOD, as_published=True).label == 4


def test_image_and_mask_are_flipped_together(right_half):
    source = sample(right_half)
    flipped = augment(source, crop=None, flip=True, ood_label=OOD)
    assert np.array_equal(flipped.image, source.image[:, ::-1])
    assert np.array_equal(flipped.mask, right_half[:, ::-1])
    assert flipped.image.flags.c_contiguous


def test_sizes_are_checked(right_half):
    for image_side, mask in ((200, right_half), (224, right_half[:200])):
        with pytest.raises(ValueError, match="square"):
            faulty = Sample(np.zeros((image_side, 224, 3), np.uint8), mask, 0)
            augment(faulty, crop=None, flip=False, ood_label=OOD)


def test_texture_cells(right_half):
    assert eligible_cells(right_half).reshape(7, 7).sum(0).tolist() == [0, 0, 0, 0, 7, 7, 7]
    right_half[0, 223] = 254
    assert not eligible_cells(right_half)[6]
    drawn = {draw_cell(right_half, np.random.default_rng(seed)) for seed in range(200)}
    assert drawn == set(np.flatnonzero(eligible_cells(right_half)))
    assert draw_cell(np.zeros((224, 224), np.uint8), np.random.default_rng(0)) is None
    with pytest.raises(ValueError, match="do not tile"):
        eligible_cells(np.zeros((225, 224), np.uint8))
    for cell in (-1, 49):
        with pytest.raises(ValueError, match="no cell"):
            hole_around_cell(cell)


def test_holes_keep_one_cell_and_the_published_ones_none_in_the_last_column():
    for cell in range(49):
        assert np.count_nonzero(hole_around_cell(cell) == 0) == 32 * 32
        published = np.count_nonzero(hole_around_cell(cell, as_published=True) == 0)
        assert published == (0 if cell % 7 == 6 else 32 * 32)


def test_composites_take_the_object_by_one_threshold():
    image, background = np.full((4, 4, 3), 200, np.uint8), np.full((7, 9, 3), 10, np.uint8)
    mask = np.array([[0, 1, 50, 51], [255, 0, 0, 0], [0] * 4, [0] * 4], np.uint8)
    corrected, published = (on_background(image, mask, background, as_published=p)[..., 0] for p in (False, True))
    assert (corrected == 200).sum() == 2 and (published == 200).sum() == 4
    assert set(np.unique(corrected)) == {10, 200}
    assert object_area(mask) == 2 / 16 and object_area(mask, as_published=True) == 4 / 16
    with pytest.raises(ValueError, match="Sizes differ"):
        on_background(image, mask[:2], background)


@pytest.mark.parametrize(
    ("name", "score"),
    [
        ("n01440764_10026.png", None),
        ("n01440764_10026_5.87.JPEG", 5.87),
        ("some/folder/n01440764_10026_-3.25.JPEG", -3.25),
        ("n01440764_10026_4.JPEG", 4.0),
        ("n01440764_10026_1e-05.JPEG", 1e-5),
        ("n01440764_10026_x.png", None),
    ],
)
def test_scores_in_names_are_read_whole(name, score):
    assert score_in_name(name) == score
