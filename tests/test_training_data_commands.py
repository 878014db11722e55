"""fewshot, texture and id-aug as a user types them, and the whole way with the embedded models."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select
from typer.testing import CliRunner

from app.cli import app
from app.jobs import find_handler
from db.models import Kind, Recipe, SourceImage, Split
from db.progress import NoProgress
from db.queries import active_recipe
from db.training_queries import recipes_made_with, training_candidates
from db.workspace import open_workspace
from generation.artifacts import decode_png
from generation.fewshot import sample_fewshot
from generation.pipeline import Selection, generate
from generation.pseudo_ood.id_aug_options import IdAugOptions
from generation.recipe import default_options
from generation.sources import ImportSpec, import_images
from tests.conftest import ROOT, write_photos
from tests.train_photos import candidates

NOOP = ("--masker", "noop", "--inpainter", "noop", "--scorer", "noop")


def run(workspace: Path, command: str, *arguments: str, expect: int = 0) -> str:
    """What the command prints, its error among it. In this process, so that models load once."""
    done = CliRunner().invoke(app, [command, "--workspace", str(workspace), *arguments], env={"COLUMNS": "160"})
    said = f"{done.output}{done.exception or ''}"
    assert done.exit_code == expect, said
    return said


@pytest.fixture(scope="module")
def imported(tmp_path_factory) -> Path:
    """Nine train photos of two classes and two val photos of one, with background candidates."""
    folder = tmp_path_factory.mktemp("commands")
    for split, count in (("train", 9), ("val", 2)):
        write_photos(folder / split, count)
    workspace = open_workspace(folder / "w")
    import_images(workspace, ImportSpec("imagefolder", folder / "train", None, Split.TRAIN))
    workspace.close()
    run(folder / "w", "generate", *NOOP)
    return folder / "w"


@pytest.fixture
def workspace(imported, tmp_path) -> Path:
    shutil.copytree(imported, tmp_path / "w")
    return tmp_path / "w"


def test_the_three_commands_one_after_the_other(workspace):
    first = run(workspace, "fewshot", "--shots", "4")
    assert "Few-shot set 1: 4 shots, seed 1." in first and "8 photos of 2 classes." in first
    assert re.search(r"998 classes have no train photo: n01484850 great white shark, .* and 988 more \(`launch", first)
    content_hash = re.search(r"Content hash ([0-9a-f]{64})", first)[1]
    assert "recorded before" in run(workspace, "fewshot", "--shots", "4")
    assert re.search(rf"1 +4 +1 +8 +2 +{content_hash[:16]}", run(workspace, "fewshot", "--list"))
    assert "n15075141 toilet paper" in run(workspace, "fewshot", "--show", "1"), "every missing class is named"

    textures = run(workspace, "texture", "--copies", "2", "--split-drop", "9")
    assert re.search(r"Recipe [0-9a-f]{12}: 16 textures, \d+ of them low\.", textures)
    assert "Of 8 photos 0 have no cell wholly on the object, 0 no background candidate, 0 failed, 0 are" in textures
    assert "Nothing to do" in run(workspace, "texture", "--copies", "2", "--split-drop", "9")

    loose = ("--min-object-area", "0.1", "--min-drop", "1", "--min-similarity", "-1", "--rates", "0.5,1,0.25")
    made = run(workspace, "id-aug", *loose)
    table = {name: numbers for name, *numbers in re.findall(r"^(\w+) +1 +(\d+) +(\d+) +\d+$", made, re.MULTILINE)}
    assert table == {"background": ["4", "4"], "texture": ["8", "8"], "noise": ["2", "2"]}
    assert "from 8 photos with a usable mask" in made
    assert "Nothing to do" in run(workspace, "id-aug", *loose)


def test_what_is_asked_wrongly_is_said(workspace):
    assert "sample one" in run(workspace, "texture", expect=1)
    assert "one of 1, 2, 4, 8, 16" in run(workspace, "fewshot", "--shots", "3", expect=1)
    run(workspace, "fewshot", "--shots", "1")
    assert "--options 1,3" in run(workspace, "id-aug", expect=1)
    assert "as many rates" in run(workspace, "id-aug", "--options", "1,3", expect=2)
    assert "There is no few-shot set 7" in run(workspace, "texture", "--fewshot-set", "7", expect=1)


def test_val_photos_alone_make_no_set(imported, tmp_path):
    workspace = open_workspace(tmp_path / "w")
    import_images(workspace, ImportSpec("imagefolder", imported.parent / "val", None, Split.VAL))
    workspace.close()
    assert "--split train" in run(tmp_path / "w", "fewshot", expect=1)


@pytest.mark.parametrize("command", ["fewshot", "texture", "id-aug"])
def test_help_teaches_without_torch(command):
    code = (
        f"import sys\nsys.argv = ['launch.py', {command!r}, '--help']\nfrom app.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "sys.exit(bool({'torch', 'gradio', 'sqlalchemy', 'cv2'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0 and "--seed" in done.stdout


def test_the_whole_way_with_the_embedded_models(tmp_path):
    """Four of the demo's photos, whose objects are large, as train photos: real masks, pixels, scores, similarities."""
    workspace = open_workspace(tmp_path / "w")
    import_images(workspace, ImportSpec("demo", None, None, Split.TRAIN))
    wnids = {"folding chair", "beaker", "strawberry", "bottle cap"}
    with workspace.read() as session:
        photos = [one for one in session.scalars(select(SourceImage)) if one.image_class.name in wnids]
    options = default_options(inpainter="telea")
    generate(workspace, options, Selection(classes=tuple(one.class_index for one in photos)))
    chosen = sample_fewshot(workspace, 1, 1)
    asked = {"fewshot_set": chosen.set_id, "recipe": None}
    textures = find_handler("texture")(
        workspace, {**asked, "options": {"seed": 1, "copies": 1, "split_drop": None}}, NoProgress()
    )
    assert textures["textures"] == 4 and textures["without_background"] == 15
    made = find_handler("id_aug")(workspace, {**asked, "options": IdAugOptions().to_json()}, NoProgress())
    assert [one["target"] for one in made["passes"]] == [one["made"] for one in made["passes"]] == [2, 2, 2]

    with workspace.read() as session:
        base = active_recipe(session)
        texture, id_aug = (
            recipes_made_with(session, kind, background_recipe=base.hash)[0] for kind in (Kind.TEXTURE, Kind.ID_AUG)
        )
        data = training_candidates(
            session,
            chosen.set_id,
            background_recipe_id=base.id,
            texture_recipe_id=texture.id,
            id_aug_recipe_id=id_aug.id,
        )
        recipe = session.scalar(select(Recipe).where(Recipe.hash == made["recipe_hash"]))
    assert (len(data.sources), len(data.textures), len(data.id_augs)) == (19, 4, 6)
    assert recipe.config["backends"]["similarity"]["grade"] == "embedded"
    for row in data.textures:
        raw, grown = (
            decode_png((workspace.path(row.candidate.folder) / f"{n}.png").read_bytes()) for n in ("raw", "result")
        )
        assert row.candidate.drop > 2, "the texture no longer looks like its object"
        assert 0.97 < (raw != grown).any(2).mean() < 1
    for row in data.id_augs:
        assert 0.7 <= row.candidate.details["similarity"] <= 1
    backgrounds = {one.source_id: one.drop for one in candidates(workspace, Kind.BACKGROUND)}
    kept_object = np.mean([row.candidate.drop for row in data.id_augs])
    assert kept_object < np.mean([backgrounds[row.source.id] for row in data.id_augs]) - 2
    workspace.close()
