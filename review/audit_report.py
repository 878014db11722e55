"""What an audit comes to: the share of a build's images in which the object is still to be seen, with its bounds."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import AuditItem, AuditJudgement, Build
from review.audit import audits_of, find_audit
from review.intervals import ShareEstimate, Stratum, estimate_share

CONFIDENCE = 0.95
NOT_AUDITED = "not audited"


@dataclass(frozen=True)
class StratumResult:
    """One stratum: its members, how many were drawn and judged, and in how many of these the object is left."""

    name: str
    population: int
    drawn: int
    judged: int
    object_left: int


@dataclass(frozen=True)
class Auditor:
    """Somebody who judged, by a pseudonym of this audit alone: ``auditor-1`` is who judged first."""

    name: str
    judged: int


@dataclass(frozen=True)
class AuditReport:
    """An audit's result; a candidate counts as object left when any auditor's standing judgement says so.

    ``object_left`` and the strata's counts are numbers of candidates. ``estimate`` is the share of all members with
    the object left (docs/audit.md says how its bounds are made), None until every stratum has a judged candidate;
    purity is 1 minus it. Bounds of an audit that is not ``complete`` hold for what is judged so far, in the shuffled
    order. ``disputed`` counts candidates on which auditors differ.
    """

    audit_id: int
    recipe_id: int
    build_id: int | None
    drawn: int
    judged: int
    object_left: int
    disputed: int
    population: int
    strata: tuple[StratumResult, ...]
    estimate: ShareEstimate | None
    reasons: dict[str, int]
    auditors: tuple[Auditor, ...]
    created_by: str
    drawn_at: dt.datetime
    first_judged_at: dt.datetime | None
    last_judged_at: dt.datetime | None
    seed: int
    strata_by: str

    @property
    def is_complete(self) -> bool:
        return self.judged == self.drawn

    @property
    def statement(self) -> str:
        """One line for a page or a data card: the bound when complete, else how far the audit is."""
        if not self.is_complete or self.estimate is None:
            return f"audit {self.audit_id} not finished: {self.judged} of {self.drawn} judged"
        if self.estimate.method == "census":
            return f"object left in {100 * self.estimate.share:.1f} % (all {self.population} images judged)"
        return (
            f"object left in <= {_rounded_up(self.estimate.upper)} ({100 * self.estimate.confidence:g} %): "
            f"{self.object_left} of {self.judged} judged at random"
        )


def _rounded_up(share: float) -> str:
    """A share in per cent with one decimal, never less than it is."""
    tenths = -(-round(share * 1e9) // 1_000_000)
    return f"{tenths / 10:.1f} %"


def audit_report(session: Session, audit_id: int, confidence: float = CONFIDENCE) -> AuditReport:
    """What stands now. Raises :class:`review.audit.AuditError` for an unknown audit."""
    audit = find_audit(session, audit_id)
    items = session.execute(
        select(AuditItem.candidate_id, AuditItem.stratum).where(AuditItem.audit_id == audit_id)
    ).all()
    standing = _standing_judgements(session, audit_id)
    left: dict[int, set[bool]] = {}
    for judgement in standing:
        left.setdefault(judgement.candidate_id, set()).add(judgement.object_left)
    drawn = Counter(stratum for _, stratum in items)
    judged = Counter(stratum for candidate_id, stratum in items if candidate_id in left)
    found = Counter(stratum for candidate_id, stratum in items if True in left.get(candidate_id, ()))
    strata = tuple(
        StratumResult(name, population, drawn[name], judged[name], found[name])
        for name, population in sorted(audit.strata.items())
    )
    times = sorted(judgement.created_at for judgement in standing)
    return AuditReport(
        audit_id=audit.id,
        recipe_id=audit.recipe_id,
        build_id=audit.build_id,
        drawn=len(items),
        judged=len(left),
        object_left=sum(found.values()),
        disputed=sum(len(answers) > 1 for answers in left.values()),
        population=sum(audit.strata.values()),
        strata=strata,
        estimate=_estimate(strata, confidence),
        reasons=dict(sorted(Counter(str(reason) for row in standing for reason in row.reasons).items())),
        auditors=_auditors(standing),
        created_by=audit.created_by,
        drawn_at=audit.created_at,
        first_judged_at=times[0] if times else None,
        last_judged_at=times[-1] if times else None,
        seed=audit.seed,
        strata_by=audit.rule["strata"],
    )


def _standing_judgements(session: Session, audit_id: int) -> list[AuditJudgement]:
    """Each auditor's latest judgement on each candidate, in the order in which these were first judged."""
    query = select(AuditJudgement).where(AuditJudgement.audit_id == audit_id).order_by(AuditJudgement.id)
    return list({(row.candidate_id, row.user_id): row for row in session.scalars(query)}.values())


def _estimate(strata: tuple[StratumResult, ...], confidence: float) -> ShareEstimate | None:
    if any(stratum.judged == 0 for stratum in strata):
        return None
    counts = [Stratum(stratum.population, stratum.judged, stratum.object_left) for stratum in strata]
    return estimate_share(counts, confidence)


def _auditors(standing: list[AuditJudgement]) -> tuple[Auditor, ...]:
    counts = Counter(judgement.user_id for judgement in standing)
    return tuple(Auditor(f"auditor-{place}", count) for place, count in enumerate(counts.values(), 1))


def build_audit(session: Session, build: Build) -> AuditReport | None:
    """The newest complete audit that applies to a frozen build: drawn from it, or from exactly the same members.

    None when there is no such audit: the build is :data:`NOT_AUDITED`.
    """
    for audit in audits_of(session, build):
        report = audit_report(session, audit.id)
        if report.is_complete:
            return report
    return None


def audit_statement(report: AuditReport | None) -> str:
    """What the build page and the data card say of a build's purity, from :func:`build_audit`."""
    return NOT_AUDITED if report is None else report.statement
