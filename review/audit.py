"""Audits: a stratified random sample of what a build holds, judged blind, to say how pure the build is.

A sample is drawn once and never changed. Judgements are append-only, of each auditor the latest stands, and none
moves a membership. review/audit_report.py says what a sample comes to.
"""

from __future__ import annotations

import enum
import hashlib
import json
import math
import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import exists, func, insert, select
from sqlalchemy.orm import Session

from db.models import (
    Audit,
    AuditItem,
    AuditJudgement,
    Build,
    BuildItem,
    Candidate,
    ImageClass,
    Verdict,
)
from db.workspace import Workspace
from review.decisions import Status
from review.events import MalformedEvent, StaleResult, UuidTaken, canonical_uuid, checked_reasons

MAX_SIZE = 100_000
QUANTILES = 4
CLASS_GROUPS = 10
INSERT_ROWS = 2_000


class AuditError(ValueError):
    """A sample cannot be drawn or found; the message says what to do."""


class Strata(enum.StrEnum):
    """What the members are divided by before drawing: nothing, quarters of the drop, tenths of the class list, or
    whose verdict stands behind them."""

    NONE = "none"
    DROP = "drop"
    CLASS_GROUP = "class_group"
    DECIDED_BY = "decided_by"


@dataclass(frozen=True)
class Member:
    """A candidate that a build holds or would hold. ``decided_by`` is as in ``build_items``."""

    candidate_id: int
    result_sha256: str
    class_index: int
    drop: float
    decided_by: str = ""


@dataclass(frozen=True)
class ToJudge:
    """A drawn candidate as an auditor may see it: no score, no verdict. ``position`` counts from 0."""

    audit_id: int
    position: int
    candidate_id: int
    result_sha256: str
    class_name: str


def build_members(session: Session, build_id: int) -> list[Member]:
    """The members of a frozen build."""
    query = select(
        BuildItem.candidate_id, BuildItem.result_sha256, BuildItem.class_index, BuildItem.drop, BuildItem.decided_by
    ).where(BuildItem.build_id == build_id)
    return [Member(*row) for row in session.execute(query.order_by(BuildItem.position))]


def membership_sha256(members: Iterable[tuple[int, str]]) -> str:
    """One hash of (candidate id, result sha256), whatever their order: equal for equal membership."""
    return hashlib.sha256(json.dumps(sorted(map(list, members))).encode()).hexdigest()


def draw_audit(
    workspace: Workspace,
    members: Sequence[Member],
    *,
    recipe_id: int,
    rule: dict,
    size: int,
    seed: int = 0,
    strata: Strata | str = Strata.DROP,
    build_id: int | None = None,
    created_by: str = "",
) -> Audit:
    """Draw a sample of ``size`` members, proportionally from each stratum and rounded up, and shuffle it.

    Rounding up gives every stratum at least one and at most one more than its share, so the sample may be larger
    than ``size`` by less than the number of strata. The same members, size, strata and seed give the same sample.
    ``rule`` is the membership rule as JSON, kept for the record; ``build_id`` the frozen build, if the members are
    one's. Raises :class:`AuditError`.
    """
    try:
        strata = Strata(strata)
    except ValueError:
        raise AuditError(f"strata: choose one of {', '.join(Strata)}, not {strata!r}.") from None
    if not members:
        raise AuditError("There is nothing to audit: the rule takes in no candidate.")
    if not 1 <= size <= MAX_SIZE:
        raise AuditError(f"size: draw from 1 to {MAX_SIZE} candidates, not {size}.")
    with workspace.read() as session:
        classes = list(session.scalars(select(ImageClass.class_index).order_by(ImageClass.class_index)))
    ordered = sorted(members, key=lambda member: member.candidate_id)
    names = _stratum_names(ordered, strata, classes)
    sample = _draw(ordered, names, size, random.Random(seed))
    with workspace.write() as session:
        audit = Audit(
            recipe_id=recipe_id,
            build_id=build_id,
            rule={
                "rule": rule,
                "strata": str(strata),
                "membership_sha256": membership_sha256((m.candidate_id, m.result_sha256) for m in members),
            },
            seed=seed,
            size=len(sample),
            strata=dict(sorted(Counter(names).items())),
            created_by=created_by,
        )
        session.add(audit)
        session.flush()
        rows = [
            {
                "audit_id": audit.id,
                "position": position,
                "candidate_id": member.candidate_id,
                "stratum": stratum,
                "result_sha256": member.result_sha256,
            }
            for position, (member, stratum) in enumerate(sample)
        ]
        for start in range(0, len(rows), INSERT_ROWS):
            session.execute(insert(AuditItem), rows[start : start + INSERT_ROWS])
    return audit


