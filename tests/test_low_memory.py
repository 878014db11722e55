"""Low-memory runs: the bytes and rows of an ordinary one, with as little in memory as each pass needs."""

from __future__ import annotations

import gc
import logging
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from db.models import Candidate, Outcome, Recipe, SourceImage, Split, State
from db.progress import Cancelled
from db.workspace import Workspace, open_workspace
from generation.backends import BackendChanged, BackendsInTurn, load_backends
from generation.pipeline import RunSettings, Selection, generate
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from tests.conftest import write_photos
from tests.test_pipeline import _files, _rows
from tests.tracked_backends import NAMES, DetectingMasker, TrackedMasker, tracked

__all__ = ["tracked"]

PHOTOS = 30
LOW = RunSettings(low_memory=True)
# By kind of masker: what each pass may have in memory while it works.
ALLOWED = {
    "plain": {"propose": {"masker"}, "inpaint": {"inpainter", "scorer"}, "score": {"inpainter", "scorer"}},
    "detecting": {
        "propose": {"masker"},
        "inpaint": {"inpainter"},
        "score": {"scorer", "detector"},
        "residual": {"scorer", "detector"},
    },
    "looking": {
        "propose": {"masker", "inpainter"},
        "inpaint": {"masker", "inpainter"},
        "second look": {"masker", "inpainter"},
        "score": {"scorer"},
    },
    "both": {
        "propose": {"masker", "inpainter"},
        "inpaint": {"masker", "inpainter"},
        "second look": {"masker", "inpainter"},
        "score": {"scorer", "detector"},
        "residual": {"scorer", "detector"},
    },
}


def options_for(masker: str, **more: object) -> RecipeOptions:
    return RecipeOptions(masker=masker, inpainter="tracked", scorer="tracked", **more)


