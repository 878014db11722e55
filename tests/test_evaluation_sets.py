"""Evaluation sets: what is found, what is left out by name, what is refused, and that they stay what they were."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from db.models import Split
from db.progress import Cancelled, NoProgress
from db.workspace import open_workspace
from exports.builds import freeze
from exports.rules import PRESETS
from generation.decode import decode_rgb
from generation.sources import ImportSpec, import_images, open_source
from ospcoop.evaluation.image_files import SetChanged
from ospcoop.evaluation.request import EvaluationError
from ospcoop.evaluation.sets import (
    Readers,
    SetInfo,
    UnknownSet,
    available_sets,
    classic_name,
    default_ood_sets,
    register,
    remove,
    resolve,
)
from tests.evaluation_material import write_image
from tests.test_builds import make_small
from tests.train_photos import CancelAfter
from tests.training_material import Silent

READERS = Readers(open_source, decode_rgb)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A workspace with two val photos and one train photo."""
    folder = tmp_path_factory.mktemp("sets")
    for split, name, seed in (("val", "a", 1), ("val", "b", 2), ("train", "c", 3)):
        write_image(folder / split / "n01440764" / f"{name}.png", seed)
    workspace = open_workspace(folder / "workspace")
    for split in (Split.VAL, Split.TRAIN):
        import_images(workspace, ImportSpec("imagefolder", folder / split, None, split))
    workspace.close()
    return folder / "workspace"


@pytest.fixture
def workspace(made, tmp_path):
    shutil.copytree(made, tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


def add(workspace, name, root, progress=None, **more) -> SetInfo:
    return register(workspace, name, root, decode_rgb, progress or NoProgress(), **more)


def test_a_flat_folder_and_one_with_folders(workspace, tmp_path):
    root = tmp_path / "images"
    for number, place in enumerate(("b.png", "a.png", "banded/x.png", "n01443537/deep/y.png")):
        write_image(root / place, number)
    (root / "notes.txt").write_text("not an image")
    (root / ".hidden.png").write_bytes(b"")
    found = add(workspace, "mine", root)
    assert (found.role, found.group, found.kind, found.images, found.skipped) == ("ood", "other", "folder", 4, 0)
    images = resolve(workspace, "mine", READERS)
    labels = {one.name: one.class_index for one in images.images}
    assert labels == {"a.png": None, "b.png": None, "banded/x.png": None, "n01443537/deep/y.png": 1}
    assert [one.name for one in images.images] == sorted(labels)
    assert images.sha256 == found.sha256
    assert images.images[0].image.open().shape == (54, 66, 3)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("iNaturalist", "iNaturalist"),
        ("SUN", "SUN"),
        ("places", "Places"),
        ("dtd", "Textures"),
        ("Places365", None),
        ("sun397", None),
        ("bg", None),
    ],
)
def test_the_classic_four_go_by_their_names(name, expected):
    assert classic_name(name) == expected


def test_classic_sets_are_a_group_and_come_first(workspace, tmp_path):
    write_image(tmp_path / "images/a.png", 1)
    for name in ("mine", "Textures", "iNaturalist"):
        add(workspace, name, tmp_path / "images")
    with workspace.read() as session:
        assert default_ood_sets(session) == ["iNaturalist", "Textures", "mine"]
        assert {one.name: one.group for one in available_sets(session) if one.role == "ood"} == {
            "Textures": "classic",
            "iNaturalist": "classic",
            "mine": "other",
        }


def test_unreadable_images_are_named_and_left_out(workspace, tmp_path):
    root = tmp_path / "images"
    write_image(root / "good.png", 1)
    (root / "torn.png").write_bytes((root / "good.png").read_bytes()[:200])
    (root / "text.jpg").write_text("hello")
    (root / "out.png").symlink_to(write_image(tmp_path / "elsewhere.png", 2))
    said = Silent()
    found = add(workspace, "mine", root, said)
    assert (found.images, found.skipped) == (1, 3)
    assert [line.split(":")[0] for line in found.skipped_files] == ["out.png", "text.jpg", "torn.png"]
    assert said.lines == [f"Left out: {line}" for line in found.skipped_files]
    (root / "good.png").unlink()
    with pytest.raises(EvaluationError, match=r"None of the 3 images .* can be read"):
        add(workspace, "none", root)