def _stratum_names(members: Sequence[Member], strata: Strata, classes: list[int]) -> list[str]:
    match strata:
        case Strata.NONE:
            return ["all"] * len(members)
        case Strata.DROP:
            by_drop = sorted(range(len(members)), key=lambda row: (members[row].drop, members[row].candidate_id))
            names = [""] * len(members)
            for place, row in enumerate(by_drop):
                names[row] = f"drop quarter {place * QUANTILES // len(members) + 1} of {QUANTILES}"
            return names
        case Strata.CLASS_GROUP:
            width = math.ceil(len(classes) / CLASS_GROUPS)
            group_of = {index: place // width for place, index in enumerate(classes)}
            digits = len(str(classes[-1]))
            edges = [(group[0], group[-1]) for group in (classes[i : i + width] for i in range(0, len(classes), width))]
            labels = [f"classes {low:0{digits}} to {high:0{digits}}" for low, high in edges]
            return [labels[group_of[member.class_index]] for member in members]
        case Strata.DECIDED_BY:
            return [f"decided by {member.decided_by or 'nobody'}" for member in members]


def _draw(
    members: Sequence[Member], names: Sequence[str], size: int, chance: random.Random
) -> list[tuple[Member, str]]:
    by_stratum: dict[str, list[Member]] = {}
    for member, name in zip(members, names, strict=True):
        by_stratum.setdefault(name, []).append(member)
    sample = []
    for name, inside in sorted(by_stratum.items()):
        # In whole numbers: a float could round 3.0000000001 up.
        share = min(len(inside), -(-size * len(inside) // len(members)))
        sample += [(member, name) for member in chance.sample(inside, share)]
    chance.shuffle(sample)
    return sample


def list_audits(session: Session, recipe_id: int | None = None) -> list[Audit]:
    """Every audit, of one recipe or of all, newest first."""
    query = select(Audit).order_by(Audit.id.desc())
    return list(session.scalars(query if recipe_id is None else query.where(Audit.recipe_id == recipe_id)))


def find_audit(session: Session, audit_id: int) -> Audit:
    """Raises :class:`AuditError` for an unknown number."""
    audit = session.get(Audit, audit_id)
    if audit is None:
        raise AuditError(f"There is no audit {audit_id}; draw one first.")
    return audit


def next_to_judge(
    session: Session,
    audit_id: int,
    *,
    after: int = -1,
    limit: int = 20,
    unseen_by: int | None = None,
) -> list[ToJudge]:
    """Drawn candidates behind position ``after`` that nobody has judged, in the shuffled order.

    With ``unseen_by``, those that this user has not judged, whatever others did: a second reading.
    Raises :class:`AuditError` for an unknown audit.
    """
    find_audit(session, audit_id)
    judged = exists().where(
        AuditJudgement.audit_id == AuditItem.audit_id, AuditJudgement.candidate_id == AuditItem.candidate_id
    )
    if unseen_by is not None:
        judged = judged.where(AuditJudgement.user_id == unseen_by)
    query = (
        select(AuditItem.audit_id, AuditItem.position, AuditItem.candidate_id, AuditItem.result_sha256, ImageClass.name)
        .join(Candidate, Candidate.id == AuditItem.candidate_id)
        .join(ImageClass, ImageClass.class_index == Candidate.class_index)
        .where(AuditItem.audit_id == audit_id, AuditItem.position > after, ~judged)
        .order_by(AuditItem.position)
        .limit(limit)
    )
    return [ToJudge(*row) for row in session.execute(query)]


def judge(
    workspace: Workspace,
    *,
    uuid: str,
    audit_id: int,
    candidate_id: int,
    result_sha256: str,
    user_id: int,
    object_left: bool,
    reasons: Sequence[str] = (),
) -> Status:
    """Record what an auditor saw; the same uuid twice is stored once. Judging again replaces what stood before.

    ``reasons`` are optional and go with an object that is left. ``result_sha256`` is the image that was on screen.
    Raises :class:`review.events.DecisionRefused`.
    """
    identifier = canonical_uuid(uuid)
    given = checked_reasons(reasons, Verdict.REJECT if object_left and reasons else Verdict.ACCEPT)
    with workspace.write() as session:
        known = session.scalar(select(AuditJudgement).where(AuditJudgement.uuid == identifier))
        if known is not None:
            same = (known.audit_id, known.candidate_id, known.user_id, known.object_left)
            if same != (audit_id, candidate_id, user_id, object_left):
                raise UuidTaken("uuid", "This uuid belongs to another judgement; give every one a new uuid.")
            return Status.DUPLICATE
        item = session.scalar(
            select(AuditItem).where(AuditItem.audit_id == audit_id, AuditItem.candidate_id == candidate_id)
        )
        if item is None:
            raise MalformedEvent("candidate_id", f"Candidate {candidate_id} was not drawn for audit {audit_id}.")
        if item.result_sha256 != result_sha256:
            raise StaleResult("result_sha256", "That is not the image that was drawn; reload the page and judge it.")
        session.add(
            AuditJudgement(
                uuid=identifier,
                audit_id=audit_id,
                candidate_id=candidate_id,
                user_id=user_id,
                object_left=object_left,
                reasons=given,
            )
        )
    return Status.STORED


def judged_count(session: Session, audit_id: int) -> int:
    """How many of the drawn candidates at least one auditor has judged."""
    query = select(func.count(AuditJudgement.candidate_id.distinct())).where(AuditJudgement.audit_id == audit_id)
    return session.scalar(query) or 0


def audits_of(session: Session, build: Build) -> list[Audit]:
    """The audits that say something of the build, newest first: drawn from it, or from exactly the same members."""
    counted = [audit for audit in list_audits(session, build.recipe_id) if _population(audit) == build.item_count]
    if not counted:
        return []
    query = select(BuildItem.candidate_id, BuildItem.result_sha256).where(BuildItem.build_id == build.id)
    content = membership_sha256(tuple(row) for row in session.execute(query))
    return [audit for audit in counted if audit.rule["membership_sha256"] == content]


def _population(audit: Audit) -> int:
    return sum(audit.strata.values())
