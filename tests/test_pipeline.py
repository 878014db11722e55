"""The pipeline with backends that cost nothing: states, resume after SIGKILL, reuse, one bad image."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sqlalchemy import func, select

from db.models import Candidate, Outcome, Recipe, SourceImage, Split, State
from db.progress import Cancelled
from db.queries import active_recipe, state_counts
from db.workspace import Workspace, open_workspace
from generation import pipeline
from generation.artifacts import decode_png
from generation.backends import Backends, load_backends
from generation.devices import run_in_batches
from generation.masking.postprocess import dilate
from generation.pipeline import GenerationStopped, RunSettings, Selection, generate
from generation.preview import preview
from generation.protocols import Box, InpaintResult, MaskProposal
from generation.recipe import RecipeError, RecipeOptions
from generation.sources import ImportSpec, import_images
from tests.conftest import ROOT, write_photos

NOOP = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")


@pytest.fixture
def photos(workspace: Workspace, tmp_path: Path) -> Workspace:
    return _with_photos(workspace, tmp_path, 12)


def _with_photos(workspace: Workspace, folder: Path, count: int) -> Workspace:
    if not (folder / "photos").exists():
        write_photos(folder / "photos", count)
    summary = import_images(workspace, ImportSpec("imagefolder", folder / "photos", None, Split.VAL))
    assert summary.added == count
    return workspace


def _rows(workspace: Workspace) -> list[tuple]:
    """Everything about the candidates and outcomes but the times they took."""
    query = (
        select(Outcome.source_id, SourceImage.name, Outcome.state, Outcome.reason, Candidate)
        .join(SourceImage, SourceImage.id == Outcome.source_id)
        .outerjoin(Candidate, Candidate.id == Outcome.candidate_id)
        .order_by(Outcome.source_id)
    )
    with workspace.read() as session:
        return [
            (
                *row[:4],
                None
                if row[4] is None
                else (
                    row[4].id,
                    row[4].folder,
                    row[4].result_sha256,
                    row[4].drop,
                    row[4].phash,
                    row[4].area,
                    row[4].notes,
                ),
            )
            for row in session.execute(query)
        ]


def _files(workspace: Workspace) -> dict[str, str]:
    """sha256 by path of every file the pipeline made, the database aside."""
    files = [path for part in ("candidates", "cache") for path in (workspace.root / part).rglob("*") if path.is_file()]
    return {str(p.relative_to(workspace.root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


class Counting:
    """A backend that counts the images it was asked about."""

    def __init__(self, inner, method: str) -> None:
        self._inner = inner
        self.seen = 0
        original = getattr(inner, method)

        def counted(first, *rest):
            self.seen += len(first)
            return original(first, *rest)

        setattr(self, method, counted)

    def fingerprint(self):
        return self._inner.fingerprint()


def _counting() -> Backends:
    inner = load_backends(NOOP)
    return Backends(
        Counting(inner.masker, "propose"), Counting(inner.inpainter, "inpaint"), Counting(inner.scorer, "score")
    )


def _seen(backends: Backends) -> tuple[int, int, int]:
    return backends.masker.seen, backends.inpainter.seen, backends.scorer.seen


def test_every_source_becomes_a_candidate_and_the_states_add_up(photos):
    result = generate(photos, NOOP)
    assert result.made == 12
    assert result.states["candidate"] == 12
    assert sum(result.states.values()) == 12
    with photos.read() as session:
        for candidate in session.scalars(select(Candidate)):
            folder = photos.path(candidate.folder)
            names = {"raw.png", "mask.png", "dilated.png", "result.png", "thumbnail.jpg", "candidate.json"}
            assert {path.name for path in folder.iterdir()} == names
            raw, mask, dilated, made = (
                decode_png((folder / f"{n}.png").read_bytes()) for n in ("raw", "mask", "dilated", "result")
            )
            assert raw.shape == made.shape == (224, 224, 3)
            assert np.array_equal(dilated, dilate(mask, 12, "square"))
            assert np.array_equal(raw[dilated == 0], made[dilated == 0])
            assert candidate.result_sha256 == hashlib.sha256((folder / "result.png").read_bytes()).hexdigest()
            assert set(candidate.timings) == {"decode", "mask", "inpaint", "score", "write"}


def test_native_resolution_keeps_the_photos_own_size(photos):
    generate(photos, RecipeOptions(masker="noop", inpainter="noop", scorer="noop", resolution="native"))
    with photos.read() as session:
        assert set(session.execute(select(Candidate.width, Candidate.height))) == {(96, 80)}


def test_a_second_run_does_nothing(photos):
    generate(photos, NOOP)
    rows, files = _rows(photos), _files(photos)
    backends = _counting()
    assert generate(photos, NOOP, backends=backends).made == 0
    assert _seen(backends) == (0, 0, 0)
    assert (_rows(photos), _files(photos)) == (rows, files)


def test_a_changed_option_redoes_only_what_it_touches(photos):
    generate(photos, NOOP)
    threshold, dilation = _counting(), _counting()
    changed = {"masker": "noop", "inpainter": "noop", "scorer": "noop"}
    generate(photos, RecipeOptions(**changed, min_area=0.01), backends=threshold)
    assert _seen(threshold) == (0, 0, 0)
    generate(photos, RecipeOptions(**changed, dilation=20), backends=dilation)
    assert _seen(dilation) == (0, 12, 12)
    with photos.read() as session:
        assert session.scalar(select(func.count()).select_from(Recipe)) == 3
        assert session.scalar(select(func.count()).select_from(Candidate)) == 36


def test_a_damaged_candidate_folder_is_made_again(photos):
    generate(photos, NOOP)
    files = _files(photos)
    with photos.read() as session:
        first = session.scalar(select(Candidate).limit(1))
    (photos.path(first.folder) / "result.png").write_bytes(b"\x89PNG cut off")
    generate(photos, RecipeOptions(masker="noop", inpainter="noop", scorer="noop", min_area=0.01))
    assert _files(photos) == files


@pytest.mark.parametrize(
    ("options", "state"),
    [
        ({"min_area": 0.5}, State.MASK_TOO_SMALL),
        ({"max_area": 0.1}, State.MASK_TOO_LARGE),
        ({"max_dilated_area": 0.255}, State.MASK_TOO_LARGE),
    ],
)
def test_masks_outside_the_limits_have_their_own_state(photos, options, state):
    result = generate(photos, RecipeOptions(masker="noop", inpainter="noop", scorer="noop", **options))
    assert result.states[state.value] == 12
    with photos.read() as session:
        assert session.scalar(select(func.count()).select_from(Candidate)) == 0
        assert "The" in session.scalar(select(Outcome.reason).limit(1))


class _EmptyMasker:
    def fingerprint(self):
        return {"name": "empty"}

    def propose(self, requests):
        return [MaskProposal(np.zeros(r.image.shape[:2], np.uint8)) for r in requests]


def test_nothing_detected_is_a_state(photos):
    inner = load_backends(NOOP)
    result = generate(photos, NOOP, backends=Backends(_EmptyMasker(), inner.inpainter, inner.scorer))
    assert result.states["no_detection"] == 12


class _LookingAgain(_EmptyMasker):
    """Masks the centre, and finds the object again on the candidates whose corner is dark."""

    def propose(self, requests):
        return load_backends(NOOP).masker.propose(requests)

    def residual_boxes(self, requests, candidates):
        self.asked = getattr(self, "asked", 0) + len(candidates)
        box = Box(0, 0, 9, 9, "tench", 0.7)
        return [(box,) if candidate[0, 0].mean() < 128 else () for candidate in candidates]


def test_what_the_detector_still_finds_is_kept_with_the_candidate(photos):
    inner = load_backends(NOOP)
    masker = _LookingAgain()
    backends = Backends(masker, inner.inpainter, inner.scorer)
    generate(photos, NOOP, backends=backends)
    with photos.read() as session:
        candidates = session.scalars(select(Candidate)).all()
    for candidate in candidates:
        corner = decode_png((photos.path(candidate.folder) / "result.png").read_bytes())[0, 0].mean()
        assert [box["confidence"] for box in candidate.residual_boxes] == ([0.7] if corner < 128 else [])
    assert {len(c.residual_boxes) for c in candidates} == {0, 1}
    changed = RecipeOptions(masker="noop", inpainter="noop", scorer="noop", min_area=0.01)
    generate(photos, changed, backends=backends)
    assert masker.asked == 12, "a limit that touches no pixel does not run the detector again"


class _FailingInpainter:
    """Raises for the images whose mean is among the given ones."""

    def __init__(self, bad: set[bytes]) -> None:
        self.bad = bad

    def fingerprint(self):
        return {"name": "failing"}

    def inpaint(self, images, holes):
        if any(image.tobytes() in self.bad for image in images):
            raise ArithmeticError("this image is cursed")
        return [InpaintResult(image) for image in images]


def _raw_pixels(workspace: Workspace, number: int) -> bytes:
    with workspace.read() as session:
        source = session.scalars(select(SourceImage).order_by(SourceImage.id)).all()[number]
    with Image.open(Path(source.root) / source.path) as image:
        return np.asarray(image.resize((224, 224), Image.Resampling.LANCZOS)).tobytes()


def test_one_bad_image_costs_one_image(photos):
    inner = load_backends(NOOP)
    failing = _FailingInpainter({_raw_pixels(photos, 3), _raw_pixels(photos, 4)})
    backends = Backends(inner.masker, failing, inner.scorer)
    result = generate(photos, NOOP, backends=backends)
    assert (result.states["failed"], result.states["candidate"]) == (2, 10)
    with photos.read() as session:
        reasons = set(session.scalars(select(Outcome.reason).where(Outcome.state == State.FAILED)))
    assert reasons == {"inpaint: ArithmeticError: this image is cursed"}
    failing.bad.clear()
    assert generate(photos, NOOP, backends=backends).made == 0
    again = generate(photos, NOOP, Selection(redo_failed=True), backends=backends)
    assert (again.made, again.states["candidate"]) == (2, 12)


class _CancelAfter:
    def __init__(self, steps: int) -> None:
        self.left = steps

    def update(self, done, total, message=""):
        self.left -= done > 0
        if self.left < 0:
            raise Cancelled

    def log(self, line):
        pass


class _Hungry:
    """An inpainter whose GPU holds two images, and one of one kind only."""

    def __init__(self, greedy: set[bytes]) -> None:
        self.greedy = greedy
        self.sizes: list[int] = []

    def fingerprint(self):
        return {"name": "hungry"}

    def inpaint(self, images, holes):
        return run_in_batches(self._fill, list(images), 8, what="images")

    def _fill(self, images):
        self.sizes.append(len(images))
        if len(images) > 2 or any(image.tobytes() in self.greedy for image in images):
            raise RuntimeError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return [InpaintResult(image) for image in images]


class _Notes(_CancelAfter):
    def __init__(self) -> None:
        super().__init__(10**6)
        self.lines: list[str] = []

    def log(self, line):
        self.lines.append(line)


def test_one_image_that_does_not_fit_costs_one_image(photos):
    inner = load_backends(NOOP)
    hungry = _Hungry({_raw_pixels(photos, 5)})
    notes = _Notes()
    settings = RunSettings(batch=6)
    backends = Backends(inner.masker, hungry, inner.scorer)
    result = generate(photos, NOOP, backends=backends, settings=settings, progress=notes)
    assert (result.states["failed"], result.states["candidate"]) == (1, 11)
    assert max(hungry.sizes) > 2
    with photos.read() as session:
        (reason,) = session.scalars(select(Outcome.reason).where(Outcome.state == State.FAILED))
    assert reason.startswith("inpaint: RuntimeError: CUDA out of memory.")
    assert any("going on with" in line for line in notes.lines), "the job's log says that batches were halved"


class _LookingWide:
    """Masks the centre, and at the second look half the image, which always helps; counts what it was shown."""

    def __init__(self) -> None:
        self.areas: list[int] = []

    def fingerprint(self):
        return {"name": "wide"}

    def propose(self, requests):
        return load_backends(NOOP).masker.propose(requests)

    def second_look(self, request, mask, inpainted):
        self.areas.append(int((mask != 0).sum()))
        larger = mask.copy()
        larger[:112] = 255
        return larger

    def second_look_helped(self, request, first, second):
        return True


@pytest.mark.parametrize("batch", [1, 4, 12])
def test_a_bad_image_leaves_no_trace_in_the_others_of_its_batch(photos, tmp_path, batch):
    inner = load_backends(NOOP)
    masker = _LookingWide()
    # The last of a batch is cursed: the others have had their second look by then, and begin again.
    failing = _FailingInpainter(set())
    plain = failing.inpaint
    cursed = {_raw_pixels(photos, n) for n in (3, 11)}

    def second_fails(images, holes):
        if len(images) == 1 and images[0].tobytes() in cursed and (holes[0][:100] != 0).all():
            raise ArithmeticError("this image is cursed")
        return plain(images, holes)

    failing.inpaint = second_fails
    backends = Backends(masker, failing, inner.scorer)
    result = generate(photos, NOOP, backends=backends, settings=RunSettings(batch=batch))
    assert (result.states["failed"], result.states["candidate"]) == (2, 10)
    assert set(masker.areas) == {112 * 112}, "every second look saw the first mask"
    with photos.read() as session:
        areas = set(session.scalars(select(Candidate.area)))
        assert {note["second_look"] for note in session.scalars(select(Candidate.notes))} == {"kept"}
    assert areas == {(112 * 224 + 56 * 112) / 224**2}


def test_a_source_that_vanished_or_changed_fails_by_name(photos):
    with photos.read() as session:
        first, second = session.scalars(select(SourceImage).order_by(SourceImage.id).limit(2)).all()
    (Path(first.root) / first.path).unlink()
    (Path(second.root) / second.path).write_bytes(b"something else")
    result = generate(photos, NOOP)
    assert (result.states["failed"], result.states["candidate"]) == (2, 10)
    with photos.read() as session:
        reasons = list(session.scalars(select(Outcome.reason).where(Outcome.state == State.FAILED)))
    assert all(name in reason for name, reason in zip((first.path, second.path), reasons, strict=True))


def test_nothing_but_failures_stops_the_run(photos, monkeypatch):
    monkeypatch.setattr(pipeline, "MAX_FAILURES_IN_A_ROW", 5)
    inner = load_backends(NOOP)
    failing = _FailingInpainter({_raw_pixels(photos, n) for n in range(12)})
    with pytest.raises(GenerationStopped, match="cursed"):
        generate(photos, NOOP, backends=Backends(inner.masker, failing, inner.scorer))
    with photos.read() as session:
        counts = state_counts(session, active_recipe(session))
    assert counts[State.FAILED] + counts[State.PENDING] == 12


def test_limit_and_classes_choose_the_sources(photos):
    assert generate(photos, NOOP, Selection(limit=3)).made == 3
    assert generate(photos, NOOP, Selection(classes=(1,))).made == 6
    assert generate(photos, NOOP).made == 3


def test_a_cancel_keeps_what_is_finished(photos):
    with pytest.raises(Cancelled):
        generate(photos, NOOP, progress=_CancelAfter(4))
    with photos.read() as session:
        done = session.scalar(select(func.count()).select_from(Outcome))
    assert 4 <= done < 12
    assert generate(photos, NOOP).made == 12 - done


class _CountsRows:
    """How many rows are committed at each step, as another process sees it."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self.committed = []

    def update(self, done, total, message=""):
        with self._workspace.read() as session:
            self.committed.append(session.scalar(select(func.count()).select_from(Outcome)))

    def log(self, line):
        pass


