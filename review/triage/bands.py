"""Bands: the ends of P(accept) that the model could decide, proposed with the error that people's verdicts show there.

Every probability compared with a verdict was made without that verdict: out of fold, or before it was given.
Nothing here writes; review/triage/confirmed.py does, when a person says so.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import ColumnElement, exists, func, select
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, TriageModel, TriagePrediction, Verdict
from db.queries import superseded_ids
from review.adjudication import standing_adjudication
from review.intervals import sample_size_for, upper_bound
from review.overlap import is_gold
from review.triage.labels import Cutoff, labels_at

MAX_ERROR = 0.01
CONFIDENCE = 0.95
GRID = 200
MIDDLE = 0.5


class BandError(RuntimeError):
    """A band cannot be proposed, confirmed or revoked; the message says why and what to do."""


@dataclass(frozen=True)
class Band:
    """One end: ``accept`` from ``threshold`` up, or ``reject`` below it.

    Of ``judged`` candidates inside, ``errors`` have the other verdict; ``upper`` is the one-sided Clopper-Pearson
    bound on that share. ``expected`` is the share of errors that the model itself expects among the ``candidates``
    that nobody has looked at, which the band would decide.
    """

    verdict: Verdict
    threshold: float
    judged: int
    errors: int
    upper: float
    candidates: int
    expected: float

    def to_json(self) -> dict[str, float | int]:
        """The figures, with ``error`` = errors / judged."""
        return {
            "threshold": self.threshold,
            "judged": self.judged,
            "errors": self.errors,
            "error": self.errors / self.judged,
            "upper": self.upper,
            "candidates": self.candidates,
            "expected": self.expected,
        }


@dataclass(frozen=True)
class BandProposal:
    """Both ends as far as the judged candidates support them; ``notes`` says why an end is missing.

    ``open`` candidates have been looked at by nobody; ``left`` of them stay for people.
    """

    model_id: int
    max_error: float
    max_reject_error: float
    confidence: float
    accept: Band | None
    reject: Band | None
    open: int
    notes: tuple[str, ...]

    @property
    def bands(self) -> tuple[Band, ...]:
        return tuple(band for band in (self.accept, self.reject) if band is not None)

    @property
    def left(self) -> int:
        return self.open - sum(band.candidates for band in self.bands)


def find_band(
    verdict: Verdict,
    p_accept: np.ndarray,
    verdicts: np.ndarray,
    is_open: np.ndarray,
    max_error: float,
    confidence: float = CONFIDENCE,
) -> Band | None:
    """The widest band at that end, not past one half, whose error bound is at most ``max_error``; None if none is.

    ``p_accept`` is ``float64 [n]``, ``verdicts`` ``int8 [n]`` (1 accept, 0 reject, -1 unjudged), ``is_open``
    ``bool [n]`` the candidates it would decide. The thresholds tried are quantiles of the judged ones' P(accept).
    The bound holds for one threshold; that the widest of many is taken is not corrected for (docs/triage.md).
    """
    accepting = verdict == Verdict.ACCEPT
    known, said = p_accept[verdicts >= 0], verdicts[verdicts >= 0]
    if not len(known):
        return None
    thresholds = np.unique(np.quantile(known, np.linspace(0, 1, GRID + 1), method="higher"))
    # The widest first. Nothing is decided against the model's own opinion.
    thresholds = thresholds[thresholds >= MIDDLE] if accepting else thresholds[thresholds <= MIDDLE][::-1]
    for threshold in thresholds.tolist():
        inside = is_inside(verdict, p_accept, threshold)
        judged = int((inside & (verdicts >= 0)).sum())
        errors = int((said[is_inside(verdict, known, threshold)] != accepting).sum())
        if judged and upper_bound(errors, judged, confidence) <= max_error:
            decided = p_accept[inside & is_open]
            expected = float(np.mean(1 - decided if accepting else decided)) if len(decided) else 0.0
            upper = upper_bound(errors, judged, confidence)
            return Band(verdict, threshold, judged, errors, upper, len(decided), expected)
    return None


def is_inside(verdict: Verdict, p_accept, threshold: float):
    """Whether P(accept), an array or a column, lies in the band: from the threshold up to accept, below to reject."""
    return p_accept >= threshold if verdict == Verdict.ACCEPT else p_accept < threshold


def propose_bands(
    session: Session,
    model_id: int,
    max_error: float = MAX_ERROR,
    max_reject_error: float | None = None,
    confidence: float = CONFIDENCE,
) -> BandProposal:
    """What the model's predictions and the verdicts as they stand now allow.

    ``max_reject_error`` defaults to ``max_error``. Raises :class:`BandError` for an unknown model, for one whose
    predictions a newer one has replaced, and for an error that is not between 0 and one half.
    """
    max_reject_error = max_error if max_reject_error is None else max_reject_error
    for share in (max_error, max_reject_error):
        if not 0 < share < MIDDLE:
            raise BandError(f"The largest error is a share above 0 and below 0.5, not {share:g}.")
    model = newest_of(session, model_id)
    candidate_ids, p_accept, is_open = predictions(session, model)
    labels = labels_at(session, model.recipe_id, Cutoff.now(session))
    verdicts = np.array([labels.get(key, -1) for key in candidate_ids], np.int8)
    found: dict[Verdict, Band | None] = {}
    notes = []
    for verdict, most in ((Verdict.ACCEPT, max_error), (Verdict.REJECT, max_reject_error)):
        found[verdict] = find_band(verdict, p_accept, verdicts, is_open, most, confidence)
        if found[verdict] is None:
            least = sample_size_for(most, confidence=confidence)
            side = "above" if verdict == Verdict.ACCEPT else "below"
            notes.append(
                f"No band to {verdict} within an error of {most:.2%}: that takes at least {least} judged candidates "
                f"which the model puts {side} one half and is hardly ever wrong about."
            )
    return BandProposal(
        model_id=model_id,
        max_error=max_error,
        max_reject_error=max_reject_error,
        confidence=confidence,
        accept=found[Verdict.ACCEPT],
        reject=found[Verdict.REJECT],
        open=int(is_open.sum()),
        notes=tuple(notes),
    )


def newest_model(session: Session, recipe_id: int) -> TriageModel | None:
    """The latest version trained for the recipe, if any."""
    query = select(TriageModel).where(TriageModel.recipe_id == recipe_id).order_by(TriageModel.id.desc())
    return session.scalar(query.limit(1))


def newest_of(session: Session, model_id: int) -> TriageModel:
    """The model, if it is the newest of its recipe; else :class:`BandError`."""
    model = session.get(TriageModel, model_id)
    newest = None if model is None else newest_model(session, model.recipe_id)
    if model is None or newest is None:
        raise BandError(f"There is no triage model {model_id}; train one first.")
    if newest.id != model_id:
        raise BandError(f"Model {model_id} was replaced by model {newest.id}; look at that one's bands.")
    return model


def predictions(session: Session, model: TriageModel) -> tuple[list[int], np.ndarray, np.ndarray]:
    """Candidate ids in order, P(accept) ``float64 [n]``, and whether each is open, ``bool [n]``."""
    query = (
        select(TriagePrediction.candidate_id, TriagePrediction.p_accept, is_open())
        .join(Candidate, Candidate.id == TriagePrediction.candidate_id)
        .where(TriagePrediction.model_id == model.id)
        .order_by(TriagePrediction.candidate_id)
    )
    rows = session.execute(query).all()
    return [row[0] for row in rows], np.array([row[1] for row in rows]), np.array([row[2] for row in rows], bool)


def is_open() -> ColumnElement[bool]:
    """True over ``Candidate`` where nobody has looked, not even to skip it, and no newer version took its place."""
    looked_at = exists().where(CurrentVerdict.candidate_id == Candidate.id)
    return ~looked_at & ~is_gold() & ~is_adjudicated() & Candidate.id.not_in(superseded_ids())


def is_adjudicated() -> ColumnElement[bool]:
    """True over ``Candidate`` where an adjudicator's word stands."""
    return func.coalesce(standing_adjudication(Candidate.id), Verdict.UNDO) != Verdict.UNDO