def test_an_openood_list(workspace, tmp_path):
    root = tmp_path / "images"
    for number in range(3):
        write_image(root / "sub" / f"{number} x.png", number)
    listed = tmp_path / "list.txt"
    listed.write_text("sub/2 x.png -1\n\nsub/0 x.png 7\nsub/gone.png 3\n")
    found = add(workspace, "mine", root, imglist=listed)
    assert (found.kind, found.images, found.skipped, found.where) == ("imglist", 2, 1, str(listed))
    images = resolve(workspace, "mine", READERS).images
    assert [(one.name, one.class_index) for one in images] == [("sub/2 x.png", None), ("sub/0 x.png", 7)]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("sub/a.png", "line 2: expected a path and a class from -1 to 999, not 'sub/a.png'"),
        ("sub/a.png 1000", "line 2: expected a path and a class"),
        ("/etc/a.png -1", "line 2: /etc/a.png leads out"),
        ("../a.png -1", "line 2: ../a.png leads out"),
    ],
)
def test_a_wrong_line_is_named(workspace, tmp_path, line, said):
    write_image(tmp_path / "a.png", 1)
    (tmp_path / "list.txt").write_text(f"a.png -1\n{line}\n")
    with pytest.raises(EvaluationError, match=said):
        add(workspace, "mine", tmp_path, imglist=tmp_path / "list.txt")


def test_an_id_set_needs_a_class_for_every_image(workspace, tmp_path):
    root = tmp_path / "images"
    write_image(root / "n01443537/a.png", 1)
    assert add(workspace, "ours", root, role="id").role == "id"
    write_image(root / "n99999999/b.png", 2)
    with pytest.raises(EvaluationError, match=r"1 of the 2 images .* have no class, the first is n99999999/b.png"):
        add(workspace, "theirs", root, role="id")


@pytest.mark.parametrize("name", ["val", "bg-v1", "", "a b", "../x", "-x"])
def test_a_set_gets_a_name_of_its_own(workspace, tmp_path, name):
    write_image(tmp_path / "images/a.png", 1)
    with pytest.raises(EvaluationError, match="A set is named by"):
        add(workspace, name, tmp_path / "images")


def test_a_name_is_taken_once_and_free_after_removal(workspace, tmp_path):
    write_image(tmp_path / "images/a.png", 1)
    add(workspace, "mine", tmp_path / "images")
    with pytest.raises(EvaluationError, match="a set called mine already"):
        add(workspace, "mine", tmp_path / "images")
    remove(workspace, "mine")
    with pytest.raises(UnknownSet, match="There are: val"):
        resolve(workspace, "mine", READERS)
    with pytest.raises(UnknownSet, match="No set called 'val' was registered"):
        remove(workspace, "val")
    assert add(workspace, "mine", tmp_path / "images").images == 1


def test_folders_that_are_not_sets(workspace, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(EvaluationError, match="holds no images"):
        add(workspace, "mine", tmp_path / "empty")
    with pytest.raises(EvaluationError, match="There is no folder"):
        add(workspace, "mine", tmp_path / "gone")


def test_a_cancel_leaves_no_set(workspace, tmp_path):
    for number in range(70):
        write_image(tmp_path / "images" / f"{number}.png", number)
    with pytest.raises(Cancelled):
        add(workspace, "mine", tmp_path / "images", CancelAfter(0))
    with workspace.read() as session:
        assert [one.name for one in available_sets(session)] == ["val"]


def test_a_changed_file_is_an_error_not_another_number(workspace, tmp_path):
    path = write_image(tmp_path / "images/a.png", 1)
    before = add(workspace, "mine", tmp_path / "images")
    write_image(path, 2)
    images = resolve(workspace, "mine", READERS)
    assert images.sha256 == before.sha256
    with pytest.raises(SetChanged, match="is not the file that the set was made with"):
        images.images[0].image.open()
    path.unlink()
    with pytest.raises(SetChanged, match="cannot be read"):
        images.images[0].image.open()
    workspace.path("evaluation/sets/mine.parquet").unlink()
    with pytest.raises(SetChanged, match="register it again"):
        resolve(workspace, "mine", READERS)


def test_val_photos_are_the_id_set_and_train_photos_never(workspace):
    found = resolve(workspace, "val", READERS)
    assert (found.role, [one.name for one in found.images]) == ("id", ["a", "b"])
    assert all(one.class_index == 0 and one.partner is None for one in found.images)
    assert found.images[0].image.open().shape == (54, 66, 3)


def test_a_build_is_a_bg_set_with_each_candidates_photo(tmp_path):
    workspace = open_workspace(tmp_path / "workspace")
    small = make_small(workspace)
    freeze(workspace, "bg", PRESETS["bg"])
    found = resolve(small.workspace, "bg-v1", READERS)
    assert (found.role, found.group, len(found.images)) == ("ood", "bg", 3)
    with workspace.read() as session:
        assert [one.name for one in available_sets(session) if one.kind == "build"] == ["bg-v1"]
    for one in found.images:
        assert one.candidate_id is not None and one.source_id is not None
        assert one.image.open().dtype == np.uint8 and one.image.key != one.partner.key
    workspace.close()
