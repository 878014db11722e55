"""The workspace's tables as SQLAlchemy typed mappings, one class a table. docs/architecture.md has the words.

Decisions, decision-like logs and frozen builds are append-only: the first migration adds triggers
that refuse their UPDATE and DELETE, so not even a bug can rewrite a verdict.
"""

from __future__ import annotations

import datetime as dt
import enum

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Enum,
    Float,
    ForeignKey,
    Index,
    Integer,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship


class UtcDateTime(TypeDecorator[dt.datetime]):
    """Aware UTC in Python; SQLite, which knows no zones, stores it naive."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: dt.datetime | None, dialect: object) -> dt.datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("A timestamp without a time zone cannot be stored; use db.models.utcnow().")
        return value.astimezone(dt.UTC).replace(tzinfo=None)

    def process_result_value(self, value: dt.datetime | None, dialect: object) -> dt.datetime | None:
        return None if value is None else value.replace(tzinfo=dt.UTC)


def utcnow() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def _enum(kind: type[enum.StrEnum]) -> Enum:
    """Stored as its value in a plain string column, so that a new member needs no migration."""
    return Enum(
        kind, native_enum=False, create_constraint=False, length=24, values_callable=lambda k: [m.value for m in k]
    )


class Split(enum.StrEnum):
    """Where a source photo comes from. val makes test sets, train makes training data; never mixed."""

    VAL = "val"
    TRAIN = "train"


class State(enum.StrEnum):
    """The one state a source ends in under a recipe. ``pending`` is never stored: it is the absence of an outcome."""

    PENDING = "pending"
    NO_DETECTION = "no_detection"
    MASK_TOO_SMALL = "mask_too_small"
    MASK_TOO_LARGE = "mask_too_large"
    CANDIDATE = "candidate"
    FAILED = "failed"


class Kind(enum.StrEnum):
    """What a candidate is: object removed, grown from a patch of the object, or object on another background."""

    BACKGROUND = "background"
    TEXTURE = "texture"
    ID_AUG = "id_aug"


class Verdict(enum.StrEnum):
    """What an annotator says. ``undo`` takes back the decision it names and restores the one before."""

    ACCEPT = "accept"
    REJECT = "reject"
    SKIP = "skip"
    UNDO = "undo"


class Reason(enum.StrEnum):
    """Why a candidate is rejected; the order is that of the keys 1 to 7."""

    OBJECT_LEFT = "object_left"
    PART_LEFT = "part_left"
    SHADOW = "shadow_or_reflection"
    OTHER_ID_OBJECT = "other_id_object"
    ARTEFACT = "artefact"
    WRONG_MASK = "wrong_mask"
    UNSUITABLE = "unsuitable"


class JobState(enum.StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Base(DeclarativeBase):
    pass


class Meta(Base):
    """Facts about the workspace itself, by name (the class list's sha256, the active recipe, ...)."""

    __tablename__ = "meta"
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(Text)


class ImageClass(Base):
    """One class of the workspace's class list."""

    __tablename__ = "classes"
    class_index: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    wnid: Mapped[str] = mapped_column(String(16), unique=True)
    name: Mapped[str] = mapped_column(String(200))


class User(Base):
    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[str] = mapped_column(String(24), default="annotator")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class SourceImage(Base):
    """A labelled photo, left where it is on disk: ``root/path``, recognised by its sha256.

    ``name`` is unique in the workspace: the file's stem, or ``wnid/stem`` where stems repeat.
    ``width`` and ``height`` are those of the upright image (EXIF rotation applied), in pixels.
    """

    __tablename__ = "source_images"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    split: Mapped[Split] = mapped_column(_enum(Split), index=True)
    root: Mapped[str] = mapped_column(Text)
    path: Mapped[str] = mapped_column(Text)
    sha256: Mapped[str] = mapped_column(String(64), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    width: Mapped[int]
    height: Mapped[int]
    class_index: Mapped[int] = mapped_column(ForeignKey("classes.class_index"), index=True)
    imported_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    image_class: Mapped[ImageClass] = relationship(lazy="joined")


class Recipe(Base):
    """How candidates are made; never changed, found again by its hash. ``config`` holds all that the hash covers."""

    __tablename__ = "recipes"
    id: Mapped[int] = mapped_column(primary_key=True)
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    config: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class Candidate(Base):
    """One generated image and its lineage.

    ``folder`` (relative to the workspace) holds raw.png, mask.png, dilated.png, result.png and
    thumbnail.jpg. Areas are shares of the image, 0 to 1. ``phash`` is a 64-bit perceptual hash in hex.
    ``boxes`` is a list of ``{x0, y0, x1, y1, phrase, confidence}`` in pixels of the working image, and
    ``residual_boxes`` the same for what the detector still finds on the result (None: not looked for).
    ``top5`` are the class indices the result looks like, best first.
    ``timings`` is seconds by stage, ``notes`` what was out of the ordinary.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("source_id", "recipe_id", "kind", "version"),
        Index("ix_candidates_recipe_drop", "recipe_id", "drop", "id"),
        Index("ix_candidates_recipe_class", "recipe_id", "class_index", "id"),
        Index("ix_candidates_recipe_residual", "recipe_id", "residual", "id"),
        Index("ix_candidates_recipe", "recipe_id", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("source_images.id"), index=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"))
    kind: Mapped[Kind] = mapped_column(_enum(Kind))
    version: Mapped[int] = mapped_column(default=1)
    parent_id: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    class_index: Mapped[int] = mapped_column(ForeignKey("classes.class_index"))
    folder: Mapped[str] = mapped_column(String(200), index=True)
    result_sha256: Mapped[str] = mapped_column(String(64), index=True)
    width: Mapped[int]
    height: Mapped[int]
    logit_source: Mapped[float] = mapped_column(Float)
    logit_candidate: Mapped[float] = mapped_column(Float)
    drop: Mapped[float] = mapped_column(Float)
    residual: Mapped[float] = mapped_column(Float)
    rank: Mapped[int]
    probability: Mapped[float] = mapped_column(Float)
    top5: Mapped[list] = mapped_column(JSON, default=list)
    area: Mapped[float] = mapped_column(Float)
    dilated_area: Mapped[float] = mapped_column(Float)
    phash: Mapped[str] = mapped_column(String(16), index=True)
    boxes: Mapped[list] = mapped_column(JSON)
    residual_boxes: Mapped[list | None] = mapped_column(JSON(none_as_null=True))
    timings: Mapped[dict] = mapped_column(JSON)
    notes: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    source: Mapped[SourceImage] = relationship(lazy="raise")
    recipe: Mapped[Recipe] = relationship(lazy="raise")


class Outcome(Base):
    """The state a source ended in under a recipe, and why. A missing row means ``pending``."""

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_recipe_state", "recipe_id", "state", "source_id"),)
    source_id: Mapped[int] = mapped_column(ForeignKey("source_images.id"), primary_key=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"), primary_key=True)
    state: Mapped[State] = mapped_column(_enum(State))
    reason: Mapped[str] = mapped_column(Text, default="")
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    finished_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class Decision(Base):
    """One verdict of one annotator on one candidate, append-only.

    ``uuid`` is made by the client: the same one posted twice is stored once. ``result_sha256`` is the
    image the annotator saw. ``undoes_id`` is set for ``undo`` alone. ``elapsed_ms`` is the time the
    image was looked at.
    """

    __tablename__ = "decisions"
    __table_args__ = (
        Index("ix_decisions_user", "user_id", "id"),
        Index("ix_decisions_pair", "candidate_id", "user_id", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    verdict: Mapped[Verdict] = mapped_column(_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    undoes_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"), unique=True)
    result_sha256: Mapped[str] = mapped_column(String(64))
    elapsed_ms: Mapped[int | None]
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class CurrentVerdict(Base):
    """Each annotator's standing verdict on a candidate, derived from ``decisions`` in the same transaction.

    Kept so that the queue and the counts need no search through a million decisions;
    ``review.decisions.rebuild_current_verdicts`` makes it anew from them.
    """

    __tablename__ = "current_verdicts"
    __table_args__ = (
        Index("ix_current_verdicts_verdict", "verdict", "candidate_id"),
        Index("ix_current_verdicts_user", "user_id", "verdict", "candidate_id"),
    )
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    verdict: Mapped[Verdict] = mapped_column(_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    decision_id: Mapped[int] = mapped_column(ForeignKey("decisions.id"))


class Job(Base):
    """Long work: who does it, how far it is, and when its worker was last heard of."""

    __tablename__ = "jobs"
    __table_args__ = (Index("ix_jobs_state", "state", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(40))
    params: Mapped[dict] = mapped_column(JSON)
    state: Mapped[JobState] = mapped_column(_enum(JobState), default=JobState.QUEUED)
    done: Mapped[int] = mapped_column(default=0)
    total: Mapped[int | None]
    message: Mapped[str] = mapped_column(Text, default="")
    result: Mapped[dict | None] = mapped_column(JSON)
    error: Mapped[str] = mapped_column(Text, default="")
    cancel_requested: Mapped[bool] = mapped_column(default=False)
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(120))
    heartbeat_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    lease_until: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    created_by: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    started_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class JobLogLine(Base):
    __tablename__ = "job_log"
    id: Mapped[int] = mapped_column(primary_key=True)
    job_id: Mapped[int] = mapped_column(ForeignKey("jobs.id"), index=True)
    at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    line: Mapped[str] = mapped_column(Text)


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
    """A candidate as it was when the build was frozen; ``position`` is its place in the sorted list, from 0."""

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
