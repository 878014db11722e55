"""Versions of the model: trained from the verdicts at a moment, told when due again, made again to be checked.

No model is stored. A version is a row that names the last decision it learnt from and its seed, and the
predictions; the same code makes the same model from them again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sqlalchemy import delete, exists, func, insert, select
from sqlalchemy.orm import Session

from db.models import Candidate, CurrentVerdict, Decision, GoldItem, Kind, TriageModel, TriagePrediction, Verdict
from db.progress import NoProgress, Progress
from db.workspace import Workspace
from review.triage.bands import newest_model, newest_of, predictions
from review.triage.features import ExtraFeatures, FeatureTable, feature_table
from review.triage.labels import Cutoff, labels_at
from review.triage.model import MIN_EACH, Fit, TooFewVerdicts, check_enough, fit
from review.triage.order import review_priority

RETRAIN_AFTER = 50
RETRAIN_SHARE = 0.1
RETRAIN_AT_LATEST = 2_000
WRITE_ROWS = 1_000


@dataclass(frozen=True)
class Trained:
    """The newest version; ``is_new`` is False when nothing had changed since it was trained."""

    model: TriageModel
    is_new: bool


@dataclass(frozen=True)
class RetrainState:
    """How many decisions came since the newest version learnt, how many make the next one due, and whether it is.

    ``missing`` says why nothing can be learnt yet; empty once there is a version.
    """

    last_decision_id: int
    new_decisions: int
    due_after: int
    is_due: bool
    missing: str


def train(
    workspace: Workspace,
    recipe_id: int,
    *,
    seed: int = 0,
    extra: ExtraFeatures | None = None,
    progress: Progress | None = None,
) -> Trained:
    """Learn from every verdict on the recipe's background candidates and write a new version with its predictions.

    Raises :class:`review.triage.model.TooFewVerdicts`, and :class:`db.progress.Cancelled` before anything is written.
    """
    progress = progress or NoProgress()
    with workspace.read() as session:
        cutoff = Cutoff.now(session)
        newest = newest_model(session, recipe_id)
        if newest is not None and _is_current(session, newest, cutoff, seed):
            return Trained(newest, is_new=False)
    table, fitted = _learn(workspace, recipe_id, cutoff, seed, extra, progress)
    return Trained(_store(workspace, recipe_id, cutoff, table, fitted), is_new=True)


def retraining_difference(
    workspace: Workspace, model_id: int, *, extra: ExtraFeatures | None = None, progress: Progress | None = None
) -> float:
    """Train the newest version again from what it names; the largest difference to any P(accept) it stored.

    0 where the numeric libraries are the same. Raises :class:`review.triage.bands.BandError` for a version that is
    not the newest: only that one's predictions are kept.
    """
    with workspace.read() as session:
        model = newest_of(session, model_id)
        stored_ids, stored, _ = predictions(session, model)
    cutoff = Cutoff.from_json(model.metrics["cutoff"])
    seed = model.metrics["seed"]
    table, fitted = _learn(workspace, model.recipe_id, cutoff, seed, extra, progress or NoProgress(), diagnostics=False)
    again = dict(zip(table.candidate_ids.tolist(), fitted.p_accept.tolist(), strict=True))
    return max((abs(again[key] - p) for key, p in zip(stored_ids, stored.tolist(), strict=True)), default=0.0)


def due_after(trained_on: int) -> int:
    """How many new decisions make a new version due: 50, or a tenth of those learnt from if that is more, at most
    2,000."""
    return min(max(RETRAIN_AFTER, round(RETRAIN_SHARE * trained_on)), RETRAIN_AT_LATEST)


def retrain_state(session: Session, recipe_id: int) -> RetrainState:
    """Whether a new version is worth its time: :func:`due_after` new decisions; for the first one, enough of either
    verdict. A few look-ups, whatever the workspace's size."""
    newest = newest_model(session, recipe_id)
    last = session.scalar(select(func.max(Decision.id))) or 0
    if newest is None:
        counts = [_count_up_to(session, recipe_id, verdict, MIN_EACH) for verdict in (Verdict.ACCEPT, Verdict.REJECT)]
        try:
            check_enough(*counts)
        except TooFewVerdicts as error:
            return RetrainState(last, last, RETRAIN_AFTER, False, str(error))
        return RetrainState(last, last, RETRAIN_AFTER, True, "")
    after = due_after(newest.trained_on)
    new = last - newest.last_decision_id
    return RetrainState(last, new, after, new >= after, "")


