"""The class list: 1000 wnids, whole names, in the order every ImageNet model uses."""

from __future__ import annotations

from timm.data import ImageNetInfo

from generation.classes import load_imagenet_classes


def test_the_list_is_timms_and_open_clips():
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    classes = load_imagenet_classes()
    assert list(classes.wnids) == ImageNetInfo().label_names()
    assert classes.names == tuple(IMAGENET_CLASSNAMES)
    assert list(classes.wnids) == sorted(classes.wnids)


def test_names_are_whole_and_the_hash_is_known():
    classes = load_imagenet_classes()
    assert classes.names[2] == "great white shark"
    assert classes.names[999] == "toilet paper"
    assert classes.index_of["n01484850"] == 2
    assert len(classes.sha256) == 64
    assert all(name == name.strip() and "_" not in name for name in classes.names)
