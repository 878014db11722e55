"""The feature cache: the tower's own numbers, kept, found again, made anew where damaged, resumed where stopped."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from db.progress import Cancelled
from ospcoop import features
from ospcoop.clip.openclip import OpenClipModel
from ospcoop.features import CacheFull, FeatureCache
from ospcoop.images import ImageRef
from tests.training_material import embedded_encoder, tiny_encoder, tiny_weights


@pytest.fixture(scope="module")
def encoder():
    return tiny_encoder()


class Album:
    """Images by number; counts how often each is opened."""

    def __init__(self, count: int, side: int = 40) -> None:
        rng = np.random.default_rng(7)
        self.images = [rng.integers(0, 256, (side, side, 3), dtype=np.uint8) for _ in range(count)]
        self.opened = [0] * count

    def open(self, number: int) -> np.ndarray:
        self.opened[number] += 1
        return self.images[number]

    def refs(self, *numbers: int) -> list[ImageRef]:
        digest = [hashlib.sha256(image.tobytes()).hexdigest() for image in self.images]
        return [ImageRef(digest[n], lambda n=n: self.open(n)) for n in numbers or range(len(self.images))]


def direct(encoder, images):
    whole, local = encoder.encode_image(torch.stack([encoder.preprocess(image) for image in images]))
    return whole.numpy(), local.numpy()


def test_the_numbers_are_the_towers_own_and_each_image_is_opened_once(tmp_path, encoder):
    album = Album(5)
    found = FeatureCache(tmp_path, encoder).ensure(album.refs())
    whole, local = direct(encoder, album.images)
    assert found.whole.shape == (5, 32) and found.local.shape == (5, 16, 32)
    assert np.array_equal(found.whole[:], whole) and np.array_equal(found.local[:], local)
    assert np.array_equal(np.asarray(found.whole), whole)
    again = FeatureCache(tmp_path, encoder).ensure(album.refs(3, 1, 3))
    assert album.opened == [1] * 5
    assert np.array_equal(again.whole[:], whole[[3, 1, 3]])
    taken = again.take([2, 1])
    assert taken.whole.dtype == torch.float32
    assert np.array_equal(taken.local.numpy(), local[[3, 1]])


def test_neighbouring_rows_are_a_view_of_the_file(tmp_path, encoder):
    found = FeatureCache(tmp_path, encoder).ensure(Album(6).refs())
    assert isinstance(found.local[2:5], np.memmap)
    assert not isinstance(found.local[[4, 2]], np.memmap)
    assert [len(part.whole) for part in found.batches(4)] == [4, 2]
    assert found.whole[6:].shape == (0, 32)


def test_mirrored_images_have_features_of_their_own(tmp_path, encoder):
    album = Album(3)
    cache = FeatureCache(tmp_path, encoder)
    assert cache.ensure(album.refs()).flipped is None
    found = cache.ensure(album.refs(), flips=True)
    assert np.array_equal(found.whole[:], direct(encoder, album.images)[0])
    mirrored = direct(encoder, [np.ascontiguousarray(image[:, ::-1]) for image in album.images])
    assert np.allclose(found.flipped.whole[:], mirrored[0], atol=1e-5)
    assert np.allclose(found.flipped.local[:], mirrored[1], atol=1e-5)
    assert album.opened == [2] * 3, "once for the images, once for their mirrors"


def test_global_features_alone_take_a_fraction_and_local_ones_come_later(tmp_path, encoder):
    album = Album(4)
    cache = FeatureCache(tmp_path, encoder)
    assert cache.ensure(album.refs(), local=False).local is None
    small = cache.stored_bytes()
    assert small < 4 * cache.row_bytes(local=False) + 200
    assert cache.ensure(album.refs()).local.shape == (4, 16, 32)
    assert cache.stored_bytes() - small >= 4 * cache.row_bytes(local=True)
    assert album.opened == [2] * 4
    assert len(cache.ensure(album.refs(), local=False)) == 4
    assert album.opened == [2] * 4


def test_float16_rounds_and_lies_apart(tmp_path, encoder):
    album = Album(3)
    exact = FeatureCache(tmp_path, encoder)
    half = FeatureCache(tmp_path, encoder, storage="float16")
    assert exact.folder != half.folder
    assert half.row_bytes(local=True) * 2 == exact.row_bytes(local=True)
    rounded = half.ensure(album.refs()).local[:]
    assert rounded.dtype == np.float32
    assert np.array_equal(rounded, exact.ensure(album.refs()).local[:].astype(np.float16).astype(np.float32))
    with pytest.raises(ValueError, match="float16"):
        FeatureCache(tmp_path, encoder, storage="int8")


def test_other_weights_another_activation_or_preprocessing_are_another_cache(tmp_path, encoder):
    weights = tiny_weights()
    keys = {FeatureCache(tmp_path, encoder).key, FeatureCache(tmp_path, OpenClipModel(weights, quick_gelu=False)).key}
    weights["visual.proj"] = weights["visual.proj"] + 1
    keys.add(FeatureCache(tmp_path, OpenClipModel(weights)).key)

    class Brighter(OpenClipModel):
        def preprocess(self, image):
            return super().preprocess(image) + 1

    keys.add(FeatureCache(tmp_path, Brighter(tiny_weights())).key)
    assert len(keys) == 4
    assert FeatureCache(tmp_path, OpenClipModel(tiny_weights())).key == FeatureCache(tmp_path, encoder).key


def test_a_resized_copy_is_not_taken_for_the_image(tmp_path, encoder):
    album = Album(1)
    (ref,) = album.refs()
    cache = FeatureCache(tmp_path, encoder)
    other = ImageRef(ref.sha256, lambda: album.images[0][::-1].copy(), "upside-down")
    found = cache.ensure([ref, other])
    assert not np.array_equal(found.whole[0:1], found.whole[1:2])


class StopAfter:
    def __init__(self, calls: int) -> None:
        self.left = calls

    def update(self, done, total, message=""):
        self.left -= 1
        if self.left < 0:
            raise Cancelled

    def log(self, line):
        raise AssertionError(line)


def test_a_stopped_cache_goes_on_at_its_last_shard_with_the_same_numbers(tmp_path, encoder):
    def small(folder):
        return FeatureCache(folder, encoder, batch_size=2, shard_bytes=8 * cache_row)

    cache_row = FeatureCache(tmp_path, encoder).row_bytes(local=True)
    album = Album(11)
    with pytest.raises(Cancelled):
        small(tmp_path / "a").ensure(album.refs(), progress=StopAfter(5))
    assert album.opened == [1] * 10 + [0] and len(list(small(tmp_path / "a").folder.glob("*.local.npy"))) == 2
    resumed = small(tmp_path / "a").ensure(album.refs())
    assert album.opened == [1] * 8 + [2, 2, 1], "two shards of four were whole"
    undisturbed = small(tmp_path / "b").ensure(album.refs())
    assert np.array_equal(resumed.local[:], undisturbed.local[:])


@pytest.mark.parametrize("damage", ["cut", "no json", "bad json", "no array"])
def test_a_damaged_shard_is_made_anew(tmp_path, encoder, damage):
    album = Album(3)
    cache = FeatureCache(tmp_path, encoder)
    whole = cache.ensure(album.refs()).whole[:].copy()
    (array,) = cache.folder.glob("*.local.npy")
    (described,) = (path for path in cache.folder.glob("*.json") if path.name != "encoder.json")
    if damage == "cut":
        os.truncate(array, array.stat().st_size - 1)
    elif damage == "no json":
        described.unlink()
    elif damage == "bad json":
        described.write_text(json.dumps({"sizes": 3}))
    else:
        array.unlink()
    found = FeatureCache(tmp_path, encoder).ensure(album.refs())
    assert album.opened == [2] * 3
    assert np.array_equal(found.whole[:], whole)
    assert np.array_equal(FeatureCache(tmp_path, encoder).ensure(album.refs()).whole[:], whole)
    assert album.opened == [2] * 3


def test_two_caches_in_one_folder_share_their_shards(tmp_path, encoder):
    album = Album(4)
    first, second = FeatureCache(tmp_path, encoder), FeatureCache(tmp_path, encoder)
    first.ensure(album.refs(0, 1))
    second.ensure(album.refs(2, 3))
    first.ensure(album.refs())
    assert album.opened == [1] * 4


def test_a_full_disk_is_said_before_anything_is_computed(tmp_path, encoder, monkeypatch):
    album = Album(2)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=100))
    with pytest.raises(CacheFull, match="float16"):
        FeatureCache(tmp_path, encoder).ensure(album.refs())
    assert album.opened == [0, 0]


def test_an_unreadable_image_stops_with_its_own_error(tmp_path, encoder):
    def broken() -> np.ndarray:
        raise OSError("photo_7.jpg cannot be read")

    with pytest.raises(OSError, match="photo_7"):
        FeatureCache(tmp_path, encoder).ensure([ImageRef("0" * 64, broken)])


def test_the_embedded_encoder_is_cached_likewise(tmp_path):
    encoder = embedded_encoder()
    album = Album(2, side=224)
    found = FeatureCache(tmp_path, encoder).ensure(album.refs(), flips=True)
    whole, local = direct(encoder, album.images)
    assert np.array_equal(found.whole[:], whole) and np.array_equal(found.local[:], local)
    facts = json.loads((FeatureCache(tmp_path, encoder).folder / features.ENCODER_FILE).read_text())
    assert facts["grade"] == "embedded" and facts["storage"] == "float32"
