"""A workspace as big as a real one to measure review in: made-up numbers, real image files, people's verdicts so far.

Every candidate has a row and a folder of its own with `raw.png`, `mask.png`, `result.png` and `thumbnail.jpg`. The
files are hard links to :data:`PICTURES` different sets of images of 448 pixels (about 250 kB an image), so that 50,000
candidates take 0.3 GB and not 25 GB. Each has an address of its own, so a browser fetches and decodes every one of
them; but the server's files lie in the system's cache after the first few.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from sqlalchemy import insert

from db.models import (
    Candidate,
    CurrentVerdict,
    Decision,
    ImageClass,
    Kind,
    Reason,
    Recipe,
    Role,
    SourceImage,
    Split,
    TriageModel,
    TriagePrediction,
    User,
    Verdict,
    utcnow,
)
from db.queries import ACTIVE_RECIPE, set_meta
from db.workspace import Workspace
from review.triage.labels import Cutoff
from review.triage.order import review_priority

PICTURES = 48
SIDE = 448
CLASSES = 1000
NAMES = ("raw.png", "mask.png", "result.png", "thumbnail.jpg")
ROWS = 5_000
ACCEPT_SHARE = 0.75


@dataclass(frozen=True)
class Filled:
    """Ids of the candidates in order, of the annotators, and how many decisions were there from the start."""

    candidate_ids: list[int]
    user_ids: list[int]
    decisions: int


def fill(
    workspace: Workspace, candidates: int, annotators: int, *, judged: float = 0.2, side: int = SIDE, seed: int = 0
) -> Filled:
    """Fill an empty workspace: a share ``judged`` of the candidates has one annotator's verdict, every one a P(accept).

    Nobody can sign in as one of the annotators: sessions are started for them by their ids.
    """
    draw = np.random.default_rng(seed)
    folders, shas = _write_files(workspace, candidates, side, draw)
    ids = list(range(1, candidates + 1))
    good = draw.random(candidates) < ACCEPT_SHARE
    drop = np.where(good, 7.0, 3.0) + draw.normal(0, 2.0, candidates)
    with workspace.write() as session:
        rows = [{"class_index": n, "wnid": f"n{n:08d}", "name": f"class {n}"} for n in range(CLASSES)]
        session.execute(insert(ImageClass), rows)
        recipe = Recipe(hash="f" * 64, config={})
        users = [User(name=f"annotator {n + 1}", role=Role.ANNOTATOR, password_hash="none") for n in range(annotators)]
        session.add_all([recipe, *users])
        session.flush()
        set_meta(session, ACTIVE_RECIPE, str(recipe.id))
        for start in range(0, candidates, ROWS):
            part = range(start, min(start + ROWS, candidates))
            session.execute(insert(SourceImage), [_source(workspace, n, folders[n], side) for n in part])
            made = [_candidate(n, recipe.id, folders[n], shas[n], float(drop[n]), side, draw) for n in part]
            session.execute(insert(Candidate), made)
        user_ids = [user.id for user in users]
        decided = np.flatnonzero(draw.random(candidates) < judged).tolist()
        _judge(session, decided, ids, shas, good, user_ids)
        _predict(session, recipe.id, ids, decided, good, draw)
    return Filled(ids, user_ids, len(decided))


def _write_files(
    workspace: Workspace, candidates: int, side: int, draw: np.random.Generator
) -> tuple[list[str], list[str]]:
    """Every candidate's folder, relative to the workspace, and the sha256 of its result."""
    pictures = [_write_picture(workspace.root / "pictures" / str(number), side, draw) for number in range(PICTURES)]
    folders, shas = [], []
    for number in range(candidates):
        key = hashlib.sha256(f"candidate {number}".encode()).hexdigest()
        picture, sha = pictures[number % PICTURES]
        folder = workspace.root / "candidates" / key[:2] / key
        folder.mkdir(parents=True)
        for name in NAMES:
            os.link(picture / name, folder / name)
        folders.append(f"candidates/{key[:2]}/{key}")
        shas.append(sha)
    return folders, shas


