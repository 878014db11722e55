"""The class list: 1000 wnids, whole names, in the order every ImageNet model uses."""

from __future__ import annotations

import subprocess
import sys

from timm.data import ImageNetInfo

from generation.classes import load_imagenet_classes
from tests.conftest import ROOT


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


def test_every_prompt_holds_the_whole_name_and_one_phrase():
    from generation.masking.prompts import prompt_for
    from ospcoop.clip.scores import DROP_TEMPLATE

    classes = load_imagenet_classes()
    assert prompt_for("great white shark") == "great white shark ."
    for name in classes.names:
        prompt = prompt_for(name)
        assert prompt.endswith(" .") and prompt.count(".") == 1
        assert prompt[:-2].split() == name.lower().replace(".", " ").split()
        assert DROP_TEMPLATE.format(name) == f"a photo of a {name}"


def test_the_classes_command_prints_them_all():
    done = subprocess.run(
        [sys.executable, "launch.py", "classes"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    lines = done.stdout.splitlines()
    assert len(lines) == 1002
    assert "a photo of a toilet paper" in lines[1000]
    assert load_imagenet_classes().sha256 in lines[-1]
