"""What is generated from what: the class list, source photos, recipes, candidates and outcomes."""

from __future__ import annotations

import datetime as dt
import enum

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from db.models.base import Base, UtcDateTime, utcnow, value_enum


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


class SourceImage(Base):
    """A labelled photo, left where it is on disk: ``root/path``, recognised by its sha256.

    ``name`` is unique in the workspace: the file's stem, or ``wnid/stem`` where stems repeat.
    ``width`` and ``height`` are those of the upright image (EXIF rotation applied), in pixels.
    """

    __tablename__ = "source_images"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(255), unique=True)
    split: Mapped[Split] = mapped_column(value_enum(Split), index=True)
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
    ``variant`` counts, from 0, the candidates of one kind made of one source under one recipe; ``version`` counts,
    from 1, how often such a one was made anew with a corrected mask, ``parent_id`` being the version before.
    ``details`` is what only its kind has: the cell of a texture, the background and similarity of an id_aug.
    ``timings`` is seconds by stage, ``notes`` what was out of the ordinary.
    """

    __tablename__ = "candidates"
    __table_args__ = (
        UniqueConstraint("source_id", "recipe_id", "kind", "variant", "version", name="uq_candidates_lineage"),
        Index("ix_candidates_recipe_drop", "recipe_id", "drop", "id"),
        Index("ix_candidates_recipe_class", "recipe_id", "class_index", "id"),
        Index("ix_candidates_recipe_residual", "recipe_id", "residual", "id"),
        Index("ix_candidates_recipe", "recipe_id", "id"),
    )
    id: Mapped[int] = mapped_column(primary_key=True)
    source_id: Mapped[int] = mapped_column(ForeignKey("source_images.id"), index=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"))
    kind: Mapped[Kind] = mapped_column(value_enum(Kind))
    variant: Mapped[int] = mapped_column(default=0)
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
    details: Mapped[dict] = mapped_column(JSON, default=dict)
    created_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
    source: Mapped[SourceImage] = relationship(lazy="raise")
    recipe: Mapped[Recipe] = relationship(lazy="raise")


class Outcome(Base):
    """The state a source ended in under a recipe, and why. A missing row means ``pending``."""

    __tablename__ = "outcomes"
    __table_args__ = (Index("ix_outcomes_recipe_state", "recipe_id", "state", "source_id"),)
    source_id: Mapped[int] = mapped_column(ForeignKey("source_images.id"), primary_key=True)
    recipe_id: Mapped[int] = mapped_column(ForeignKey("recipes.id"), primary_key=True)
    state: Mapped[State] = mapped_column(value_enum(State))
    reason: Mapped[str] = mapped_column(Text, default="")
    candidate_id: Mapped[int | None] = mapped_column(ForeignKey("candidates.id"))
    finished_at: Mapped[dt.datetime] = mapped_column(UtcDateTime, default=utcnow)
