"""What texture and id_aug candidates have in common: where they start, how they are scored, written and recorded.

A source is taken up as its background candidate left it: the working image and the mask are read from that
candidate's folder, so what is grown from the object and what was removed are the same pixels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Candidate, Kind, Outcome, State, utcnow
from db.workspace import Workspace
from generation.artifacts import (
    candidate_folder,
    decode_png,
    encode_png,
    encode_thumbnail,
    pixels_sha256,
    read_manifest,
    write_folder,
)
from generation.masking.postprocess import area_share, binarise, perceptual_hash
from generation.pipeline import COMMIT_BATCH, COMMIT_SECONDS, MAX_FAILURES_IN_A_ROW, GenerationStopped
from generation.protocols import Score, Scorer, ScoreRequest
from generation.recipe import canonical_hash
from generation.steps import Work


class DamagedCandidate(RuntimeError):
    """A candidate's folder is not as it was written."""


@dataclass
class Variant:
    """One image made of a source: ``result HxWx3 uint8``, and ``replaced HxW`` 255 where it is not the source's."""

    number: int
    details: dict
    replaced: np.ndarray | None = None
    result: np.ndarray | None = None
    key: str = ""
    manifest: dict | None = None
    score: Score | None = None
    phash: str = ""
    notes: dict[str, str] = field(default_factory=dict)


@dataclass
class TrainingWork(Work):
    """A source on its way to one or more variants; ``background`` is the candidate it is taken up from."""

    background: Candidate | None = None
    variants: list[Variant] = field(default_factory=list)

    def forget_pixels(self) -> None:
        super().forget_pixels()
        self.variants = []


def read_images(workspace: Workspace, candidate: Candidate, *names: str) -> list[np.ndarray]:
    """The pixels of those PNGs of a candidate, "result" for ``result.png``. Raises :class:`DamagedCandidate`."""
    folder = workspace.path(candidate.folder)
    if read_manifest(folder) is None:
        raise DamagedCandidate(f"{folder} is incomplete or altered; generate candidate {candidate.id} again.")
    return [decode_png((folder / f"{name}.png").read_bytes()) for name in names]


class CommonSteps:
    """The steps that both kinds share, to be run by :func:`generation.steps.guarded`."""

    def __init__(self, workspace: Workspace, kind: Kind, scorer: Scorer) -> None:
        self.workspace = workspace
        self.kind = kind
        self._scorer = scorer

    def load(self, items: list[TrainingWork]) -> None:
        for item in items:
            item.raw, mask = read_images(self.workspace, item.background, "raw", "mask")
            item.mask = binarise(mask)
            item.raw_sha256 = pixels_sha256(item.raw)

    def variant_key(self, item: TrainingWork, **made_how: object) -> str:
        """Names a variant's folder: of all that its pixels came from."""
        came_from = {
            "kind": str(self.kind),
            "source_sha256": item.source.sha256,
            "class_index": item.source.class_index,
            "raw": item.raw_sha256,
            "mask": pixels_sha256(item.mask),
        }
        return canonical_hash(came_from | made_how)

    def score(self, items: list[TrainingWork]) -> None:
        fresh = [(item, one) for item in items for one in item.variants if one.score is None]
        requests = [ScoreRequest(item.raw, one.result, item.source.class_index) for item, one in fresh]
        for (_, one), score in zip(fresh, self._scorer.score(requests), strict=True):
            one.score = score
            one.phash = perceptual_hash(one.result)

    def write(self, items: list[TrainingWork]) -> None:
        for item in items:
            for one in item.variants:
                if one.manifest is None:
                    one.manifest = self._write_variant(item, one)
            item.end(State.CANDIDATE)

    def _write_variant(self, item: TrainingWork, one: Variant) -> dict:
        files = {
            "raw.png": encode_png(item.raw),
            "mask.png": encode_png(item.mask),
            "dilated.png": encode_png(one.replaced),
            "result.png": encode_png(one.result),
            "thumbnail.jpg": encode_thumbnail(one.result),
        }
        facts = {
            "kind": str(self.kind),
            "source": item.source.name,
            "source_sha256": item.source.sha256,
            "class_index": item.source.class_index,
            "notes": one.notes,
        }
        return write_folder(self.workspace.path(candidate_folder(one.key)), files, facts)

    def rows(self, item: TrainingWork, recipe_id: int) -> list[Candidate]:
        """The database rows of written variants. Call before ``forget_pixels``."""
        return [self._row(item, one, recipe_id) for one in item.variants]

    def _row(self, item: TrainingWork, one: Variant, recipe_id: int) -> Candidate:
        height, width = one.result.shape[:2]
        return Candidate(
            source_id=item.source.id,
            recipe_id=recipe_id,
            kind=self.kind,
            variant=one.number,
            version=item.background.version,
            class_index=item.source.class_index,
            folder=candidate_folder(one.key),
            result_sha256=one.manifest["files"]["result.png"],
            width=width,
            height=height,
            logit_source=one.score.logit_source,
            logit_candidate=one.score.logit_candidate,
            drop=one.score.drop,
            residual=one.score.residual,
            rank=one.score.rank,
            probability=one.score.probability,
            top5=list(one.score.top5),
            residual_boxes=None,
            area=area_share(item.mask),
            dilated_area=area_share(one.replaced),
            phash=one.phash,
            boxes=item.background.boxes,
            timings=item.timings,
            notes=one.notes,
            details=one.details,
        )


