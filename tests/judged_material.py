"""A workspace with candidates whose numbers tell good from bad, and verdicts on them, straight through the tables."""

from __future__ import annotations

import hashlib
import uuid
from dataclasses import dataclass

import numpy as np
from PIL import Image

from db.models import Candidate, ImageClass, Kind, Reason, Recipe, SourceImage, Split
from db.queries import ACTIVE_RECIPE, ensure_user, set_meta
from db.workspace import Workspace
from review.decisions import DecisionEvent, Status, record

CLASSES = ("tench", "goldfish", "great white shark", "tiger shark")


@dataclass(frozen=True)
class Material:
    """Candidate ids in order, which of them are good, and the recipe."""

    ids: list[int]
    good: list[bool]
    recipe_id: int


def make_candidates(workspace: Workspace, count: int, *, seed: int = 0, hashes: list[int] | None = None) -> Material:
    """``count`` background candidates, three of four good; bad ones have a lower drop and a higher residual."""
    draw = np.random.default_rng(seed)
    good = draw.random(count) < 0.75
    drop = np.where(good, 7.0, 3.0) + draw.normal(0, 1.0, count)
    residual = np.where(good, 1.0, 4.0) + draw.normal(0, 1.0, count)
    if hashes is None:
        hashes = draw.integers(0, 2**64, count, dtype=np.uint64).tolist()
    with workspace.write() as session:
        for index, name in enumerate(CLASSES):
            session.merge(ImageClass(class_index=index, wnid=f"n{index:08d}", name=name))
        recipe = Recipe(hash="f" * 64, config={})
        session.add(recipe)
        session.flush()
        set_meta(session, ACTIVE_RECIPE, str(recipe.id))
        ids = []
        for number in range(count):
            source = SourceImage(
                name=f"photo_{number:05d}",
                split=Split.VAL,
                root=str(workspace.root),
                path=f"{number}.png",
                sha256=hashlib.sha256(f"photo {number}".encode()).hexdigest(),
                bytes=1,
                width=16,
                height=16,
                class_index=number % len(CLASSES),
            )
            session.add(source)
            session.flush()
            candidate = new_candidate(source, recipe.id, number)
            candidate.drop, candidate.residual = float(drop[number]), float(residual[number])
            candidate.phash = f"{hashes[number]:016x}"
            session.add(candidate)
            session.flush()
            ids.append(candidate.id)
    return Material(ids, good.tolist(), recipe.id)


def new_candidate(source: SourceImage, recipe_id: int, number: int, **values) -> Candidate:
    sha = hashlib.sha256(f"candidate {number} {values}".encode()).hexdigest()
    return Candidate(
        source_id=source.id,
        recipe_id=recipe_id,
        kind=Kind.BACKGROUND,
        class_index=source.class_index,
        folder=f"candidates/{sha[:2]}/{sha}",
        result_sha256=sha,
        width=16,
        height=16,
        logit_source=20.0,
        logit_candidate=14.0,
        drop=6.0,
        residual=1.0,
        rank=1 + number % 50,
        probability=0.01,
        area=0.18,
        dilated_area=0.22,
        phash=f"{number:016x}",
        boxes=[{"x0": 1, "y0": 1, "x1": 9, "y1": 9, "phrase": "fish", "confidence": 0.7}],
        residual_boxes=None,
        timings={},
        notes={},
        **values,
    )


def write_images(workspace: Workspace, candidate_id: int, **images: np.ndarray) -> None:
    """Files of the candidate's folder by stem: ``mask=array`` writes mask.png."""
    with workspace.read() as session:
        folder = workspace.path(session.get(Candidate, candidate_id).folder)
    folder.mkdir(parents=True, exist_ok=True)
    for stem, pixels in images.items():
        Image.fromarray(pixels).save(folder / f"{stem}.png")


def user_id_of(workspace: Workspace, name: str = "ann") -> int:
    with workspace.write() as session:
        return ensure_user(session, name).id


def say(workspace: Workspace, verdicts: dict[int, bool | None], user_id: int) -> None:
    """Decide on candidates by id: True accepts, False rejects, None skips."""
    names = {True: "accept", False: "reject", None: "skip"}
    with workspace.read() as session:
        shas = {key: session.get(Candidate, key).result_sha256 for key in verdicts}
    events = [
        DecisionEvent(str(uuid.uuid4()), names[value], key, shas[key], (Reason.OBJECT_LEFT,) if value is False else ())
        for key, value in verdicts.items()
    ]
    assert {result.status for result in record(workspace, events, user_id)} <= {Status.STORED}
