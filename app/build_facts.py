"""What review knows of a set, for builds and their archives: agreement and gold at the freeze, the audit at the export.

exports may not ask review; it takes these as plain JSON.
"""

from __future__ import annotations

import json

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Build, Decision, Recipe
from db.queries import get_meta, set_meta
from db.workspace import Workspace
from exports.builds import Frozen, freeze
from exports.fields import CLASS_KAPPA
from exports.rules import Rule
from review.agreement import agreement_summary
from review.audit_report import AuditReport, build_audit
from review.gold import gold_report

KAPPAS_AS_OF = "class_kappa_as_of"
"""The meta key of the recipe and the last decision that the kept kappas are of."""


def freeze_reviewed(workspace: Workspace, name: str, rule: Rule, *, created_by: str = "", note: str = "") -> Frozen:
    """:func:`exports.builds.freeze` of the active recipe, with what its annotators agree on in the summary."""
    return freeze(workspace, name, rule, created_by=created_by, note=note, review=review_facts)


def review_facts(session: Session, recipe: Recipe, pseudonyms: dict[int, str]) -> dict:
    """Agreement and gold results as they stand, annotators by pseudonym."""
    agreement = agreement_summary(session, recipe.id, names=pseudonyms)
    gold = [
        {
            "annotator": pseudonyms[score.user_id],
            "judged": score.judged,
            "correct": score.correct,
            "accuracy": score.accuracy,
            "low": score.low,
            "high": score.high,
        }
        for score in sorted(gold_report(session), key=lambda score: score.user_id)
        if score.user_id in pseudonyms
    ]
    return {"agreement": agreement, "gold": gold}


def keep_class_kappas(session: Session, recipe: Recipe) -> None:
    """Write each class's kappa where membership expressions look for it. Needs a write session."""
    classes = agreement_summary(session, recipe.id)["classes"]
    kappas = {str(row["class_index"]): row["kappa"] for row in classes if row["kappa"] is not None}
    set_meta(session, CLASS_KAPPA, json.dumps(kappas, sort_keys=True))


def refresh_class_kappas(workspace: Workspace, recipe: Recipe) -> None:
    """:func:`keep_class_kappas` unless no decision was made since they were last kept for that recipe."""
    with workspace.read() as session:
        newest = session.scalar(select(func.max(Decision.id))) or 0
        as_of = f"{recipe.id}:{newest}"
        if get_meta(session, KAPPAS_AS_OF) == as_of:
            return
    with workspace.write() as session:
        keep_class_kappas(session, recipe)
        set_meta(session, KAPPAS_AS_OF, as_of)


def audit_facts(session: Session, build: Build) -> dict | None:
    """What a build's newest complete audit found, for the data card; None when there is none."""
    report = build_audit(session, build)
    return None if report is None else _audit_json(report)


def _audit_json(report: AuditReport) -> dict:
    estimate = report.estimate
    return {
        "statement": report.statement,
        "judged": report.judged,
        "population": report.population,
        "object_left": report.object_left,
        "disputed": report.disputed,
        "share": estimate.share,
        "lower": estimate.interval.lower,
        "upper": estimate.interval.upper,
        "one_sided_upper": estimate.upper,
        "confidence": estimate.confidence,
        "method": estimate.method,
        "strata_by": report.strata_by,
        "strata": [[row.name, row.population, row.judged, row.object_left] for row in report.strata],
        "reasons": report.reasons,
        "auditors": [[auditor.name, auditor.judged] for auditor in report.auditors],
        "seed": report.seed,
        "drawn_at": report.drawn_at.isoformat(timespec="seconds"),
        "last_judged_at": report.last_judged_at.isoformat(timespec="seconds") if report.last_judged_at else None,
    }
