"""Audits as JSON: draw a sample, give it out blind, take judgements, say what it comes to.

Errors are ``{"error": sentence}``. What is given out to judge has no score, no verdict and no name of anybody.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import asdict
from typing import Annotated

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy.orm import Session

from app.audit_members import Membership, members_of_build, members_of_rule
from app.jobs.review import NoRecipe, recipe_of
from app.plain_route import MAX_ID, PlainErrorRoute
from app.review_items import image_urls
from app.reviewer import Reviewer, reviewer_dependency
from db.models import Audit, Role
from db.workspace import Workspace
from exports.builds import UnknownBuild, find_build
from exports.rules import PRESETS, Rule, RuleError
from review.audit import AuditError, Strata, draw_audit, find_audit, judge, judged_count, list_audits, next_to_judge
from review.audit_report import AuditReport, audit_report, audit_statement, build_audit
from review.decisions import Status
from review.events import DecisionRefused
from review.intervals import IntervalError, sample_size_for

MAX_DRAW = 20_000
MAX_GIVEN_OUT = 100
MAX_BATCH = 100


class DrawIn(BaseModel):
    """What to draw from, and how. Exactly one of ``build`` (a frozen one: bg, bg-2), ``preset`` (bg, bg_s) and
    ``rule`` (its fields, as a build's rule is stored); the latter two mean the recipe, without one the active."""

    model_config = ConfigDict(extra="forbid", strict=True)
    build: str | None = Field(None, max_length=60)
    preset: str | None = Field(None, max_length=40)
    rule: dict | None = None
    recipe_id: int | None = Field(None, ge=1, le=MAX_ID)
    size: int = Field(300, ge=1, le=MAX_DRAW)
    seed: int = Field(0, ge=0, le=2**31 - 1)
    strata: str = Strata.DROP.value


class AuditOut(BaseModel):
    """An audit in a list; ``statement`` is its one line."""

    id: int
    recipe_id: int
    build_id: int | None
    strata_by: str
    strata: dict[str, int]
    seed: int
    drawn: int
    judged: int
    is_complete: bool
    statement: str
    created_by: str
    created_at: dt.datetime


class ToJudgeOut(BaseModel):
    """A drawn candidate, blind."""

    position: int
    candidate_id: int
    sha256: str
    class_name: str
    urls: dict[str, str]


class NextOut(BaseModel):
    """What to judge next; ``judged`` of ``drawn`` are done by anybody."""

    audit_id: int
    drawn: int
    judged: int
    items: list[ToJudgeOut]


class JudgementIn(BaseModel):
    """What was seen: is any of the labelled object left? ``reasons`` may say what of it."""

    model_config = ConfigDict(extra="forbid", strict=True)
    uuid: str = Field(max_length=36)
    candidate_id: int = Field(ge=1, le=MAX_ID)
    result_sha256: str = Field(max_length=64)
    object_left: bool
    reasons: list[Annotated[str, Field(max_length=40)]] = Field([], max_length=7)


class JudgementsIn(BaseModel):
    """A batch, judged in this order."""

    model_config = ConfigDict(extra="forbid", strict=True)
    judgements: list[JudgementIn] = Field(max_length=MAX_BATCH)


class JudgementOut(BaseModel):
    """What became of a judgement; ``error`` says why it was refused."""

    uuid: str
    status: Status
    field: str | None = None
    error: str | None = None


class ReportOut(BaseModel):
    """See ``review.audit_report.AuditReport``; shares are 0 to 1, ``upper`` and ``interval`` at ``confidence``."""

    audit_id: int
    recipe_id: int
    build_id: int | None
    statement: str
    is_complete: bool
    drawn: int
    judged: int
    object_left: int
    disputed: int
    population: int
    share: float | None
    upper: float | None
    interval: tuple[float, float] | None
    purity: float | None
    purity_at_least: float | None
    confidence: float | None
    method: str | None
    strata_by: str
    strata: list[dict]
    reasons: dict[str, int]
    auditors: list[dict]
    created_by: str
    seed: int
    drawn_at: dt.datetime
    first_judged_at: dt.datetime | None
    last_judged_at: dt.datetime | None


class BuildAuditOut(BaseModel):
    """What a build may say of its purity; without a complete audit: "not audited"."""

    statement: str
    report: ReportOut | None


class SizeOut(BaseModel):
    """How many to judge."""

    size: int


def audit_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/audits``; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(prefix="/api/audits", route_class=PlainErrorRoute)
    asking = Depends(_adjudicator(reviewer_dependency(workspace, current_user)))
    number = PathParameter(ge=1, le=MAX_ID)

    @router.get("")
    def audits(recipe: Annotated[int | None, Query(ge=1, le=MAX_ID)] = None, who: Reviewer = asking) -> list[AuditOut]:
        with workspace.read() as session:
            return [_audit_out(session, audit) for audit in list_audits(session, recipe)]

    @router.post("", status_code=201)
    def draw(given: DrawIn, who: Reviewer = asking) -> AuditOut:
        found = _membership(workspace, given)
        try:
            audit = draw_audit(
                workspace,
                found.members,
                recipe_id=found.recipe_id,
                rule=found.rule,
                size=given.size,
                seed=given.seed,
                strata=given.strata,
                build_id=found.build_id,
                created_by=who.name,
            )
        except AuditError as error:
            raise HTTPException(422, str(error)) from error
        with workspace.read() as session:
            return _audit_out(session, audit)

    @router.get("/sample-size")
    def sample_size(
        bound: float = Query(gt=0, lt=1),
        expected: float = Query(0.0, ge=0, lt=1),
        confidence: float = Query(0.95, gt=0, lt=1),
        who: Reviewer = asking,
    ) -> SizeOut:
        try:
            return SizeOut(size=sample_size_for(bound, expected, confidence))
        except IntervalError as error:
            raise HTTPException(422, str(error)) from error

    @router.get("/of-build/{reference}")
    def of_build(reference: str, who: Reviewer = asking) -> BuildAuditOut:
        with workspace.read() as session:
            try:
                build = find_build(session, reference)
            except UnknownBuild as error:
                raise HTTPException(404, str(error)) from error
            report = build_audit(session, build)
            return BuildAuditOut(
                statement=audit_statement(report), report=None if report is None else _report_out(report)
            )

    @router.get("/{audit_id}/next")
    def to_judge(
        audit_id: int = number,
        after: int = Query(-1, ge=-1, le=MAX_DRAW),
        limit: int = Query(20, ge=1, le=MAX_GIVEN_OUT),
        second_reading: bool = False,
        who: Reviewer = asking,
    ) -> NextOut:
        with workspace.read() as session:
            audit = _find(session, audit_id)
            items = next_to_judge(
                session, audit_id, after=after, limit=limit, unseen_by=who.id if second_reading else None
            )
            judged = judged_count(session, audit_id)
        out = [
            ToJudgeOut(
                position=item.position,
                candidate_id=item.candidate_id,
                sha256=item.result_sha256,
                class_name=item.class_name,
                urls=image_urls(item.candidate_id, item.result_sha256),
            )
            for item in items
        ]
        return NextOut(audit_id=audit_id, drawn=audit.size, judged=judged, items=out)

    @router.post("/{audit_id}/judgements")
    def judgements(given: JudgementsIn, audit_id: int = number, who: Reviewer = asking) -> list[JudgementOut]:
        with workspace.read() as session:
            _find(session, audit_id)
        return [_judge(workspace, audit_id, who.id, one) for one in given.judgements]

    @router.get("/{audit_id}/report")
    def report(audit_id: int = number, who: Reviewer = asking) -> ReportOut:
        with workspace.read() as session:
            _find(session, audit_id)
            return _report_out(audit_report(session, audit_id))

    return router


def _adjudicator(reviewer: Callable[..., Reviewer]) -> Callable[..., Reviewer]:
    def allowed(who: Reviewer = Depends(reviewer)) -> Reviewer:  # noqa: B008 - how FastAPI declares a dependency
        who.check(Role.ADJUDICATOR, "An audit")
        return who

    return allowed


def _find(session: Session, audit_id: int) -> Audit:
    try:
        return find_audit(session, audit_id)
    except AuditError as error:
        raise HTTPException(404, str(error)) from error


def _membership(workspace: Workspace, given: DrawIn) -> Membership:
    if sum(choice is not None for choice in (given.build, given.preset, given.rule)) != 1:
        raise HTTPException(422, "Name exactly one of build, preset and rule.")
    try:
        if given.build is not None:
            with workspace.read() as session:
                return members_of_build(session, given.build)
        if given.preset is not None and given.preset not in PRESETS:
            raise HTTPException(422, f"preset: choose one of {', '.join(PRESETS)}.")
        rule = PRESETS[given.preset] if given.preset is not None else Rule.from_json(given.rule)
        recipe = recipe_of(workspace, {"recipe_id": given.recipe_id})
        with workspace.read() as session:
            return members_of_rule(session, recipe, rule)
    except (UnknownBuild, NoRecipe) as error:
        raise HTTPException(404, str(error)) from error
    except (RuleError, TypeError) as error:
        raise HTTPException(422, str(error)) from error


def _judge(workspace: Workspace, audit_id: int, user_id: int, given: JudgementIn) -> JudgementOut:
    try:
        status = judge(workspace, audit_id=audit_id, user_id=user_id, **given.model_dump())
    except DecisionRefused as refusal:
        return JudgementOut(uuid=given.uuid, status=Status.REFUSED, field=refusal.field, error=str(refusal))
    return JudgementOut(uuid=given.uuid, status=status)


def _audit_out(session: Session, audit: Audit) -> AuditOut:
    report = audit_report(session, audit.id)
    return AuditOut(
        id=audit.id,
        recipe_id=audit.recipe_id,
        build_id=audit.build_id,
        strata_by=report.strata_by,
        strata=audit.strata,
        seed=audit.seed,
        drawn=report.drawn,
        judged=report.judged,
        is_complete=report.is_complete,
        statement=report.statement,
        created_by=audit.created_by,
        created_at=audit.created_at,
    )


def _report_out(report: AuditReport) -> ReportOut:
    estimate = report.estimate
    values = {name: getattr(report, name) for name in ReportOut.model_fields if hasattr(report, name)}
    values |= {"strata": [asdict(one) for one in report.strata], "auditors": [asdict(one) for one in report.auditors]}
    return ReportOut(
        **values,
        share=None if estimate is None else estimate.share,
        upper=None if estimate is None else estimate.upper,
        interval=None if estimate is None else (estimate.interval.lower, estimate.interval.upper),
        purity=None if estimate is None else 1 - estimate.share,
        purity_at_least=None if estimate is None else 1 - estimate.upper,
        confidence=None if estimate is None else estimate.confidence,
        method=None if estimate is None else estimate.method,
    )
