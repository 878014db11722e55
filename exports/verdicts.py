"""What review says of a candidate, as SQL over ``Candidate``: people's verdicts, the adjudicator's word, the model's.

An adjudication goes before annotators' verdicts, and any person's verdict before the model's: an auto verdict counts
only where nobody accepted or rejected, and while its confirmed band is not revoked.
"""

from __future__ import annotations

from sqlalchemy import ColumnElement, String, and_, case, func, literal, not_, or_, select
from sqlalchemy.orm import aliased

from db.models import Adjudication, AutoVerdict, Candidate, CurrentVerdict, TriageBand, Verdict


def has_verdict(verdict: Verdict, *, auto: bool = True) -> ColumnElement[bool]:
    """True where the verdict (accept or reject) stands: of the adjudicator, else of at least one annotator, else,
    with ``auto``, of the model. Never NULL."""
    said = by_annotator(verdict)
    if auto:
        model = func.coalesce(auto_verdict() == str(verdict), False)
        said = or_(said, and_(not_(judged_by_annotator()), model))
    return func.coalesce(final_word() == str(verdict), said)


def by_annotator(verdict: Verdict) -> ColumnElement[bool]:
    """True where at least one annotator's standing verdict is ``verdict``."""
    row = aliased(CurrentVerdict)
    return select(1).where(row.candidate_id == Candidate.id, row.verdict == verdict).exists()


def judged_by_annotator() -> ColumnElement[bool]:
    """True where an annotator accepts or rejects; a skip is no verdict."""
    return or_(by_annotator(Verdict.ACCEPT), by_annotator(Verdict.REJECT))


def final_word() -> ColumnElement[str | None]:
    """The latest adjudication of the candidate; NULL when there is none or it is undone."""
    row = aliased(Adjudication)
    latest = select(row.verdict).where(row.candidate_id == Candidate.id).order_by(row.id.desc()).limit(1)
    return func.nullif(latest.scalar_subquery(), str(Verdict.UNDO), type_=String)


def auto_verdict() -> ColumnElement[str | None]:
    """What the model says inside a confirmed band that is not revoked; else NULL."""
    row, band = aliased(AutoVerdict), aliased(TriageBand)
    query = select(row.verdict).join(band, band.id == row.band_id)
    return query.where(row.candidate_id == Candidate.id, band.revoked_at.is_(None)).scalar_subquery()


def decided_by(*, auto: bool = True) -> ColumnElement[str]:
    """Whose verdict stands behind a candidate: adjudicator, human, auto or nobody."""
    whens = [(final_word().is_not(None), literal("adjudicator")), (judged_by_annotator(), literal("human"))]
    if auto:
        whens.append((auto_verdict().is_not(None), literal("auto")))
    return case(*whens, else_=literal("nobody"))


def verdict_count(verdict: Verdict) -> ColumnElement[int]:
    """How many annotators' standing verdict is ``verdict``."""
    row = aliased(CurrentVerdict)
    return select(func.count()).where(row.candidate_id == Candidate.id, row.verdict == verdict).scalar_subquery()
