"""The whole pipeline at the published sizes on the CPU, with random weights: as real to everything but the eye.

Skipped unless asked for with --run-slow: 4.3 GB of files, 10 GB of memory, several minutes.
"""

from __future__ import annotations

import gc
import hashlib
import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from sqlalchemy import select

from benchmarks.pipeline import write_photos
from benchmarks.random_models import MAX_BOXES, RANDOM_OPTIONS, ModelFiles, load_backends, real_models
from db.models import Candidate, Outcome, Split, State
from db.workspace import Workspace
from generation.artifacts import decode_png
from generation.pipeline import generate
from generation.sources import ImportSpec, import_images

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

PHOTOS = 2
FILES = {"raw.png", "mask.png", "dilated.png", "result.png", "thumbnail.jpg", "candidate.json"}
# The publishers' own counts; GroundingDINO's and LaMa's papers give two or three digits.
PARAMETERS = {"sam": 641_090_608, "clip": 149_620_737, "groundingdino": 172e6, "lama": 51e6}


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Iterator[ModelFiles]:
    folder = tmp_path_factory.mktemp("models")
    yield real_models(folder)
    shutil.rmtree(folder)


def _parameters(path: Path) -> int:
    """How many numbers the file's state dict holds, those of several names once, tables of positions aside."""
    state = torch.load(path, weights_only=True, mmap=True)
    state = state.get("model", state)
    tables = ("relative_position_index", "position_ids", "gaussian_matrix")
    distinct = {value.data_ptr(): value.numel() for name, value in state.items() if not name.endswith(tables)}
    return sum(distinct.values())


def test_the_sizes_are_the_published_ones(files):
    assert _parameters(files.clip) == PARAMETERS["clip"]
    assert _parameters(files.sam) == PARAMETERS["sam"]
    assert _parameters(files.groundingdino) == pytest.approx(PARAMETERS["groundingdino"], rel=0.01)
    lama = torch.jit.load(files.lama, map_location="cpu")
    assert sum(one.numel() for one in lama.parameters()) == pytest.approx(PARAMETERS["lama"], rel=0.01)


def test_photos_become_candidates_and_a_second_run_makes_nothing(files, workspace, tmp_path):
    write_photos(tmp_path / "photos", PHOTOS)
    import_images(workspace, ImportSpec("imagefolder", tmp_path / "photos", None, Split.VAL))
    backends = load_backends(files, torch.device("cpu"), tmp_path / "cache")

    result = generate(workspace, RANDOM_OPTIONS, backends=backends)
    assert result.made == PHOTOS
    assert sum(result.states.values()) == PHOTOS
    assert result.states["candidate"] == PHOTOS
    candidates = _candidates(workspace)
    assert len(candidates) == PHOTOS
    for candidate in candidates:
        _check(workspace, candidate)

    before = _everything(workspace)
    again = generate(workspace, RANDOM_OPTIONS, backends=backends)
    assert again.made == 0
    assert again.states == result.states
    assert _everything(workspace) == before
    del backends
    gc.collect()


def _candidates(workspace: Workspace) -> list[Candidate]:
    with workspace.read() as session:
        candidates = list(session.scalars(select(Candidate).order_by(Candidate.id)))
        outcomes = list(session.scalars(select(Outcome)))
        session.expunge_all()
    assert {outcome.candidate_id for outcome in outcomes} == {candidate.id for candidate in candidates}
    assert all(outcome.state is State.CANDIDATE for outcome in outcomes)
    return candidates


def _check(workspace: Workspace, candidate: Candidate) -> None:
    folder = workspace.path(candidate.folder)
    assert {path.name for path in folder.iterdir()} == FILES
    raw, mask, dilated, result = (
        decode_png((folder / f"{name}.png").read_bytes()) for name in ("raw", "mask", "dilated", "result")
    )
    assert raw.shape == result.shape == (224, 224, 3)
    outside = dilated == 0
    assert 0 < np.mean(outside) < 1
    assert (result[outside] == raw[outside]).all()
    assert np.mean(result[~outside] != raw[~outside]) > 0.9
    assert dilated[mask != 0].all()

    made = hashlib.sha256((folder / "result.png").read_bytes()).hexdigest()
    assert candidate.result_sha256 == made == json.loads((folder / "candidate.json").read_text())["files"]["result.png"]
    assert 1 <= len(candidate.boxes) <= MAX_BOXES
    assert candidate.residual_boxes is not None
    assert candidate.area == pytest.approx(np.mean(mask != 0))
    assert candidate.drop == pytest.approx(candidate.logit_source - candidate.logit_candidate)
    assert candidate.drop != 0 and 1 <= candidate.rank <= 1000
    assert len(candidate.phash) == 16


def _everything(workspace: Workspace) -> dict[str, tuple[int, str]]:
    """Modification time and sha256 of every file of the candidates and caches, by path."""
    paths = [path for part in ("candidates", "cache") for path in (workspace.root / part).rglob("*") if path.is_file()]
    return {
        str(path.relative_to(workspace.root)): (
            path.stat().st_mtime_ns,
            hashlib.sha256(path.read_bytes()).hexdigest(),
        )
        for path in paths
    }
