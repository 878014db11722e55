"""geometry_scripts and augmentation: masks, crops, texture cells and composites."""

from __future__ import annotations

import numpy as np
import PIL

from generation.id_aug import (
    MIN_OBJECT_AREA,
    MIN_SIMILARITY,
    object_area,
    on_background,
    score_in_name,
)
from generation.masking.postprocess import dilate
from generation.texture import eligible_cells, hole_around_cell
from ospcoop.augmentation import (
    MASK_THRESHOLD,
    Crop,
    Sample,
    augment,
    crop_of_area,
    resized_crop,
    threshold_mask,
    visible_share,
)
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.clip.scores import image_similarity
from ospcoop.conformance.vectors import Vectors

CHECKSUM_PILLOW = "12.3"
CHECKSUM_MODULUS = 1000003
SMALL_STEP = 16
ID_PLAIN, ID_MASKED = 0, 1


def check_geometry(vectors: Vectors) -> None:
    """Texture cells and the dilated mask (geometry_scripts.npz)."""
    with vectors.case("texture"):
        masks = vectors.input("texture.masks")
        vectors.check("texture.eligible", np.stack([eligible_cells(mask) for mask in masks]))
        side = masks.shape[-1]
        for name, as_published in (("texture.lama_mask", True), ("texture.lama_mask_fixed", False)):
            cells = range(len(eligible_cells(masks[0])))
            vectors.check(name, np.stack([hole_around_cell(cell, side, as_published=as_published) for cell in cells]))
    with vectors.case("dilate"):
        vectors.check("dilate.mask_out", np.stack([dilate(mask) for mask in vectors.input("dilate.mask_in")]))


def check_augmentation(vectors: Vectors, model: OpenClipModel) -> None:
    """Crops, whole training samples and ID composites (augmentation.npz)."""
    with vectors.case("crop"):
        _check_crop(vectors)
    with vectors.case("ds"):
        _check_samples(vectors)
    with vectors.case("idaug"):
        _check_composites(vectors, model)
    with vectors.case("idaug.parse_score"):
        _check_names(vectors)


def _check_crop(vectors: Vectors) -> None:
    image, mask = vectors.input("crop.image"), vectors.input("crop.mask")
    crops = [crop_of_area(int(area)) for area in vectors.input("crop.target_area")]
    vectors.check("crop.box", [[crop.top, crop.left, crop.size, crop.size] for crop in crops])
    vectors.check_levels("crop.image_out", np.stack([resized_crop(image, crop) for crop in crops]))
    grey = np.stack([resized_crop(mask, crop) for crop in crops])
    vectors.check_levels("crop.mask_out", grey)
    near = np.abs(grey.astype(int) - MASK_THRESHOLD) <= 1

    def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
        wrong = int(np.count_nonzero((got != expected) & ~near))
        return float(wrong), wrong == 0, "pixels away from the threshold"

    vectors.check_with("crop.mask_thresholded", threshold_mask(grey), "exact", judge)


def _check_samples(vectors: Vectors) -> None:
    images, masks = vectors.input("ds.images"), vectors.input("ds.masks")
    label = int(vectors.input("ds.label_in"))
    tests = vectors.input("ds.tests").tolist()
    # The OOD label is not stored; -1 stands for it, and for every returned label that is not the source's.
    samples, shares = [], []
    for domain, index, cropped, area, flip in tests:
        mask = masks[index]
        if domain != ID_MASKED:
            mask = np.full_like(mask, 255 if domain == ID_PLAIN else 0)
        crop: Crop | None = crop_of_area(area) if cropped and area and domain != ID_PLAIN else None
        sample = Sample(images[index], mask, label)
        done = augment(sample, crop=crop, flip=bool(flip), ood_label=-1, relabel=domain == ID_MASKED, as_published=True)
        samples.append(done)
        share = visible_share(mask, crop, as_published=True) if done.label == label else 0.0
        shares.append(share if domain == ID_MASKED else np.nan)

    def judge_labels(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
        others = np.unique(expected[expected != label])
        wrong = int(np.count_nonzero((got == label) != (expected == label)))
        return float(wrong), wrong == 0 and len(others) <= 1, ""

    vectors.check_with("ds.label_out", [one.label for one in samples], "exact", judge_labels)
    vectors.check_share("ds.mask_out", np.stack([one.mask for one in samples]), 1e-3)
    vectors.check_levels("ds.image_out_small", np.stack([one.image[::SMALL_STEP, ::SMALL_STEP] for one in samples]))
    vectors.check("ds.visible_share", shares, rel=1e-3)
    checksums = [_checksum(one.image) for one in samples]
    matches = checksums == vectors.input("ds.image_out_checksum").tolist()
    same_pillow = PIL.__version__.startswith(CHECKSUM_PILLOW)
    if matches or same_pillow:
        vectors.check("ds.image_out_checksum", checksums)
    else:
        note = f"stands for Pillow {CHECKSUM_PILLOW}, this is {PIL.__version__}: see ds.image_out_small"
        vectors.note("ds.image_out_checksum", True, note)


def _checksum(image: np.ndarray) -> list[int]:
    flat = image.astype(np.int64).ravel()
    return [int(flat.sum()), int((flat * np.arange(1, len(flat) + 1) % CHECKSUM_MODULUS).sum())]


def _check_composites(vectors: Vectors, model: OpenClipModel) -> None:
    images, masks = vectors.input("idaug.image"), vectors.input("idaug.mask")
    areas = [object_area(mask, as_published=True) for mask in masks]
    produced = np.array([area >= MIN_OBJECT_AREA for area in areas])
    results, similarities = np.zeros_like(images), np.full(len(images), np.nan)
    for index, (image, mask) in enumerate(zip(images, masks, strict=True)):
        background = vectors.input(f"idaug.background_{index}")
        if produced[index]:
            results[index] = on_background(image, mask, background, as_published=True)
            similarities[index] = image_similarity(model, image, results[index], as_published=True)
    vectors.check("idaug.area_ratio", areas, rel=1e-12)
    vectors.check("idaug.produced", produced)

    def judge(got: np.ndarray, expected: np.ndarray) -> tuple[float, bool, str]:
        error = np.abs(got.astype(int) - expected.astype(int))
        return float(error.max()), error.max() <= 1 and not error[masks > 0].any(), ""

    vectors.check_with("idaug.result", results, "exact inside, 1 level outside", judge)
    vectors.check("idaug.similarity_tiny", similarities, abs=1e-4)
    vectors.check("idaug.accepted_tiny", produced & (np.nan_to_num(similarities, nan=-1.0) >= MIN_SIMILARITY))


def _check_names(vectors: Vectors) -> None:
    """The reference's parser takes ids for scores and cuts the fraction; ours is held to what the name says."""
    names, published = vectors.strings("idaug.parse_score_in"), vectors.input("idaug.parse_score_out")
    fits = True
    for name, number in zip(names, published.tolist(), strict=True):
        field = name.rsplit(".", 1)[0].split("_")[2:]
        score = score_in_name(name)
        fits &= (score is None) == (not field or field[0] == "x")
        fits &= score is None or int(score) == number
    vectors.note("idaug.parse_score_out", fits, "quirk, not copied: ours keeps the fraction, and an id is no score")
