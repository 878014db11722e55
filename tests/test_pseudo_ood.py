"""Texture candidates: one cell of the object kept, the rest grown from it; resumable, repeatable, train only."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import func, select

from db.models import Candidate, Kind, Outcome, Recipe, Split, State
from db.progress import Cancelled
from db.queries import active_recipe
from db.workspace import Workspace, open_workspace
from generation.artifacts import candidate_folder, decode_png, encode_png, write_folder
from generation.backends import Backends, load_backends
from generation.fewshot import sample_fewshot
from generation.masking.postprocess import perceptual_hash
from generation.pipeline import GenerationStopped, generate
from generation.protocols import InpaintResult
from generation.pseudo_ood import committing
from generation.pseudo_ood.recipes import UnknownRecipe
from generation.pseudo_ood.texture_candidates import NothingToGrowFrom, TextureModels, TextureOptions, make_textures
from generation.pseudo_ood.texture_selection import TextureSelection
from generation.recipe import RecipeError, RecipeOptions
from generation.sources import ImportSpec, import_images
from generation.texture import eligible_cells
from tests.conftest import ROOT, write_photos
from tests.train_photos import (
    NOOP,
    WNIDS,
    CancelAfter,
    MaskerByClass,
    backends,
    candidates,
    files,
    rows,
    sources,
    with_train_photos,
)


@pytest.fixture(scope="module")
def made_once(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("train")
    with_train_photos(folder / "workspace", folder / "photos").close()
    return folder


@pytest.fixture
def train(made_once, tmp_path):
    """Sixteen train photos, four a class, and their background candidates."""
    shutil.copytree(made_once / "workspace", tmp_path / "workspace")
    opened = open_workspace(tmp_path / "workspace")
    yield opened
    opened.close()


class CountingInpainter:
    """Fills with one grey and counts."""

    def __init__(self, bad: bytes = b"none") -> None:
        self.seen = 0
        self.bad = bad

    def fingerprint(self):
        return {"name": "grey"}

    def inpaint(self, images, holes):
        if any(image.tobytes() == self.bad for image in images):
            raise ArithmeticError("this image is cursed")
        self.seen += len(images)
        # Also inside the hole's complement: the cell must be put back by whoever composites.
        return [InpaintResult(np.full_like(image, 90)) for image in images]


def models(inpainter=None) -> TextureModels:
    inner = load_backends(NOOP)
    return TextureModels(inpainter or inner.inpainter, inner.scorer)


def image(workspace: Workspace, candidate: Candidate, name: str) -> np.ndarray:
    return decode_png((workspace.path(candidate.folder) / f"{name}.png").read_bytes())


def test_each_texture_keeps_one_cell_of_its_object_exactly(train):
    result = make_textures(train, TextureOptions(), models=models(CountingInpainter()))
    made = candidates(train, Kind.TEXTURE)
    assert (result.made, result.sources, result.textures, result.without_cell) == (16, 16, 12, 4)
    assert (result.failed, result.pending, result.without_background, result.low) == (0, 0, 0, 0)
    assert len(made) == 12
    for one in made:
        raw, mask, dilated, grown = (image(train, one, name) for name in ("raw", "mask", "dilated", "result"))
        row, column = divmod(one.details["cell"], 7)
        cell = (slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
        assert (mask[cell] == 255).all(), "the cell lies wholly on the object"
        assert np.array_equal(grown[cell], raw[cell]), "and is kept as it is"
        assert np.count_nonzero(dilated == 0) == 1024 and (dilated[cell] == 0).all()
        assert (grown[dilated == 255] == 90).all(), "everything else is what the inpainter painted"
        changed = (grown != raw).any(2).mean()
        assert one.drop == pytest.approx(10 * changed)
        assert (one.variant, one.version, one.phash) == (0, 1, perceptual_hash(grown))
        assert (one.width, one.height) == (224, 224)
        assert {path.name for path in train.path(one.folder).iterdir()} == {
            *(f"{name}.png" for name in ("raw", "mask", "dilated", "result")),
            "thumbnail.jpg",
            "candidate.json",
        }
    background = {one.source_id: one.id for one in candidates(train, Kind.BACKGROUND)}
    assert all(one.details["mask_candidate_id"] == background[one.source_id] for one in made)


def test_the_cell_is_drawn_by_seed_and_photo_alone(train):
    make_textures(train, TextureOptions(seed=5), models=models())
    photos = sources(train)
    for one in candidates(train, Kind.TEXTURE):
        eligible = np.flatnonzero(eligible_cells(image(train, one, "mask")))
        expected = np.random.default_rng([5, int(photos[one.source_id].sha256, 16)]).choice(eligible)
        assert one.details["cell"] == expected
    make_textures(train, TextureOptions(seed=6), models=models())
    drawn = {(one.source_id, one.recipe_id): one.details["cell"] for one in candidates(train, Kind.TEXTURE)}
    first, second = sorted({recipe for _, recipe in drawn})
    assert any(drawn[source, first] != drawn[source, second] for source, recipe in drawn if recipe == first)


def test_the_recipe_records_everything_and_the_active_one_stays(train):
    with train.read() as session:
        before = active_recipe(session)
    result = make_textures(train, TextureOptions(seed=3, copies=2), models=models())
    with train.read() as session:
        assert active_recipe(session).id == before.id
        recipe = session.scalar(select(Recipe).where(Recipe.hash == result.recipe_hash))
    assert set(recipe.config) == {"format", "kind", "options", "backends"}
    assert recipe.config["kind"] == "texture"
    assert recipe.config["backends"] == {
        "inpainter": {"name": "noop", "grade": "test"},
        "scorer": {"name": "noop", "grade": "test"},
    }
    assert recipe.config["options"] == {
        "background_recipe": before.hash,
        "cell_size": 32,
        "seed": 3,
        "copies": 2,
        "split_drop": None,
    }


def test_every_source_gets_an_outcome_with_its_reason(train):
    make_textures(train, TextureOptions(), models=models())
    photos = sources(train)
    first = {one.source_id: one.id for one in candidates(train, Kind.TEXTURE)}
    recipe_id = candidates(train, Kind.TEXTURE)[0].recipe_id
    with train.read() as session:
        outcomes = list(session.scalars(select(Outcome).where(Outcome.recipe_id == recipe_id)))
    assert len(outcomes) == 16
    for one in outcomes:
        assert one.candidate_id == first.get(one.source_id)
        if photos[one.source_id].class_index == 3:
            assert one.state is State.MASK_TOO_SMALL and "No 32x32 cell" in one.reason
        else:
            assert one.state is State.CANDIDATE and one.reason == ""


def test_copies_come_from_different_cells_as_far_as_there_are_some(train):
    counting = CountingInpainter()
    make_textures(train, TextureOptions(), models=models(counting))
    assert counting.seen == 12
    single = {one.source_id: one for one in candidates(train, Kind.TEXTURE)}
    result = make_textures(train, TextureOptions(copies=6), models=models(counting))
    many = [one for one in candidates(train, Kind.TEXTURE) if one.recipe_id != single[one.source_id].recipe_id]
    assert result.textures == len(many) == 8 * 6 + 4 * 4, "the small objects have four cells"
    for source_id, first in single.items():
        mine = sorted((one for one in many if one.source_id == source_id), key=lambda one: one.variant)
        assert [one.variant for one in mine] == list(range(len(mine)))
        assert len({one.details["cell"] for one in mine}) == len(mine)
        assert mine[0].folder == first.folder, "the first copy is the single one, found again"
    assert counting.seen == 12 + len(many) - 12


def test_a_second_run_does_nothing(train):
    make_textures(train, TextureOptions(), models=models())
    before = rows(train, Kind.TEXTURE), files(train)
    counting = CountingInpainter()
    assert make_textures(train, TextureOptions(), models=models()).made == 0
    assert (counting.seen, rows(train, Kind.TEXTURE), files(train)) == (0, *before)


def test_one_by_one_or_all_at_once_gives_the_same(made_once, train, tmp_path):
    shutil.copytree(made_once / "workspace", tmp_path / "other")
    other = open_workspace(tmp_path / "other")
    make_textures(train, TextureOptions(copies=2), models=models())
    one_more = TextureSelection(limit=1)
    counts = [make_textures(other, TextureOptions(copies=2), one_more, models=models()).made for _ in range(17)]
    assert counts == [1] * 16 + [0]
    assert (rows(other, Kind.TEXTURE), files(other)) == (rows(train, Kind.TEXTURE), files(train))
    other.close()


def test_a_few_shot_set_limits_the_sources(train):
    chosen = sample_fewshot(train, 2, 1)
    result = make_textures(train, TextureOptions(), TextureSelection(chosen.set_id), models=models())
    assert (result.sources, result.made, result.textures) == (8, 8, 6)
    everything = make_textures(train, TextureOptions(), models=models())
    assert (everything.recipe_hash, everything.made, everything.textures) == (result.recipe_hash, 8, 12)


def test_val_sources_get_no_texture(tmp_path):
    val = with_train_photos(tmp_path / "workspace", tmp_path / "photos", count=4, split=Split.VAL)
    with pytest.raises(NothingToGrowFrom, match=r"`launch\.py generate`"):
        make_textures(val, TextureOptions(), models=models())
    write_photos(tmp_path / "more" / "x", 6, classes=WNIDS)
    for photo in (tmp_path / "more" / "x").rglob("photo_000[0-3].jpg"):
        photo.unlink()
    import_images(val, ImportSpec("imagefolder", tmp_path / "more" / "x", None, Split.TRAIN))
    generate(val, NOOP, backends=backends())
    assert make_textures(val, TextureOptions(), models=models()).textures == 2
    photos = sources(val)
    assert {photos[one.source_id].split for one in candidates(val, Kind.TEXTURE)} == {Split.TRAIN}
    val.close()


def test_one_bad_image_costs_one_image(train):
    victim = candidates(train, Kind.BACKGROUND)[0]
    cursed = CountingInpainter(image(train, victim, "raw").tobytes())
    result = make_textures(train, TextureOptions(), models=models(cursed))
    assert (result.textures, result.failed) == (11, 1)
    with train.read() as session:
        failed = session.scalar(select(Outcome).where(Outcome.state == State.FAILED))
    assert failed.source_id == victim.source_id and "this image is cursed" in failed.reason
    cursed.bad = b"none"
    assert make_textures(train, TextureOptions(), models=models(cursed)).made == 0
    again = make_textures(train, TextureOptions(), TextureSelection(redo_failed=True), models=models(cursed))
    assert (again.made, again.textures, again.failed) == (1, 12, 0)


def test_a_damaged_background_folder_is_named(train):
    victim = candidates(train, Kind.BACKGROUND)[0]
    (train.path(victim.folder) / "mask.png").write_bytes(b"cut off")
    assert make_textures(train, TextureOptions(), models=models()).failed == 1
    with train.read() as session:
        reason = session.scalar(select(Outcome.reason).where(Outcome.state == State.FAILED))
    assert victim.folder in reason


def test_nothing_but_failures_stops_the_run(train, monkeypatch):
    monkeypatch.setattr(committing, "MAX_FAILURES_IN_A_ROW", 3)

    class Broken(CountingInpainter):
        def inpaint(self, images, holes):
            raise ArithmeticError("out of order")

    with pytest.raises(GenerationStopped, match="out of order"):
        make_textures(train, TextureOptions(), models=models(Broken()))


def test_a_cancel_keeps_what_is_finished(made_once, train, tmp_path):
    shutil.copytree(made_once / "workspace", tmp_path / "quiet")
    quiet = open_workspace(tmp_path / "quiet")
    make_textures(quiet, TextureOptions(), models=models())
    with pytest.raises(Cancelled):
        make_textures(train, TextureOptions(), models=models(), progress=CancelAfter(3))
    done = len(candidates(train, Kind.TEXTURE))
    assert 3 <= done < 12
    make_textures(train, TextureOptions(), models=models())
    assert (rows(train, Kind.TEXTURE), files(train)) == (rows(quiet, Kind.TEXTURE), files(quiet))
    quiet.close()


_CHILD = """
import sys
from db.workspace import open_workspace
from generation.pseudo_ood.texture_candidates import TextureOptions, make_textures
make_textures(open_workspace(sys.argv[1]), TextureOptions(copies=8))
"""


def test_killed_half_way_the_result_is_the_same_bytes(made_once, train, tmp_path):
    shutil.copytree(made_once / "workspace", tmp_path / "quiet")
    quiet = open_workspace(tmp_path / "quiet")
    make_textures(quiet, TextureOptions(copies=8), models=models())
    total = len(candidates(quiet, Kind.TEXTURE))
    folders = train.root / "candidates"
    before = len(list(folders.glob("*/*/result.png")))
    child = subprocess.Popen([sys.executable, "-c", _CHILD, str(train.root)], cwd=ROOT)
    while child.poll() is None and len(list(folders.glob("*/*/result.png"))) < before + total // 3:
        time.sleep(0.005)
    os.kill(child.pid, signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL, "the run finished before it could be killed"
    assert len(candidates(train, Kind.TEXTURE)) < total
    make_textures(train, TextureOptions(copies=8), models=models())
    assert (rows(train, Kind.TEXTURE), files(train)) == (rows(quiet, Kind.TEXTURE), files(quiet))
    quiet.close()


def _correct_mask(workspace: Workspace, old: Candidate, mask: np.ndarray) -> Candidate:
    """A further version of a background candidate, as a correction in review leaves it."""
    names = ("raw", "mask", "dilated", "result")
    pictures = {f"{name}.png": encode_png(mask if name == "mask" else image(workspace, old, name)) for name in names}
    folder = candidate_folder(f"{'c' * 56}{old.id:08d}")
    write_folder(workspace.path(folder), pictures, {"notes": {}})
    with workspace.write() as session:
        columns = {c.key: getattr(old, c.key) for c in Candidate.__table__.columns if c.key not in ("id", "created_at")}
        new = Candidate(**{**columns, "version": old.version + 1, "parent_id": old.id, "folder": folder})
        session.add(new)
    return new


def test_a_corrected_mask_gives_a_further_version(train):
    make_textures(train, TextureOptions(), models=models())
    old = candidates(train, Kind.BACKGROUND)[0]
    mask = np.zeros((224, 224), np.uint8)
    mask[192:, 192:] = 255
    new = _correct_mask(train, old, mask)
    result = make_textures(train, TextureOptions(), models=models())
    assert (result.made, result.textures) == (1, 12)
    mine = [one for one in candidates(train, Kind.TEXTURE) if one.source_id == old.source_id]
    assert [(one.version, one.details["mask_candidate_id"]) for one in mine] == [(1, old.id), (2, new.id)]
    assert mine[1].details["cell"] == 48 and mine[1].parent_id == mine[0].id
    with train.read() as session:
        assert session.get(Outcome, (old.source_id, mine[1].recipe_id)).candidate_id == mine[1].id
    assert make_textures(train, TextureOptions(), models=models()).made == 0


def test_the_published_split_is_off_unless_asked_for(train):
    make_textures(train, TextureOptions(), models=models())
    assert all("part" not in one.details for one in candidates(train, Kind.TEXTURE))
    drops = sorted(one.drop for one in candidates(train, Kind.TEXTURE))
    bound = drops[4]
    result = make_textures(train, TextureOptions(split_drop=bound), models=models())
    split = [one for one in candidates(train, Kind.TEXTURE) if "part" in one.details]
    assert len(split) == 12
    assert all(one.details["part"] == ("top" if one.drop > bound else "low") for one in split)
    assert result.low == sum(drop <= bound for drop in drops) > 0


def test_photos_of_any_size_have_the_cells_that_fit(workspace, tmp_path):
    write_photos(tmp_path / "photos", 2, classes=WNIDS[:2])
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.TRAIN))

    class Everything(MaskerByClass):
        def propose(self, requests):
            proposals = super().propose(requests)
            for one in proposals:
                one.mask[:] = 0
                one.mask[: one.mask.shape[0] * 4 // 5] = 255
            return proposals

    inner = load_backends(NOOP)
    native = RecipeOptions(masker="noop", inpainter="noop", scorer="noop", resolution="native", max_dilated_area=1)
    generate(workspace, native, backends=Backends(Everything(), inner.inpainter, inner.scorer))
    result = make_textures(workspace, TextureOptions(copies=9), models=models(CountingInpainter()))
    made = candidates(workspace, Kind.TEXTURE)
    assert result.textures == len(made) == 2 * 6, "80 x 96 pixels, of which the upper 64 rows: 2 x 3 cells"
    for one in made:
        row, column = divmod(one.details["cell"], 3)
        cell = (slice(32 * row, 32 * row + 32), slice(32 * column, 32 * column + 32))
        raw, grown = image(workspace, one, "raw"), image(workspace, one, "result")
        assert raw.shape == grown.shape == (80, 96, 3)
        assert np.array_equal(raw[cell], grown[cell])
        assert np.count_nonzero((grown == 90).all(2)) >= 80 * 96 - 1024


@pytest.mark.parametrize(("option", "value"), [("seed", -1), ("copies", 0), ("copies", 50)])
def test_options_out_of_range_are_named(option, value):
    with pytest.raises(RecipeError, match=option):
        TextureOptions(**{option: value})


def test_recipes_are_found_by_the_start_of_their_hash(train):
    with train.read() as session:
        base = active_recipe(session)
    made = make_textures(train, TextureOptions(), recipe_prefix=base.hash[:8], models=models())
    with pytest.raises(UnknownRecipe, match="no background recipe"):
        make_textures(train, TextureOptions(), recipe_prefix=made.recipe_hash[:8], models=models())
    with pytest.raises(UnknownRecipe, match="4 or more digits"):
        make_textures(train, TextureOptions(), recipe_prefix="a", models=models())


def test_without_any_recipe_the_way_is_shown(workspace):
    with pytest.raises(UnknownRecipe, match=r"`launch\.py generate`"):
        make_textures(workspace, TextureOptions(), models=models())
    with workspace.read() as session:
        assert session.scalar(select(func.count()).select_from(Recipe)) == 0