class Committer:
    """Writes rows as they come, a batch a transaction, in their order; stops a run in which nothing succeeds."""

    def __init__(self, workspace: Workspace, recipe_id: int) -> None:
        self._workspace = workspace
        self._recipe_id = recipe_id
        self._waiting: list[tuple[list[Candidate], Outcome | None]] = []
        self._flushed_at = time.monotonic()
        self._failures = 0

    def check_failures(self, item: TrainingWork) -> None:
        """Raises :class:`generation.pipeline.GenerationStopped` when too many items in a row have failed."""
        self._failures = self._failures + 1 if item.state is State.FAILED else 0
        if self._failures >= MAX_FAILURES_IN_A_ROW:
            raise GenerationStopped(
                f"{self._failures} images in a row failed, the last with: {item.reason} "
                "Mend the cause, then run again with --redo-failed."
            )

    def add(self, candidates: list[Candidate], outcome: Outcome | None = None) -> None:
        self._waiting.append((candidates, outcome))
        if len(self._waiting) >= COMMIT_BATCH or time.monotonic() - self._flushed_at >= COMMIT_SECONDS:
            self.flush()

    def flush(self) -> None:
        if not self._waiting:
            return
        with self._workspace.write() as session:
            for candidates, outcome in self._waiting:
                kept = [_recorded(session, candidate) for candidate in candidates]
                if outcome is not None:
                    outcome.candidate_id = kept[0].id if kept else None
                    session.merge(outcome)
        self._waiting.clear()
        self._flushed_at = time.monotonic()


def outcome_of(item: TrainingWork, recipe_id: int) -> Outcome:
    """The item's end as a row that may replace an earlier one."""
    return Outcome(
        source_id=item.source.id, recipe_id=recipe_id, state=item.state, reason=item.reason, finished_at=utcnow()
    )


def _recorded(session: Session, candidate: Candidate) -> Candidate:
    """The candidate's row: the one another run has written meanwhile, or this one, told of its version before."""
    query = select(Candidate).where(
        Candidate.source_id == candidate.source_id,
        Candidate.recipe_id == candidate.recipe_id,
        Candidate.kind == candidate.kind,
        Candidate.variant == candidate.variant,
    )
    before = session.scalars(query.order_by(Candidate.version.desc())).all()
    same = next((one for one in before if one.version == candidate.version), None)
    if same is not None:
        return same
    candidate.parent_id = before[0].id if before else None
    session.add(candidate)
    session.flush()
    return candidate


def first_candidates(session: Session, recipe_id: int) -> dict[int, int]:
    """The lowest candidate id under a recipe by source."""
    query = select(Candidate.source_id, Candidate.id).where(Candidate.recipe_id == recipe_id)
    return dict(session.execute(query.order_by(Candidate.id.desc())).all())
