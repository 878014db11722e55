"""What the Audit and Agreement pages offer to choose from and name: builds, presets, strata, classes."""

from __future__ import annotations

from collections.abc import Callable

from fastapi import APIRouter, Depends
from pydantic import BaseModel
from sqlalchemy import select

from app.plain_route import PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from db.models import ImageClass, Role
from db.workspace import Workspace
from exports.builds import build_label, list_builds
from exports.rules import PRESETS
from review.audit import Strata
from review.audit_report import audit_statement, build_audit


class BuildChoice(BaseModel):
    """A frozen build with what it may say of its purity."""

    id: int
    label: str
    images: int
    statement: str


class PresetChoice(BaseModel):
    """A rule by its name, in words."""

    name: str
    text: str


class AuditChoices(BaseModel):
    """What an audit can be drawn from, and by what it can be divided; builds newest first."""

    builds: list[BuildChoice]
    presets: list[PresetChoice]
    strata: list[str]


def judging_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes, for adjudicators; ``current_user`` is a FastAPI dependency that gives the user's id."""
    router = APIRouter(route_class=PlainErrorRoute)
    asking = Depends(reviewer_dependency(workspace, current_user))

    @router.get("/api/audits/choices")
    def audit_choices(who: Reviewer = asking) -> AuditChoices:
        who.check(Role.ADJUDICATOR, "An audit")
        with workspace.read() as session:
            builds = [
                BuildChoice(
                    id=build.id,
                    label=build_label(build),
                    images=build.item_count,
                    statement=audit_statement(build_audit(session, build)),
                )
                for build in sorted(list_builds(session), key=lambda build: build.id, reverse=True)
            ]
        presets = [PresetChoice(name=name, text=rule.describe()) for name, rule in PRESETS.items()]
        return AuditChoices(builds=builds, presets=presets, strata=[str(strata) for strata in Strata])

    @router.get("/api/review/agreement/classes")
    def class_names(who: Reviewer = asking) -> dict[int, str]:
        who.check(Role.ADJUDICATOR, "The agreement between annotators")
        with workspace.read() as session:
            rows = session.execute(select(ImageClass.class_index, ImageClass.name))
            return {row.class_index: row.name for row in rows}

    return router
