"""Confirmed bands: what a person let the model decide, kept apart from people's verdicts, and taken back at will.

Automatic verdicts are rows of their own; a person's verdict goes before them. One band stands for a recipe at a
time. Revoking it removes its verdicts; builds frozen meanwhile keep what they recorded.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, delete, exists, func, insert, literal, select
from sqlalchemy.orm import Session

from db.models import AutoVerdict, Candidate, TriageBand, TriageModel, TriagePrediction, Verdict, utcnow, value_enum
from db.workspace import Workspace
from review.overlap import ANSWERS, has_answer
from review.triage.bands import MAX_ERROR, Band, BandError, is_adjudicated, is_inside, is_open, newest_of, propose_bands


def confirm_bands(
    workspace: Workspace,
    model_id: int,
    *,
    confirmed_by: str,
    max_error: float = MAX_ERROR,
    max_reject_error: float | None = None,
    accept: bool = True,
    reject: bool = True,
) -> TriageBand:
    """Let the model decide inside the bands that ``propose_bands`` gives for these errors; ``accept`` and ``reject``
    say at which ends. A band that stood for the recipe before is revoked.

    Writes automatic verdicts for the candidates inside that are open by then, in one transaction. Raises
    :class:`~review.triage.bands.BandError` when the model is not the newest of its recipe, or no end asked for can
    be had.
    """
    # Proposed before the write lock is taken: annotators need it meanwhile.
    with workspace.read() as session:
        proposal = propose_bands(session, model_id, max_error, max_reject_error)
    wanted = {Verdict.ACCEPT: accept, Verdict.REJECT: reject}
    chosen = {band.verdict: band for band in proposal.bands if wanted[band.verdict]}
    if not chosen:
        raise BandError(" ".join(proposal.notes) or "Choose to accept, to reject, or both.")
    thresholds = {verdict: band.threshold for verdict, band in chosen.items()}
    with workspace.write() as session:
        standing = active_band(session, newest_of(session, model_id).recipe_id)
        if standing is not None:
            _revoke(session, standing)
        row = TriageBand(
            model_id=model_id,
            accept_above=thresholds.get(Verdict.ACCEPT),
            reject_below=thresholds.get(Verdict.REJECT),
            estimate={
                "confidence": proposal.confidence,
                "max_error": proposal.max_error,
                "max_reject_error": proposal.max_reject_error,
                **{str(verdict): band.to_json() for verdict, band in chosen.items()},
            },
            confirmed_by=confirmed_by,
        )
        session.add(row)
        session.flush()
        for band in chosen.values():
            _write_verdicts(session, row, band)
    return row


def _write_verdicts(session: Session, row: TriageBand, band: Band) -> None:
    rows = (
        select(
            TriagePrediction.candidate_id,
            literal(row.id),
            literal(band.verdict, value_enum(Verdict)),
            TriagePrediction.p_accept,
        )
        .join(Candidate, Candidate.id == TriagePrediction.candidate_id)
        .where(TriagePrediction.model_id == row.model_id, is_open())
        .where(is_inside(band.verdict, TriagePrediction.p_accept, band.threshold))
    )
    session.execute(insert(AutoVerdict).from_select(["candidate_id", "band_id", "verdict", "p_accept"], rows))


def revoke_band(workspace: Workspace, band_id: int) -> TriageBand:
    """End a confirmed band and remove its automatic verdicts. Raises ``BandError`` if it does not stand."""
    with workspace.write() as session:
        band = session.get(TriageBand, band_id)
        if band is None or band.revoked_at is not None:
            raise BandError(f"No confirmed band {band_id} stands; reload to see what does.")
        _revoke(session, band)
    return band


def _revoke(session: Session, band: TriageBand) -> None:
    session.execute(delete(AutoVerdict).where(AutoVerdict.band_id == band.id))
    band.revoked_at = utcnow()
    session.flush()


def active_band(session: Session, recipe_id: int) -> TriageBand | None:
    """The confirmed band that stands for the recipe, if any."""
    query = (
        select(TriageBand)
        .join(TriageModel, TriageModel.id == TriageBand.model_id)
        .where(TriageModel.recipe_id == recipe_id, TriageBand.revoked_at.is_(None))
    )
    return session.scalar(query.order_by(TriageBand.id.desc()).limit(1))


def auto_where(verdict: Verdict) -> ColumnElement[bool]:
    """True over ``Candidate`` where the model's verdict counts: a standing band gave it and no person has since
    accepted, rejected or adjudicated the candidate. A skip leaves it standing."""
    automatic = exists().where(AutoVerdict.candidate_id == Candidate.id, AutoVerdict.verdict == verdict)
    accepted, rejected = (has_answer(answer) for answer in ANSWERS)
    return automatic & ~accepted & ~rejected & ~is_adjudicated()


def auto_counts(session: Session, recipe_id: int) -> dict[Verdict, int]:
    """How many candidates of the recipe the model's verdict counts for, to accept and to reject."""
    counted = select(func.count()).select_from(Candidate).where(Candidate.recipe_id == recipe_id)
    return {verdict: session.scalar(counted.where(auto_where(verdict))) or 0 for verdict in ANSWERS}


def confirmed_bands(session: Session, recipe_id: int) -> list[TriageBand]:
    """Every band that was ever confirmed for the recipe, newest first; ``revoked_at`` tells which stands."""
    query = select(TriageBand).join(TriageModel, TriageModel.id == TriageBand.model_id)
    return list(session.scalars(query.where(TriageModel.recipe_id == recipe_id).order_by(TriageBand.id.desc())))
