"""The candidates that rules are about, as arrays: read from the database once, then worked on."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeVar

import numpy as np
from sqlalchemy import ColumnElement, Integer, select, type_coerce
from sqlalchemy.orm import Session

from db.changes import ChangeCounter
from db.models import Build, BuildItem, Candidate, Recipe, SourceImage, Verdict
from db.workspace import Workspace
from exports.rules import Cause, Rule, SqlFacts

KEPT = 8
_Loaded = TypeVar("_Loaded")


@dataclass(frozen=True)
class Members:
    """Candidate ids, ascending, and the class index of each; both ``int64 [n]``."""

    ids: np.ndarray
    classes: np.ndarray


class LoadedFacts:
    """:class:`~exports.rules.Facts` of a population as arrays ``[n]``, in order of id.

    Only what ``rules`` ask for is read; all of them must mean the same kind and split.
    """

    def __init__(self, session: Session, recipe: Recipe, rules: Sequence[Rule]) -> None:
        flags: dict[object, ColumnElement[bool]] = {"superseded": SqlFacts().superseded}
        flags |= {asked: SqlFacts().said(*asked) for asked in asked_verdicts(rules)}
        flags |= {text: SqlFacts().holds(text) for text in asked_expressions(rules)}
        query = (
            select(
                Candidate.id,
                Candidate.class_index,
                Candidate.drop,
                Candidate.area,
                Candidate.residual,
                *(type_coerce(flag, Integer) for flag in flags.values()),
            )
            .join(SourceImage, SourceImage.id == Candidate.source_id)
            .where(rules[0].population(recipe.id))
            .order_by(Candidate.id)
        )
        rows = session.connection().execute(query).all()
        columns = [np.asarray(column) for column in zip(*rows, strict=True)] or [np.empty(0)] * (5 + len(flags))
        self.ids, self.classes = (column.astype(np.int64) for column in columns[:2])
        self.drop, self.area, self.residual = (column.astype(np.float64) for column in columns[2:5])
        self._flags = dict(zip(flags, (column.astype(bool) for column in columns[5:]), strict=True))
        self.superseded = self._flags["superseded"]

    def said(self, verdict: Verdict, auto: bool) -> np.ndarray:
        return self._flags[verdict, auto]

    def holds(self, expression: str) -> np.ndarray:
        return self._flags[expression]

    def failures(self, rule: Rule) -> list[tuple[Cause, Any]]:
        """What keeps candidates out, in the order in which it is named; ``bool [n]`` each."""
        return rule.failures(self)

    def members(self, rule: Rule) -> Members:
        inside = ~np.logical_or.reduce([fails for _, fails in self.failures(rule)])
        return Members(self.ids[inside], self.classes[inside])


def asked_verdicts(rules: Sequence[Rule]) -> list[tuple[Verdict, bool]]:
    """The verdicts that the rules ask for, each with their word on auto verdicts."""
    asked = {
        (verdict, rule.auto)
        for rule, verdict in product(rules, (Verdict.REJECT, Verdict.ACCEPT))
        if rule.verdicts == "accepted" or (rule.verdicts == "not_rejected" and verdict is Verdict.REJECT)
    }
    return sorted(asked)


def asked_expressions(rules: Sequence[Rule]) -> list[str]:
    return sorted({rule.expression for rule in rules} - {""})


class FactsSource:
    """Reads the facts of rules and the members of frozen builds through a session."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def facts(self, recipe: Recipe, rules: Sequence[Rule]) -> LoadedFacts:
        """The facts of one population under ``recipe``, for rules of the same kind and split."""
        return LoadedFacts(self._session, recipe, rules)

    def frozen(self, build: Build) -> Members:
        """The members of a frozen build."""
        query = select(BuildItem.candidate_id, BuildItem.class_index).where(BuildItem.build_id == build.id)
        rows = self._session.connection().execute(query)
        found = np.array([tuple(row) for row in rows], np.int64).reshape(-1, 2)
        found = found[np.argsort(found[:, 0])]
        return Members(found[:, 0], found[:, 1])


class KeptFacts(FactsSource):
    """The same with a memory: what was read is used again until anything is committed to the workspace.

    May be used by several threads. Keeps the ``KEPT`` last read, about 2 MB each at 50,000 candidates.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace
        self._changes = ChangeCounter(workspace)
        self._seen: int | None = None
        self._kept: OrderedDict[object, Any] = OrderedDict()
        self._lock = threading.Lock()

    def facts(self, recipe: Recipe, rules: Sequence[Rule]) -> LoadedFacts:
        asked = (tuple(asked_verdicts(rules)), tuple(asked_expressions(rules)))
        key = ("facts", recipe.id, rules[0].kind, rules[0].split, asked)
        return self._get(key, lambda source: source.facts(recipe, rules))

    def frozen(self, build: Build) -> Members:
        return self._get(("frozen", build.id), lambda source: source.frozen(build))

    def _get(self, key: object, load: Callable[[FactsSource], _Loaded]) -> _Loaded:
        with self._lock:
            # Before the session: what is committed in between is read, and read once more next time.
            seen = self._changes.value()
            if seen != self._seen:
                self._kept.clear()
                self._seen = seen
            if key not in self._kept:
                with self._workspace.read() as session:
                    self._kept[key] = load(FactsSource(session))
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
            return self._kept[key]
