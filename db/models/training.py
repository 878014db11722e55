"""What training and evaluation use and leave behind: few-shot sets, runs, evaluation sets and results."""

from __future__ import annotations

import datetime as dt

from sqlalchemy import JSON, Float, ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column

from db.models.base import Base, UtcDateTime, utcnow


class FewShotSet(Base):
    """A seeded sample of train sources: ``shots`` a class, fewer where a class has fewer (``summary`` says so)."""

    __tablename__ = "fewshot_sets"
    __table_args__ = (UniqueConstraint("shots", "seed", "content_hash"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    shots: Mapped[int]
    seed: Mapped[int]
    content_hash: Mapped[str] = mapped_column(String(64))
    summary: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class FewShotItem(Base):
    """A source of a few-shot set. A trigger refuses sources that are not of the train split."""

    __tablename__ = "fewshot_items"
    set_id: Mapped[int] = mapped_column(ForeignKey("fewshot_sets.id"), primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("source_images.id"), primary_key=True)


class Run(Base):
    """One training of a prompt: OSPCoOp, CoOp or LoCoOp.

    ``config`` holds every hyper-parameter, ``data`` what went in by kind with its hashes; ``folder`` (relative
    to the workspace) the checkpoints. ``state`` is queued, running, done, cancelled or failed.
    """

    __tablename__ = "runs"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(120), unique=True)
    objective: Mapped[str] = mapped_column(String(24))
    encoder: Mapped[str] = mapped_column(String(80))
    seed: Mapped[int]
    config: Mapped[dict] = mapped_column(JSON)
    config_hash: Mapped[str] = mapped_column(String(64), index=True)
    data: Mapped[dict] = mapped_column(JSON, default=dict)
    fewshot_set_id: Mapped[int | None] = mapped_column(ForeignKey("fewshot_sets.id"))
    folder: Mapped[str] = mapped_column(String(200), default="")
    state: Mapped[str] = mapped_column(String(24), default="queued")
    epochs_done: Mapped[int] = mapped_column(default=0)
    chosen_epoch: Mapped[int | None]
    error: Mapped[str] = mapped_column(Text, default="")
    created_by: Mapped[str] = mapped_column(String(80), default="")
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    finished_at: Mapped[dt.datetime | None] = mapped_column(UtcDateTime)


class RunEpoch(Base):
    """What one epoch (from 0) of a run gave: mean losses and accuracy, validation metrics, seconds."""

    __tablename__ = "run_epochs"
    run_id: Mapped[int] = mapped_column(ForeignKey("runs.id"), primary_key=True)
    epoch: Mapped[int] = mapped_column(primary_key=True)
    lr: Mapped[float] = mapped_column(Float)
    seconds: Mapped[float] = mapped_column(Float)
    metrics: Mapped[dict] = mapped_column(JSON)


class EvaluationSet(Base):
    """A named set of images to evaluate on: a folder, a list, a frozen build, or val sources of the workspace.

    ``role`` is "id" or "ood", ``group`` "classic" for the four usual OOD sets, "bg" for ours, else "other".
    """

    __tablename__ = "evaluation_sets"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(80), unique=True)
    role: Mapped[str] = mapped_column(String(8))
    group: Mapped[str] = mapped_column(String(16))
    spec: Mapped[dict] = mapped_column(JSON)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)


class Evaluation(Base):
    """A detector's result on one pair of an ID and an OOD set; ``key`` hashes all that decides it.

    ``run_id`` is None for zero-shot. ``scores`` (relative to the workspace) is the Parquet file with a score an image.
    """

    __tablename__ = "evaluations"
    __table_args__ = (Index("ix_evaluations_run", "run_id", "id"),)
    id: Mapped[int] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(String(64), unique=True)
    run_id: Mapped[int | None] = mapped_column(ForeignKey("runs.id"))
    detector: Mapped[str] = mapped_column(String(40))
    encoder: Mapped[str] = mapped_column(String(80))
    id_set: Mapped[str] = mapped_column(String(80))
    ood_set: Mapped[str] = mapped_column(String(80))
    facts: Mapped[dict] = mapped_column(JSON)
    metrics: Mapped[dict] = mapped_column(JSON)
    scores: Mapped[str] = mapped_column(String(200))
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