@pytest.mark.parametrize(("seconds", "before_the_end"), [(0.0, 11), (1e9, 0)])
def test_slow_work_is_committed_as_time_passes(photos, monkeypatch, seconds, before_the_end):
    monkeypatch.setattr(pipeline, "COMMIT_SECONDS", seconds)
    watched = _CountsRows(photos)
    generate(photos, NOOP, progress=watched)
    assert watched.committed[-2] == before_the_end


_CHILD = """
import sys
from db.workspace import open_workspace
from generation.pipeline import generate
from generation.recipe import RecipeOptions
generate(open_workspace(sys.argv[1]), RecipeOptions(masker="noop", inpainter="noop", scorer="noop"))
"""


def test_killed_at_random_points_the_result_is_the_same_bytes(tmp_path):
    count = 120
    disturbed = _with_photos(open_workspace(tmp_path / "disturbed"), tmp_path, count)
    quiet = _with_photos(open_workspace(tmp_path / "quiet"), tmp_path, count)
    generate(quiet, NOOP)

    draw = random.Random(20250601)
    kills = 0
    for target in sorted(draw.sample(range(1, count - 20), 4)):
        child = subprocess.Popen([sys.executable, "-c", _CHILD, str(disturbed.root)], cwd=ROOT)
        while child.poll() is None and len(list((disturbed.root / "candidates").glob("*/*/result.png"))) < target:
            time.sleep(0.005)
        time.sleep(draw.random() * 0.05)
        os.kill(child.pid, signal.SIGKILL)
        kills += child.wait() == -signal.SIGKILL
    assert kills >= 2, "the runs finished before they could be killed"

    finished = generate(disturbed, NOOP)
    assert finished.states["candidate"] == count
    assert _rows(disturbed) == _rows(quiet)
    made = {path: sha for path, sha in _files(disturbed).items() if not path.endswith(".part") and "/." not in path}
    assert made == _files(quiet)