def _write_picture(folder: Path, side: int, draw: np.random.Generator) -> tuple[Path, str]:
    """Noise at several scales, as photos have structure at every scale; the mask is a disc that the photo shows."""
    scene = np.zeros((side, side, 3), np.float32)
    for cells in (4, 16, 64):
        noise = Image.fromarray(draw.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scene += np.asarray(noise.resize((side, side), Image.Resampling.BICUBIC), np.float32) / 3
    y, x = np.mgrid[0:side, 0:side] / side
    disc = (x - draw.uniform(0.3, 0.7)) ** 2 + (y - draw.uniform(0.3, 0.7)) ** 2 < 0.05
    result = scene.clip(0, 255).astype(np.uint8)
    raw = np.where(disc[..., None], np.uint8([200, 90, 60]), result)
    folder.mkdir(parents=True)
    for name, pixels in (("raw.png", raw), ("mask.png", (disc * 255).astype(np.uint8)), ("result.png", result)):
        Image.fromarray(pixels).save(folder / name)
    Image.fromarray(result).resize((160, 160)).save(folder / "thumbnail.jpg")
    return folder, hashlib.sha256((folder / "result.png").read_bytes()).hexdigest()


def _source(workspace: Workspace, number: int, folder: str, side: int) -> dict:
    return {
        "name": f"photo_{number:06d}",
        "split": Split.VAL,
        "root": str(workspace.root),
        "path": f"{folder}/raw.png",
        "sha256": hashlib.sha256(f"photo {number}".encode()).hexdigest(),
        "bytes": 1,
        "width": side,
        "height": side,
        "class_index": number % CLASSES,
    }


def _candidate(
    number: int, recipe_id: int, folder: str, sha: str, drop: float, side: int, draw: np.random.Generator
) -> dict:
    return {
        "source_id": number + 1,
        "recipe_id": recipe_id,
        "kind": Kind.BACKGROUND,
        "class_index": number % CLASSES,
        "folder": folder,
        "result_sha256": sha,
        "width": side,
        "height": side,
        "logit_source": 25.0,
        "logit_candidate": 25.0 - drop,
        "drop": drop,
        "residual": float(draw.normal(5 - drop / 2, 1)),
        "rank": int(draw.integers(1, 1000)),
        "probability": float(draw.uniform(0, 0.3)),
        "area": float(draw.uniform(0.05, 0.5)),
        "dilated_area": float(draw.uniform(0.05, 0.6)),
        "phash": f"{draw.integers(0, 2**64, dtype=np.uint64):016x}",
        "boxes": [],
        "timings": {},
        "notes": {},
    }


def _judge(session, decided: list[int], ids: list[int], shas: list[str], good: np.ndarray, user_ids: list[int]) -> None:
    """One verdict on each of those, the annotators taking turns."""
    decisions, standing = [], []
    for place, number in enumerate(decided):
        verdict = Verdict.ACCEPT if good[number] else Verdict.REJECT
        shared = {
            "candidate_id": ids[number],
            "user_id": user_ids[place % len(user_ids)],
            "verdict": verdict,
            "reasons": [] if good[number] else [Reason.OBJECT_LEFT],
        }
        identifier = str(uuid.UUID(int=place + 1))
        seen = {"uuid": identifier, "result_sha256": shas[number], "elapsed_ms": 1500}
        decisions.append({"id": place + 1, **seen, **shared})
        standing.append({"decision_id": place + 1, **shared})
    if decisions:
        session.execute(insert(Decision), decisions)
        session.execute(insert(CurrentVerdict), standing)


def _predict(
    session, recipe_id: int, ids: list[int], decided: list[int], good: np.ndarray, draw: np.random.Generator
) -> None:
    """What a fairly good model would think, in the order that triage gives."""
    is_open = np.ones(len(ids), bool)
    is_open[decided] = False
    p_accept = 1 / (1 + np.exp(-np.where(good, 2.5, -2.5) - draw.normal(0, 1.5, len(ids))))
    cutoff = Cutoff(len(decided), 0, utcnow())
    model = TriageModel(
        recipe_id=recipe_id,
        last_decision_id=len(decided),
        trained_on=len(decided),
        features=[],
        metrics={"seed": 0, "cutoff": cutoff.to_json()},
    )
    session.add(model)
    session.flush()
    priority = review_priority(p_accept, is_open, 0)
    rows = [
        {"candidate_id": candidate_id, "model_id": model.id, "p_accept": p, "uncertainty": u}
        for candidate_id, p, u in zip(ids, p_accept.tolist(), priority.tolist(), strict=True)
    ]
    session.execute(insert(TriagePrediction), rows)
