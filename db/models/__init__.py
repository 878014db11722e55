"""The workspace's tables as SQLAlchemy typed mappings, one class a table. docs/architecture.md has the words.

Decisions, decision-like logs and frozen builds are append-only: triggers refuse their UPDATE and DELETE, so
not even a bug can rewrite a verdict.
"""

from db.models.base import Base, UtcDateTime, utcnow, value_enum
from db.models.builds import Build, BuildItem
from db.models.catalogue import Candidate, ImageClass, Kind, Meta, Outcome, Recipe, SourceImage, Split, State
from db.models.jobs import Job, JobLogLine, JobState
from db.models.review import (
    Adjudication,
    Audit,
    AuditItem,
    AuditJudgement,
    AutoVerdict,
    CurrentVerdict,
    Decision,
    DuplicateMember,
    GoldItem,
    Lease,
    Reason,
    Role,
    SavedView,
    TriageBand,
    TriageModel,
    TriagePrediction,
    User,
    UserSession,
    Verdict,
    Via,
)
from db.models.training import Evaluation, EvaluationSet, FewShotItem, FewShotSet, Run, RunEpoch

__all__ = [
    "Adjudication",
    "Audit",
    "AuditItem",
    "AuditJudgement",
    "AutoVerdict",
    "Base",
    "Build",
    "BuildItem",
    "Candidate",
    "CurrentVerdict",
    "Decision",
    "DuplicateMember",
    "Evaluation",
    "EvaluationSet",
    "FewShotItem",
    "FewShotSet",
    "GoldItem",
    "ImageClass",
    "Job",
    "JobLogLine",
    "JobState",
    "Kind",
    "Lease",
    "Meta",
    "Outcome",
    "Reason",
    "Recipe",
    "Role",
    "Run",
    "RunEpoch",
    "SavedView",
    "SourceImage",
    "Split",
    "State",
    "TriageBand",
    "TriageModel",
    "TriagePrediction",
    "User",
    "UserSession",
    "UtcDateTime",
    "Verdict",
    "Via",
    "utcnow",
    "value_enum",
]
