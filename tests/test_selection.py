"""Which sources a run takes: limit, classes, split, few-shot set, failed ones, those that no recipe could do."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import Candidate, FewShotItem, FewShotSet, Kind, Outcome, SourceImage, Split, State
from db.queries import active_recipe
from db.training_guard import UnknownFewShotSet
from db.workspace import Workspace
from generation.pipeline import Selection, generate
from generation.recipe import RecipeOptions
from generation.selection import SelectionError, select_sources
from generation.sources import ImportSpec, import_images
from tests.conftest import write_photos

NOOP = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")
OTHER = RecipeOptions(masker="noop", inpainter="noop", scorer="noop", dilation=20)
NOTHING_FITS = RecipeOptions(masker="noop", inpainter="noop", scorer="noop", min_area=0.5)


@pytest.fixture
def photos(workspace: Workspace, tmp_path: Path) -> Workspace:
    """Twelve val photos of two classes, then six train photos of one."""
    write_photos(tmp_path / "val", 12)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "val", None, Split.VAL))
    # Other photos than val's: an import refuses the same bytes in both splits.
    every = write_photos(tmp_path / "train", 18, classes=("n01484850",)) / "n01484850"
    for number in range(12):
        (every / f"photo_{number:04d}.jpg").unlink()
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "train", None, Split.TRAIN))
    return workspace


def ids_of(workspace: Workspace, split: Split) -> list[int]:
    with workspace.read() as session:
        return list(session.scalars(select(SourceImage.id).where(SourceImage.split == split).order_by(SourceImage.id)))


def done_under(workspace: Workspace, state: State = State.CANDIDATE) -> list[int]:
    """The sources in that state under the active recipe."""
    with workspace.read() as session:
        query = select(Outcome.source_id).where(Outcome.recipe_id == active_recipe(session).id, Outcome.state == state)
        return list(session.scalars(query.order_by(Outcome.source_id)))


@pytest.mark.parametrize("split", list(Split))
def test_a_split_takes_its_photos_only(photos, split):
    result = generate(photos, NOOP, Selection(split=split))
    assert done_under(photos) == ids_of(photos, split)
    assert result.states["pending"] == 18 - result.made


def test_a_fewshot_set_takes_its_photos_only(photos):
    members = ids_of(photos, Split.TRAIN)[1:4]
    with photos.write() as session:
        session.add(FewShotSet(id=7, shots=4, seed=1, content_hash="0" * 64, summary={}))
        session.flush()
        session.add_all(FewShotItem(set_id=7, source_id=one) for one in members)
    assert generate(photos, NOOP, Selection(fewshot_set=7, limit=2)).made == 2
    assert generate(photos, NOOP, Selection(fewshot_set=7, split=Split.TRAIN)).made == 1
    assert done_under(photos) == members


def test_a_fewshot_set_that_is_not_there_is_named(photos):
    with pytest.raises(UnknownFewShotSet, match="9"):
        generate(photos, NOOP, Selection(fewshot_set=9))
    with pytest.raises(SelectionError, match="val"):
        Selection(fewshot_set=7, split=Split.VAL)
    with pytest.raises(SelectionError, match="limit"):
        Selection(limit=0)


def test_only_missing_takes_what_no_recipe_has_made(photos):
    generate(photos, NOTHING_FITS)
    assert len(done_under(photos, State.MASK_TOO_SMALL)) == 18
    generate(photos, NOOP, Selection(limit=5))
    made = done_under(photos)
    assert len(made) == 5
    result = generate(photos, OTHER, Selection(only_missing=True))
    assert result.made == 13 and not set(done_under(photos)) & set(made)
    assert generate(photos, OTHER, Selection(only_missing=True)).made == 0
    # Without it, the recipe does the others too.
    assert generate(photos, OTHER).made == 5


def test_a_texture_is_no_background(photos):
    generate(photos, NOOP, Selection(limit=3))
    with photos.write() as session:
        first = session.scalar(select(Candidate).order_by(Candidate.id))
        first.kind = Kind.TEXTURE
        missing = first.source_id
    result = generate(photos, OTHER, Selection(only_missing=True, limit=1))
    assert result.made == 1 and done_under(photos) == [missing]


def test_failed_ones_are_done_again_where_they_are_selected(photos):
    generate(photos, NOOP, Selection(split=Split.VAL))
    with photos.write() as session:
        recipe = active_recipe(session)
        for outcome in session.scalars(select(Outcome)):
            outcome.state, outcome.candidate_id, outcome.reason = State.FAILED, None, "the disk was full"
        session.flush()
        session.query(Candidate).delete()
    val = ids_of(photos, Split.VAL)
    assert select_sources(photos, recipe, Selection()) == ids_of(photos, Split.TRAIN)
    assert generate(photos, NOOP, Selection(redo_failed=True, limit=2, split=Split.VAL)).made == 2
    assert done_under(photos) == val[:2]
    assert done_under(photos, State.FAILED) == val[2:], "the others keep their state and their reason"
    assert generate(photos, NOOP, Selection(redo_failed=True)).states["candidate"] == 18
