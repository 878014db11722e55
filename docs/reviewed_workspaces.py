"""What docs/screenshots.py takes pictures of: the demo with verdicts on it, and a larger workspace of made-up numbers.

The demo's twenty photos are too few to train triage on or to measure agreement, so the pages that show figures show
those of the larger one. Nobody's real verdicts are in either.
"""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path

import numpy as np
from sqlalchemy import select, update

from app.audit_members import members_of_build
from app.jobs.review import find_duplicates, train_triage
from benchmarks.review_workspace import fill
from db.models import Candidate, CurrentVerdict, Role, User
from db.progress import NoProgress
from db.queries import ensure_user
from db.workspace import Workspace, open_workspace
from exports.builds import freeze
from exports.rules import PRESETS
from review.audit import draw_audit, judge
from review.decisions import record
from review.events import DecisionEvent
from review.overlap import Overlap, is_sampled, load_overlap, save_overlap

LEFT_OPEN = 10
CANDIDATES = 1200
SIDE = 64
NEAR = 14


def judged_demo(demo: Path, folder: Path) -> Workspace:
    """A copy of the demo: two annotators who differ on some, a build, an audit of it half judged, groups alike."""
    workspace = open_workspace(shutil.copytree(demo, folder))
    with workspace.write() as session:
        users = [ensure_user(session, name).id for name in ("Ann", "Bo")]
        auditor = ensure_user(session, "Eve").id
        shown = session.execute(select(Candidate.id, Candidate.result_sha256).order_by(Candidate.id)).all()
    for place, user_id in enumerate(users):
        for number, (candidate_id, sha256) in enumerate(shown[LEFT_OPEN:]):
            differs = place == 1 and number % 4 == 0
            verdict, reasons = ("reject", ("part_left",)) if differs else ("accept", ())
            identifier = str(uuid.UUID(int=1000 * place + number + 1))
            event = DecisionEvent(identifier, verdict, candidate_id, sha256, reasons, elapsed_ms=1800)
            record(workspace, [event], user_id)
    find_duplicates(workspace, {"distance": NEAR, "own_distance": NEAR}, NoProgress())
    freeze(workspace, "bg", PRESETS["bg"], created_by="Eve")
    with workspace.read() as session:
        found = members_of_build(session, "bg")
    audit = draw_audit(
        workspace,
        found.members,
        recipe_id=found.recipe_id,
        rule=found.rule,
        size=len(found.members),
        seed=0,
        strata="none",
        build_id=found.build_id,
        created_by="Eve",
    )
    for number, member in enumerate(found.members[: len(found.members) // 2]):
        judge(
            workspace,
            uuid=str(uuid.UUID(int=5000 + number)),
            audit_id=audit.id,
            candidate_id=member.candidate_id,
            result_sha256=member.result_sha256,
            user_id=auditor,
            object_left=number == 2,
        )
    return workspace


def numbers(folder: Path, *, seed: int = 0) -> tuple[Workspace, int]:
    """Four people's verdicts, some on the same candidates, and a trained model; the admin's id."""
    workspace = open_workspace(folder)
    filled = fill(workspace, CANDIDATES, 4, judged=0.6, side=SIDE, seed=seed)
    overlap = Overlap(share=0.2, k=2)
    with workspace.write() as session:
        save_overlap(session, overlap)
        names = (("Ada", Role.ADMIN), ("Ann", Role.ANNOTATOR), ("Bo", Role.ANNOTATOR), ("Cleo", Role.ADJUDICATOR))
        for user_id, (name, role) in zip(filled.user_ids, names, strict=True):
            session.execute(update(User).where(User.id == user_id).values(name=name, role=role))
    _judge_again(workspace, filled.user_ids, np.random.default_rng(seed))
    train_triage(workspace, {}, NoProgress())
    return workspace, filled.user_ids[0]


def _judge_again(workspace: Workspace, user_ids: list[int], draw: np.random.Generator) -> None:
    """A second verdict on the overlapping share, the other one in one of nine cases."""
    with workspace.read() as session:
        sampled = is_sampled(Candidate.id, load_overlap(session))
        query = select(CurrentVerdict.candidate_id, CurrentVerdict.user_id, CurrentVerdict.verdict)
        query = query.add_columns(Candidate.result_sha256).join(Candidate).where(sampled)
        rows = session.execute(query.order_by(Candidate.id)).all()
    for number, (candidate_id, user_id, verdict, sha256) in enumerate(rows):
        accept = (verdict == "accept") != (draw.random() < 1 / 9)
        other = user_ids[(user_ids.index(user_id) + 1 + number % 3) % len(user_ids)]
        reasons = () if accept else (("object_left", "part_left", "artefact")[number % 3],)
        identifier = str(uuid.UUID(int=100_000 + number))
        said = "accept" if accept else "reject"
        record(workspace, [DecisionEvent(identifier, said, candidate_id, sha256, reasons, elapsed_ms=2100)], other)
