"""Who judged what: users, decisions and what is derived from them."""

from __future__ import annotations

import datetime as dt
import enum

from sqlalchemy import JSON, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, UtcDateTime, utcnow, value_enum


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


class Role(enum.StrEnum):
    """What a user may do; each role may do what those before it may."""

    ANNOTATOR = "annotator"
    ADJUDICATOR = "adjudicator"
    ADMIN = "admin"


class Via(enum.StrEnum):
    """How a decision was given: to one image, in a grid, to a group of duplicates, or by redoing an undone one."""

    SINGLE = "single"
    GRID = "grid"
    DUPLICATES = "duplicates"
    REDO = "redo"


class User(Base):
    """A person. ``password_hash`` (argon2) is empty for the local user of a server without accounts.

    Somebody who left is made inactive, never deleted: the decisions stay theirs.
    """

    __tablename__ = "users"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[Role] = mapped_column(value_enum(Role), default=Role.ANNOTATOR)
    password_hash: Mapped[str] = mapped_column(Text, default="")
    active: Mapped[bool] = mapped_column(default=True)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class UserSession(Base):
    """A signed-in browser, by the sha256 of its token: whoever reads the database cannot sign in with it."""

    __tablename__ = "user_sessions"
    token_sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    expires_at: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class Decision(Base):
    """One verdict of one annotator on one candidate, append-only.

    ``uuid`` is made by the client: the same one posted twice is stored once. ``result_sha256`` is the
    image the annotator saw. ``undoes_id`` is set for ``undo`` alone; ``redoes_id`` names the undo that a
    redo takes back by giving the same verdict again. ``elapsed_ms`` is the time the image was looked at.
    """

    __tablename__ = "decisions"
    __table_args__ = (
        Index("ix_decisions_user", "user_id", "id"),
        Index("ix_decisions_pair", "candidate_id", "user_id", "id"),
        Index("ix_decisions_redoes", "redoes_id", unique=True),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    verdict: Mapped[Verdict] = mapped_column(value_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    undoes_id: Mapped[int | None] = mapped_column(ForeignKey("decisions.id"), unique=True)
    redoes_id: Mapped[int | None] = mapped_column(Integer)
    via: Mapped[Via] = mapped_column(value_enum(Via), default=Via.SINGLE)
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
    verdict: Mapped[Verdict] = mapped_column(value_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    decision_id: Mapped[int] = mapped_column(ForeignKey("decisions.id"))


class Lease(Base):
    """A candidate put in front of one annotator for a while, so that nobody else is shown it meanwhile.

    ``tab`` tells an annotator's browser tabs apart.
    """

    __tablename__ = "leases"
    __table_args__ = (Index("ix_leases_user", "user_id", "tab"), Index("ix_leases_until", "until"))
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"), primary_key=True)
    tab: Mapped[str] = mapped_column(String(40))
    until: Mapped[dt.datetime] = mapped_column(UtcDateTime)


class SavedView(Base):
    """A filter and an order of the queue that somebody named; ``shared`` ones everybody sees."""

    __tablename__ = "saved_views"
    __table_args__ = (UniqueConstraint("user_id", "name"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(String(80))
    query: Mapped[dict] = mapped_column(JSON)
    shared: Mapped[bool] = mapped_column(default=False)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class Adjudication(Base):
    """An adjudicator's final word on a candidate that annotators disagree on; append-only, the latest stands.

    ``verdict`` is accept or reject, or undo: the candidate is open again.
    """

    __tablename__ = "adjudications"
    __table_args__ = (Index("ix_adjudications_candidate", "candidate_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    verdict: Mapped[Verdict] = mapped_column(value_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    note: Mapped[str] = mapped_column(Text, default="")
    result_sha256: Mapped[str] = mapped_column(String(64))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class GoldItem(Base):
    """A candidate whose right verdict is known: everybody is shown it, nobody is told."""

    __tablename__ = "gold_items"
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    verdict: Mapped[Verdict] = mapped_column(value_enum(Verdict))
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    note: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class TriageModel(Base):
    """A model trained on the decisions so far. ``metrics`` holds calibration and learning curve."""

    __tablename__ = "triage_models"
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"), index=True)
    last_decision_id: Mapped[int]
    trained_on: Mapped[int]
    features: Mapped[list] = mapped_column(JSON)
    metrics: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class TriagePrediction(Base):
    """What the newest model of its recipe thinks of a candidate: P(accept), 0 to 1, and how close to one half."""

    __tablename__ = "triage_predictions"
    __table_args__ = (
        Index("ix_triage_uncertainty", "uncertainty", "candidate_id"),
        Index("ix_triage_p_accept", "p_accept", "candidate_id"),
    )
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("triage_models.id"))
    p_accept: Mapped[float] = mapped_column(Float)
    uncertainty: Mapped[float] = mapped_column(Float)


class TriageBand(Base):
    """Bounds beyond which a person let the model decide; ``revoked_at`` ends it. ``estimate`` is the expected error."""

    __tablename__ = "triage_bands"
    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[int] = mapped_column(ForeignKey("triage_models.id"))
    accept_above: Mapped[float | None] = mapped_column(Float)
    reject_below: Mapped[float | None] = mapped_column(Float)
    estimate: Mapped[dict] = mapped_column(JSON)
    confirmed_by: Mapped[str] = mapped_column(String(80))
    confirmed_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    revoked_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class AutoVerdict(Base):
    """The model's verdict on a candidate inside a confirmed band. Any person's verdict goes before it."""

    __tablename__ = "auto_verdicts"
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    band_id: Mapped[int] = mapped_column(ForeignKey("triage_bands.id"), index=True)
    verdict: Mapped[Verdict] = mapped_column(value_enum(Verdict))
    p_accept: Mapped[float] = mapped_column(Float)


class Audit(Base):
    """A stratified random sample of what a build holds or would hold, to be judged blind.

    ``rule`` is the membership rule sampled from; ``build_id`` the frozen build it was drawn from, if one.
    ``strata`` maps each stratum's name to how many candidates it has.
    """

    __tablename__ = "audits"
    id: Mapped[int] = mapped_column(primary_key=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"))
    build_id: Mapped[int | None] = mapped_column(ForeignKey("builds.id"), index=True)
    rule: Mapped[dict] = mapped_column(JSON)
    seed: Mapped[int]
    size: Mapped[int]
    strata: Mapped[dict] = mapped_column(JSON)
    created_by: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class AuditItem(Base):
    """One drawn candidate; ``position`` is its place in the shuffled order in which it is judged."""

    __tablename__ = "audit_items"
    audit_id: Mapped[int] = mapped_column(ForeignKey("audits.id"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    stratum: Mapped[str] = mapped_column(String(80))
    result_sha256: Mapped[str] = mapped_column(String(64))


class AuditJudgement(Base):
    """What an auditor saw on a drawn candidate; append-only, a user's latest on it stands.

    It never moves a membership: that would spoil what the sample says of the build.
    """

    __tablename__ = "audit_judgements"
    __table_args__ = (Index("ix_audit_judgements_item", "audit_id", "candidate_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    uuid: Mapped[str] = mapped_column(String(36), unique=True)
    audit_id: Mapped[int] = mapped_column(ForeignKey("audits.id"))
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"))
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    object_left: Mapped[bool]
    reasons: Mapped[list] = mapped_column(JSON, default=list)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class DuplicateMember(Base):
    """A candidate's group of near-duplicates; groups are found anew by a job, ``distance`` is in bits of the hash."""

    __tablename__ = "duplicate_members"
    candidate_id: Mapped[int] = mapped_column(ForeignKey("candidates.id"), primary_key=True)
    group_id: Mapped[int] = mapped_column(Integer, index=True)
    distance: Mapped[int]
    source_id: Mapped[int | None] = mapped_column(ForeignKey("source_images.id"))
