"""Train photos with backends that cost nothing, whose masks depend on the class: for tests of training data."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from sqlalchemy import select

from db.models import Candidate, Kind, Outcome, SourceImage, Split
from db.progress import Cancelled
from db.workspace import Workspace, open_workspace
from generation.backends import Backends, load_backends
from generation.pipeline import generate
from generation.protocols import MaskProposal
from generation.recipe import RecipeOptions
from generation.sources import ImportSpec, import_images
from tests.conftest import write_photos

NOOP = RecipeOptions(masker="noop", inpainter="noop", scorer="noop")
LARGE_A, LARGE_B, SMALL, NO_CELL = "n01440764", "n01443537", "n01484850", "n01491361"
WNIDS = (LARGE_A, LARGE_B, SMALL, NO_CELL)
INDEX = {wnid: index for index, wnid in enumerate(WNIDS)}


class MaskerByClass:
    """The first two classes get a large object (61 % of 224 x 224, 30 whole cells), the third a small one of four
    cells, all others one that covers no cell wholly."""

    def fingerprint(self):
        return {"name": "by_class"}

    def propose(self, requests):
        return [MaskProposal(self.mask(one.class_index, one.image.shape[:2])) for one in requests]

    @staticmethod
    def mask(class_index: int, size: tuple[int, int] = (224, 224)) -> np.ndarray:
        rows, columns = {0: (160, 192), 1: (160, 192)}.get(class_index, (0, 0))
        mask = np.zeros(size, np.uint8)
        mask[:rows, :columns] = 255
        if class_index == 2:
            mask[32:96, 32:96] = 255
        elif class_index > 2:
            mask[40:84, 40:84] = 255
        return mask


def backends() -> Backends:
    inner = load_backends(NOOP)
    return Backends(MaskerByClass(), inner.inpainter, inner.scorer)


def with_train_photos(root: Path, photos: Path, *, count: int = 16, split: Split = Split.TRAIN) -> Workspace:
    """A workspace of ``count`` photos spread over :data:`WNIDS`, with their background candidates."""
    if not photos.exists():
        write_photos(photos, count, classes=WNIDS)
    workspace = open_workspace(root)
    assert import_images(workspace, ImportSpec("imagefolder", photos, None, split)).added == count
    generate(workspace, NOOP, backends=backends())
    return workspace


def candidates(workspace: Workspace, kind: Kind) -> list[Candidate]:
    with workspace.read() as session:
        return list(session.scalars(select(Candidate).where(Candidate.kind == kind).order_by(Candidate.id)))


def sources(workspace: Workspace) -> dict[int, SourceImage]:
    with workspace.read() as session:
        return {one.id: one for one in session.scalars(select(SourceImage))}


def rows(workspace: Workspace, kind: Kind) -> list[tuple]:
    """All that matters of the candidates of a kind and of their recipes' outcomes; no times, no ids of others."""
    names = {key: one.name for key, one in sources(workspace).items()}
    made = candidates(workspace, kind)
    with workspace.read() as session:
        ends = session.scalars(select(Outcome).where(Outcome.recipe_id.in_({one.recipe_id for one in made})))
        outcomes = sorted((names[one.source_id], str(one.state), one.reason) for one in ends)
    listed = [
        (names[c.source_id], c.variant, c.version, c.folder, c.result_sha256, c.drop, c.phash, c.area, str(c.details))
        for c in made
    ]
    return [*listed, *outcomes]


def files(workspace: Workspace) -> dict[str, str]:
    """sha256 by path of every candidate's files; what a killed run left half-written is not counted."""
    found = [path for path in (workspace.root / "candidates").rglob("*") if path.is_file() and "/." not in str(path)]
    return {str(p.relative_to(workspace.root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in found}


class CancelAfter:
    """A progress that cancels after so many steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps
        self.lines: list[str] = []

    def update(self, done, total, message=""):
        self.left -= done > 0
        if self.left < 0:
            raise Cancelled

    def log(self, line):
        self.lines.append(line)
