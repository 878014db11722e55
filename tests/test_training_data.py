"""What goes into a training: samples, labels and masks by the published rules, batches, crops, what is held out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from sqlalchemy import select, update
from sqlalchemy.orm import joinedload

from db.models import Candidate, ImageClass, Kind, SourceImage, Split
from db.progress import NoProgress
from db.training_guard import ValInTraining
from db.training_queries import training_candidates
from db.workspace import open_workspace
from generation.sources import open_source
from ospcoop.augmentation import threshold_mask
from ospcoop.batches import TrainingBatches, mirror_patches
from ospcoop.data import Domain, NoTrainingData, training_set
from ospcoop.features import FeatureCache
from ospcoop.images import UnreadableFile, read_mask
from ospcoop.losses import select_patches
from ospcoop.options import OptionError, TrainingOptions
from tests.train_photos import INDEX, LARGE_A, LARGE_B, candidates
from tests.training_material import CLASSES, chosen, make_material, read_set, tiny_encoder


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    return make_material(tmp_path_factory.mktemp("material"))


@pytest.fixture
def workspace(material, tmp_path):
    shutil.copytree(material, tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


LARGE = {INDEX[LARGE_A], INDEX[LARGE_B]}


def test_the_published_rules_say_what_is_what(workspace):
    data = read_set(workspace, TrainingOptions())
    by_kind = Counter(sample.kind for sample in data.samples)
    assert by_kind["id"] == 16 and by_kind["background"] == 8 and by_kind["texture"] > 0 and not by_kind["id_aug"]
    for sample in data.samples:
        if sample.kind == "id":
            assert sample.label == sample.class_index
            # Only the large objects' removal changed enough of the image to be usable.
            assert sample.domain is (Domain.MASKED if sample.class_index in LARGE else Domain.WHOLE)
        else:
            assert sample.label == CLASSES and sample.domain is Domain.BACKGROUND
    assert len(data.classes) == CLASSES and not data.crops and not data.held_out
    summary = data.summary()
    assert summary["kinds"] == dict(by_kind) and summary["without_mask"] == 8
    assert sum(sum(counts.values()) for counts in summary["by_class"].values()) == len(data.samples)
    assert summary["left_out"] == {"background: drop not above 5": 8}


def test_masks_and_images_are_those_of_the_files(workspace):
    data = read_set(workspace, TrainingOptions())
    one = next(sample for sample in data.samples if sample.domain is Domain.MASKED)
    raw = np.asarray(Image.open(one.mask_file.parent / "raw.png"))
    assert np.array_equal(one.image.open(), raw), "the photo at 224 is what the candidate was made from"
    assert one.mask()[:160, :192].min() == 255 and one.mask()[161:].max() == 0
    whole = next(sample for sample in data.samples if sample.domain is Domain.WHOLE)
    background = next(sample for sample in data.samples if sample.kind == "background")
    assert whole.mask().min() == 255 and background.mask().max() == 0
    assert background.image.open().shape == (224, 224, 3)


def test_native_candidates_are_squashed_with_their_masks(workspace, tmp_path):
    mask = np.zeros((300, 448), np.uint8)
    mask[:, :224] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    squashed = read_mask(tmp_path / "mask.png")
    assert squashed.shape == (224, 224)
    assert (threshold_mask(squashed) == 255).mean() == pytest.approx(0.5, abs=0.01)
    (tmp_path / "mask.png").write_bytes(b"no picture")
    with pytest.raises(UnreadableFile, match=r"mask\.png"):
        read_mask(tmp_path / "mask.png")


@pytest.mark.parametrize("objective", ["coop", "locoop"])
def test_coop_and_locoop_take_the_photos_alone(workspace, objective):
    data = read_set(workspace, TrainingOptions(objective=objective), chosen(workspace, id_augs=True))
    assert data.summary()["kinds"] == {"id": 16} and not data.crops


def test_id_augmentations_bring_their_photos_label_mask_and_the_crop(workspace):
    data = read_set(workspace, TrainingOptions(), chosen(workspace, id_augs=True))
    augmented = [sample for sample in data.samples if sample.kind == "id_aug"]
    made = candidates(workspace, Kind.ID_AUG)
    assert data.crops and len(made) > 0
    results = {one.result_sha256 for one in made}
    composites = [sample for sample in augmented if sample.image.sha256 in results]
    assert len(composites) == len(made)
    assert all(s.label == s.class_index and s.domain is Domain.MASKED for s in composites)
    shown_again = [sample for sample in augmented if sample.image.sha256 not in results]
    photos = {sample.image.key for sample in data.samples if sample.kind == "id"}
    assert shown_again and {sample.image.key for sample in shown_again} <= photos


def test_the_hash_covers_every_sample_and_the_classes(workspace):
    first = read_set(workspace, TrainingOptions())
    assert read_set(workspace, TrainingOptions(seed=9)).sha256 == first.sha256
    assert read_set(workspace, TrainingOptions(min_drop=7.5)).sha256 != first.sha256
    assert read_set(workspace, TrainingOptions(all_classes=True)).sha256 != first.sha256
    with workspace.write() as session:
        session.execute(update(ImageClass).where(ImageClass.class_index == 2).values(name="another name"))
    assert read_set(workspace, TrainingOptions()).sha256 != first.sha256


def test_all_classes_get_a_prompt_where_asked_for(workspace):
    data = read_set(workspace, TrainingOptions(all_classes=True))
    assert len(data.classes) == 1000
    assert {sample.label for sample in data.samples if sample.kind == "background"} == {1000}


def test_val_photos_never_train(workspace):
    with workspace.write() as session:
        session.execute(update(SourceImage).where(SourceImage.id == 3).values(split=Split.VAL))
    with pytest.raises(ValInTraining, match="val"):
        read_set(workspace, TrainingOptions())


def test_what_is_missing_is_said(workspace, tmp_path):
    with pytest.raises(NoTrainingData, match="no few-shot set 7"):
        chosen(workspace, fewshot_set=7)
    empty = open_workspace(tmp_path / "empty")
    with pytest.raises(NoTrainingData, match="sample one"):
        chosen(empty)
    empty.close()
    with workspace.read() as session:
        found = training_candidates(session, 1, background_recipe_id=chosen(workspace).background_recipe)
    with pytest.raises(NoTrainingData, match="photos of 1 class"):
        training_set(workspace, replace(found, sources=found.sources[:4]), TrainingOptions(), open_source)


def test_held_out_photos_take_all_that_was_made_of_them_along(workspace):
    options = TrainingOptions(selection="held_out", held_out_share=0.2)
    data = read_set(workspace, options, chosen(workspace, id_augs=True))
    held_photos = {sample.name for sample in data.held_out}
    assert len(held_photos) == 3
    assert Counter(sample.kind for sample in data.held_out) == {"id": 3, "background": 3}
    assert not held_photos & {sample.name for sample in data.samples}
    # An id_aug of another photo may show a held-out photo's background.
    grounds = {one.id: one.source.name for one in with_sources(workspace)}
    shown = {one.result_sha256: grounds[one.details["background_candidate_id"]] for one in id_augs(workspace)}
    trained = [shown[sample.image.sha256] for sample in data.samples if sample.image.sha256 in shown]
    assert set(shown.values()) & held_photos and not set(trained) & held_photos
    assert {sample.class_index for sample in data.samples if sample.kind == "id"} == set(range(CLASSES))
    assert data.sha256 != read_set(workspace, TrainingOptions(), chosen(workspace, id_augs=True)).sha256
    assert read_set(workspace, options).held_out != read_set(workspace, replace(options, seed=2)).held_out


def with_sources(workspace):
    with workspace.read() as session:
        query = select(Candidate).where(Candidate.kind == Kind.BACKGROUND).options(joinedload(Candidate.source))
        return list(session.scalars(query))


def id_augs(workspace):
    return candidates(workspace, Kind.ID_AUG)


def test_nothing_to_hold_out_is_said(workspace):
    with pytest.raises(NoTrainingData, match="held out"):
        read_set(workspace, TrainingOptions(selection="held_out", min_drop=100))


def make_batches(workspace, options, choice=None, *, local=True):
    data = read_set(workspace, options, choice)
    cache = FeatureCache(workspace.root, tiny_encoder())
    return data, TrainingBatches(data, tiny_encoder(), cache, options, NoProgress(), local=local)


def test_an_epoch_is_everything_once_but_the_last_smaller_batch(workspace):
    data, made = make_batches(workspace, TrainingOptions(batch_size=10))
    total = len(data.samples)
    found = list(made.epoch(torch.Generator().manual_seed(0)))
    assert made.steps == len(found) == total // 10
    assert all(len(batch.label) == 10 for batch in found)
    assert list(Counter(torch.cat([batch.label for batch in found]).tolist())) != [0]
    _, single = make_batches(workspace, TrainingOptions(batch_size=1000))
    (whole,) = single.epoch(torch.Generator().manual_seed(0))
    assert sorted(whole.label.tolist()) == sorted(sample.label for sample in data.samples)


def test_the_generator_decides_order_and_flips(workspace):
    _, made = make_batches(workspace, TrainingOptions(batch_size=8))

    def drawn(seed):
        return [batch.whole for batch in made.epoch(torch.Generator().manual_seed(seed))]

    first, again, other = drawn(0), drawn(0), drawn(1)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_a_batch_is_what_the_pixels_would_have_given(workspace):
    """Image and mask flipped together, the patches counted on the flipped mask: the way without a cache."""
    data, made = make_batches(workspace, TrainingOptions(batch_size=1000))
    (batch,) = made.epoch(torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(len(data.samples), generator=generator)
    flips = torch.rand(len(data.samples), generator=generator) < 0.5
    assert 0 < flips.sum() < len(flips)
    for place, number in enumerate(order.tolist()):
        sample, flip = data.samples[number], bool(flips[number])
        turn = slice(None, None, -1 if flip else 1)
        image, mask = sample.image.open()[:, turn].copy(), threshold_mask(sample.mask()[:, turn]).copy()
        whole, local = tiny_encoder().encode_image([image])
        assert torch.allclose(batch.whole[place], whole[0], atol=1e-5)
        assert torch.allclose(batch.local[place], local[0], atol=1e-5)
        is_ood = torch.tensor([sample.label == CLASSES])
        assert torch.equal(batch.selected[place], select_patches(torch.from_numpy(mask)[None], is_ood, 16)[0])
        assert batch.label[place] == sample.label


def test_mirrored_patches_are_those_of_the_mirrored_mask():
    mask = torch.zeros(1, 224, 224, dtype=torch.uint8)
    mask[0, :112, :70] = 255
    inside = torch.tensor([False])
    straight, mirrored = (select_patches(one, inside, 16) for one in (mask, mask.flip(2)))
    assert not torch.equal(straight, mirrored)
    assert torch.equal(mirror_patches(straight), mirrored)


def test_without_local_terms_no_local_feature_is_computed_or_stored(workspace):
    _, made = make_batches(workspace, TrainingOptions(objective="coop", batch_size=4), local=False)
    batch = next(made.epoch(torch.Generator()))
    assert batch.local is None and batch.selected is None
    assert not list(FeatureCache(workspace.root, tiny_encoder()).folder.glob("*.local.npy"))


def test_crops_touch_masked_and_background_images_only(workspace):
    data = read_set(workspace, TrainingOptions(), chosen(workspace, id_augs=True))
    opened: list[str] = []
    tracked = tuple(
        replace(s, image=replace(s.image, open=lambda s=s: opened.append(s.image.key) or s.image.open()))
        for s in data.samples
    )
    data = replace(data, samples=tracked)
    options = TrainingOptions(batch_size=1000)
    made = TrainingBatches(data, tiny_encoder(), FeatureCache(workspace.root, tiny_encoder()), options, NoProgress())
    whole_photos = {s.image.key for s in data.samples if s.domain is Domain.WHOLE}
    assert set(opened) == whole_photos
    opened.clear()
    generator = torch.Generator().manual_seed(0)
    (first,), (second,) = list(made.epoch(generator)), list(made.epoch(generator))
    cropped = [s for s in data.samples if s.domain is not Domain.WHOLE]
    assert Counter(opened) == Counter([s.image.key for s in cropped] * 2)
    assert not torch.equal(first.whole.sort(0).values, second.whole.sort(0).values), "each epoch crops anew"
    (again,) = made.epoch(torch.Generator().manual_seed(0))
    assert torch.equal(first.whole, again.whole) and torch.equal(first.selected, again.selected)
    ood = first.label == CLASSES
    assert int(ood.sum()) >= sum(s.label == CLASSES for s in data.samples)
    assert first.selected[ood].all()


def test_a_crop_that_loses_the_object_makes_the_image_background(workspace):
    """With the smallest crops, far from the object's corner, every masked photo is relabelled."""
    choice = chosen(workspace, id_augs=True)
    _, kept = make_batches(workspace, TrainingOptions(batch_size=1000, min_visible=0.0), choice)
    data, lost = make_batches(workspace, TrainingOptions(batch_size=1000, min_visible=1.0), choice)
    (kept_batch,), (lost_batch,) = (list(one.epoch(torch.Generator().manual_seed(5))) for one in (kept, lost))
    background = sum(sample.label == CLASSES for sample in data.samples)
    assert int((kept_batch.label == CLASSES).sum()) == background
    assert int((lost_batch.label == CLASSES).sum()) > background
    assert torch.equal(kept_batch.whole, lost_batch.whole), "only labels and masks depend on it"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be at least 1"),
        ({"lr": 0.0}, "lr must be above 0"),
        ({"objective": "tip"}, "objective is one of ospcoop, coop, locoop"),
        ({"precision": "float8"}, "precision is one of"),
        ({"held_out_share": 1.0}, "held_out_share"),
        ({"min_visible": 1.5}, "min_visible"),
        ({"seed": -1}, "seed must be 0 or more"),
    ],
)
def test_options_out_of_range_are_named(values, message):
    with pytest.raises(OptionError, match=message):
        TrainingOptions(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "Unknown training option: epoch"),
        ({"epochs": "3"}, "epochs is a str"),
        ({"epochs": True}, "epochs is a bool"),
        ({"class_specific": "no"}, "class_specific is a str"),
        ({"lr": None}, "lr is a NoneType"),
        ({"locoop_rank": 1.5}, "locoop_rank is a float"),
    ],
)
def test_options_from_json_are_checked_for_name_and_type(values, message):
    with pytest.raises(OptionError, match=message):
        TrainingOptions.from_dict(values)


def test_options_survive_json():
    options = TrainingOptions(lr=1, init_words="a photo of a", locoop_rank=5)
    assert TrainingOptions.from_dict(json.loads(json.dumps(options.as_dict()))) == options