def should_retrain(session: Session, recipe_id: int) -> bool:
    """See :func:`retrain_state`."""
    return retrain_state(session, recipe_id).is_due


def _count_up_to(session: Session, recipe_id: int, verdict: Verdict, most: int) -> int:
    """Candidates with that verdict of anybody, counted no further than ``most``."""
    some = (
        select(CurrentVerdict.candidate_id)
        .join(Candidate, Candidate.id == CurrentVerdict.candidate_id)
        .where(CurrentVerdict.verdict == verdict)
        .where(Candidate.recipe_id + 0 == recipe_id, Candidate.kind == Kind.BACKGROUND)
        .distinct()
        .limit(most)
    )
    return session.scalar(select(func.count()).select_from(some.subquery())) or 0


def _is_current(session: Session, newest: TriageModel, cutoff: Cutoff, seed: int) -> bool:
    learnt = Cutoff.from_json(newest.metrics["cutoff"])
    same = (learnt.decision_id, learnt.adjudication_id, newest.metrics["seed"])
    if same != (cutoff.decision_id, cutoff.adjudication_id, seed):
        return False
    new_gold = exists().where(GoldItem.created_at > learnt.gold_until)
    predicted = exists().where(TriagePrediction.candidate_id == Candidate.id, TriagePrediction.model_id == newest.id)
    of_recipe = (Candidate.recipe_id == newest.recipe_id, Candidate.kind == Kind.BACKGROUND)
    unpredicted = select(Candidate.id).where(*of_recipe, ~predicted).exists()
    return not session.scalar(select(new_gold | unpredicted))


def _learn(
    workspace: Workspace,
    recipe_id: int,
    cutoff: Cutoff,
    seed: int,
    extra: ExtraFeatures | None,
    progress: Progress,
    *,
    diagnostics: bool = True,
) -> tuple[FeatureTable, Fit]:
    with workspace.read() as session:
        labels = labels_at(session, recipe_id, cutoff)
    accepted = sum(labels.values())
    check_enough(accepted, len(labels) - accepted)
    table = feature_table(workspace, recipe_id, progress, extra)
    verdicts = np.array([labels.get(key, -1) for key in table.candidate_ids.tolist()], np.int8)
    return table, fit(table, verdicts, seed=seed, diagnostics=diagnostics, progress=progress)


def _store(workspace: Workspace, recipe_id: int, cutoff: Cutoff, table: FeatureTable, fitted: Fit) -> TriageModel:
    """The version's row, then its predictions in short transactions: annotators are writing at the same time."""
    import sklearn

    metrics = {**fitted.metrics, "cutoff": cutoff.to_json(), "libraries": {"scikit-learn": sklearn.__version__}}
    judged = metrics["accepted"] + metrics["rejected"]
    model = TriageModel(
        recipe_id=recipe_id,
        last_decision_id=cutoff.decision_id,
        trained_on=judged,
        features=list(fitted.feature_names),
        metrics=metrics,
    )
    with workspace.write() as session:
        session.add(model)
    priority = review_priority(fitted.p_accept, fitted.is_unjudged, metrics["seed"])
    rows = [
        {"candidate_id": candidate_id, "model_id": model.id, "p_accept": p, "uncertainty": u}
        for candidate_id, p, u in zip(
            table.candidate_ids.tolist(), fitted.p_accept.tolist(), priority.tolist(), strict=True
        )
    ]
    for start in range(0, len(rows), WRITE_ROWS):
        part = rows[start : start + WRITE_ROWS]
        with workspace.write() as session:
            old = TriagePrediction.candidate_id.in_([row["candidate_id"] for row in part])
            session.execute(delete(TriagePrediction).where(old))
            session.execute(insert(TriagePrediction), part)
    return model