@pytest.fixture(scope="module", autouse=True)
def small_heap():
    """Every pass ends with a full collection, which would walk through all that the tests before have loaded."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), PHOTOS)


def workspace_of(folder: Path, photos: Path) -> Workspace:
    workspace = open_workspace(folder)
    import_images(workspace, ImportSpec("imagefolder", photos, None, Split.VAL))
    return workspace


def everything(workspace: Workspace) -> tuple:
    """Rows, files and recipe; timings only by their names, since they never come twice."""
    with workspace.read() as session:
        recipes = list(session.execute(select(Recipe.hash, Recipe.config)))
        columns = [column for column in Candidate.__table__.columns if column.name not in ("timings", "created_at")]
        candidates = list(session.execute(select(*columns).order_by(Candidate.id)))
        stages = {frozenset(timings) for timings in session.scalars(select(Candidate.timings))}
    return recipes, candidates, stages, _rows(workspace), _files(workspace)


class CancelAfter:
    def __init__(self, updates: int) -> None:
        self.left = updates
        self.said: list[tuple[int, int | None, str]] = []

    def update(self, done, total, message=""):
        self.said.append((done, total, message))
        self.left -= 1
        if self.left < 0:
            raise Cancelled

    def log(self, line):
        pass


@pytest.mark.parametrize("masker", list(NAMES))
def test_the_result_is_that_of_an_ordinary_run(masker, tracked, tmp_path, photos):
    options = options_for(masker)
    ordinary = workspace_of(tmp_path / "ordinary", photos)
    whole = generate(ordinary, options)
    tracked.begin()
    frugal = workspace_of(tmp_path / "frugal", photos)
    low = generate(frugal, options, settings=LOW)
    assert low.recipe_hash == whole.recipe_hash
    assert (low.made, low.states) == (whole.made, whole.states)
    assert all(low.states[state] for state in ("candidate", "no_detection", "mask_too_small", "failed"))
    assert everything(frugal) == everything(ordinary)
    with ordinary.read() as session:
        looked = {notes.get("second_look") for notes in session.scalars(select(Candidate.notes))}
        found = {len(boxes or ()) for boxes in session.scalars(select(Candidate.residual_boxes))}
    if masker in ("looking", "both"):
        assert {"kept", "did not help"} <= looked
    if masker in ("detecting", "both"):
        assert found == {0, 1}


@pytest.mark.parametrize("masker", list(NAMES))
def test_no_pass_holds_more_than_it_needs(masker, tracked, tmp_path, photos, monkeypatch):
    # A kept log record of a failed image would keep the frames of its traceback, and what they refer to.
    monkeypatch.setattr(logging.getLogger("generation.work"), "disabled", True)
    workspace = workspace_of(tmp_path / "w", photos)
    gc.collect()
    tracked.begin()
    generate(workspace, options_for(masker), settings=LOW)
    loading = tracked.together.pop("loading")
    assert {work: {frozenset(kinds)} for work, kinds in ALLOWED[masker].items()} == tracked.together
    assert max(map(len, loading)) <= 2
    # The masker comes last of those that are asked for their fingerprints, and the first pass goes on with it.
    assert tracked.loaded[:3] == ["scorer", "inpainter", "masker"]
    assert tracked.loaded.count("masker") == 1
    gc.collect()
    assert not tracked.alive


def test_a_second_look_that_the_recipe_declines_needs_no_masker_beside_the_inpainter(tracked, tmp_path, photos):
    workspace = workspace_of(tmp_path / "w", photos)
    result = generate(workspace, options_for("looking", second_look=False), settings=LOW)
    assert result.passes == ("mask", "inpaint and score")
    assert tracked.together["propose"] == {frozenset({"masker"})}


@pytest.mark.parametrize("masker", ["plain", "both"])
def test_cancelled_anywhere_it_goes_on_from_there(masker, tracked, tmp_path, photos):
    options = options_for(masker)
    quiet = workspace_of(tmp_path / "quiet", photos)
    generate(quiet, options, settings=LOW)
    disturbed = workspace_of(tmp_path / "disturbed", photos)
    draw = random.Random(20250601)
    cancels = 0
    for updates in draw.sample(range(4, PHOTOS), 5):
        try:
            # Whether in passes or not: the one takes up what the other left.
            generate(disturbed, options, progress=CancelAfter(updates), settings=RunSettings(cancels % 3 != 2))
        except Cancelled:
            cancels += 1
    assert cancels >= 3, "the runs ended before they could be cancelled"
    generate(disturbed, options, settings=LOW)
    # Rows come in another order where a pass was cut short: candidates are numbered as they are finished.
    assert [row[:4] for row in _rows(disturbed)] == [row[:4] for row in _rows(quiet)]
    assert [row[4] and row[4][1:] for row in _rows(disturbed)] == [row[4] and row[4][1:] for row in _rows(quiet)]
    assert _files(disturbed) == _files(quiet)


def test_nothing_that_was_finished_is_done_again(tracked, tmp_path, photos):
    workspace = workspace_of(tmp_path / "w", photos)
    options = options_for("plain")
    with pytest.raises(Cancelled):
        generate(workspace, options, progress=CancelAfter(PHOTOS + 12), settings=LOW)
    tracked.begin()
    result = generate(workspace, options, settings=LOW)
    assert "propose" not in tracked.together, "every mask was on disk"
    assert 0 < result.made < PHOTOS
    assert generate(workspace, options, settings=LOW).made == 0


def test_a_limit_takes_the_same_sources_through_every_pass(tracked, tmp_path, photos):
    workspace = workspace_of(tmp_path / "w", photos)
    assert generate(workspace, options_for("both"), Selection(limit=15), settings=LOW).made == 15
    with workspace.read() as session:
        first = list(session.scalars(select(SourceImage.id).order_by(SourceImage.id).limit(15)))
        assert list(session.scalars(select(Outcome.source_id).order_by(Outcome.source_id))) == first


def test_progress_counts_every_pass_and_comes_to_an_end(tracked, tmp_path, photos):
    workspace = workspace_of(tmp_path / "w", photos)
    progress = CancelAfter(10**6)
    generate(workspace, options_for("detecting"), progress=progress, settings=LOW)
    counted = [(done, total) for done, total, _ in progress.said if total is not None]
    assert counted[0] == (0, 3 * PHOTOS)
    assert [done for done, _ in counted] == sorted(done for done, _ in counted)
    assert counted[-1][0] == counted[-1][1] < 3 * PHOTOS
    said = [message for *_, message in progress.said]
    for prefix in ("Pass 1 of 3, mask: ", "Pass 2 of 3, inpaint: ", "Pass 3 of 3, score: "):
        assert any(message.startswith(prefix) for message in said)


class DeletesMasks(CancelAfter):
    """Throws the mask cache away when the second pass begins, as somebody tidying up would."""

    def __init__(self, workspace: Workspace) -> None:
        super().__init__(10**6)
        self._workspace = workspace

    def update(self, done, total, message=""):
        if message == "Pass 2 of 2, inpaint and score: Loading the models":
            shutil.rmtree(self._workspace.root / "cache" / "masks")


def test_a_mask_that_vanished_between_passes_fails_by_name(tracked, tmp_path, photos, monkeypatch):
    monkeypatch.setattr("generation.pipeline.MAX_FAILURES_IN_A_ROW", PHOTOS)
    workspace = workspace_of(tmp_path / "w", photos)
    options = options_for("plain")
    result = generate(workspace, options, Selection(limit=10), progress=DeletesMasks(workspace), settings=LOW)
    assert result.states["failed"] > 0 and result.states["candidate"] == 0
    with workspace.read() as session:
        reason = session.scalar(select(Outcome.reason).where(Outcome.state == State.FAILED).limit(1))
    assert "the pass before left on disk is gone" in reason and "--redo-failed" in reason
    again = generate(workspace, options, Selection(limit=10, redo_failed=True), settings=LOW)
    assert again.states["candidate"] > 0


def test_a_backend_that_changed_meanwhile_is_refused(tracked, monkeypatch):
    backends = BackendsInTurn(options_for("detecting"))
    backends.hold("inpainter")
    monkeypatch.setattr(TrackedMasker, "version", 2)
    with pytest.raises(BackendChanged, match="masker 'DetectingMasker'"):
        backends.hold("detector")
    monkeypatch.setattr(TrackedMasker, "version", 1)
    backends.hold("detector")
    assert isinstance(backends.residual_detector, DetectingMasker)


def test_the_recipe_is_known_before_anything_is_made(tracked):
    for masker in NAMES:
        options = options_for(masker)
        assert BackendsInTurn(options).recipe(options) == load_backends(options).recipe(options)
    other = replace(options_for("plain"), seed=1)
    assert BackendsInTurn(other).recipe(other)[0] != BackendsInTurn(other).recipe(options_for("plain"))[0]
