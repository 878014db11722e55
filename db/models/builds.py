"""Frozen builds."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import JSON, Float, ForeignKey, String, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, UtcDateTime, utcnow


class Build(Base):
    """A frozen membership list. ``content_hash`` covers the rule's result: every item in order."""

    __tablename__ = "builds"
    __table_args__ = (UniqueConstraint("name", "number"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(40))
    number: Mapped[int]
    rule: Mapped[dict] = mapped_column(JSON)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"))
    last_decision_id: Mapped[int]
    item_count: Mapped[int]
    content_hash: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict] = mapped_column(JSON)
    created_by: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class BuildItem(Base):
    """A candidate as it was when the build was frozen; ``position`` is its place in the sorted list, from 0.

    ``decided_by`` says whose verdict stands behind it: human, adjudicator, auto (a confirmed triage band) or
    nobody. ``part`` is its split, val or test, the same for all candidates of one source photo.
    """

    __tablename__ = "build_items"
    build_id: Mapped[int] = mapped_column(ForeignKey("builds.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), index=True)
    source_name: Mapped[str] = mapped_column(String(255))
    class_index: Mapped[int]
    result_sha256: Mapped[str] = mapped_column(String(64))
    drop: Mapped[float] = mapped_column(Float)
    residual: Mapped[float] = mapped_column(Float)
    area: Mapped[float] = mapped_column(Float)
    accepts: Mapped[int]
    rejects: Mapped[int]
    decided_by: Mapped[str] = mapped_column(String(16), default="")
    part: Mapped[str] = mapped_column(String(8), default="")