def test_preview_shows_every_stage_and_records_nothing(photos):
    with photos.read() as session:
        source_id = session.scalar(select(SourceImage.id).limit(1))
    shown = preview(photos, NOOP, source_id, load_backends(NOOP))
    assert shown["state"] == "candidate"
    assert {"raw.png", "mask.png", "dilated.png", "result.png"} <= set(shown["images"])
    assert all((photos.root / "previews" / shown["key"] / name).is_file() for name in shown["images"])
    with photos.read() as session:
        assert session.scalar(select(func.count()).select_from(Candidate)) == 0
        assert active_recipe(session) is None


@pytest.mark.parametrize(
    ("option", "value"),
    [("resolution", "512"), ("dilation", -1), ("min_area", 0.95), ("max_components", 0), ("dilation_shape", "star")],
)
def test_a_recipe_option_out_of_range_is_named(option, value):
    with pytest.raises(RecipeError, match=option):
        RecipeOptions(**{option: value})


def test_an_unknown_recipe_option_is_refused():
    with pytest.raises(RecipeError, match="dilatation"):
        RecipeOptions.from_dict({"dilatation": 12})


def test_the_recipe_hash_follows_options_and_weights():
    backends = load_backends(NOOP)
    first, _ = backends.recipe(NOOP)
    assert backends.recipe(NOOP)[0] == first
    assert backends.recipe(RecipeOptions(masker="noop", inpainter="noop", scorer="noop", seed=1))[0] != first
    assert Backends(_EmptyMasker(), backends.inpainter, backends.scorer).recipe(NOOP)[0] != first
