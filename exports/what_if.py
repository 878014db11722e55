"""What a rule would take in now, and what another rule or a frozen build would have instead; nothing is written.

The candidates are read once, as arrays (:mod:`exports.loaded_facts`), and every rule is worked out on them: a page asks
at each move of a threshold, over 50,000 candidates.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import median

import numpy as np
from sqlalchemy import select
from sqlalchemy.orm import Session

from db.models import Build, ImageClass, Recipe
from exports.loaded_facts import FactsSource, LoadedFacts, Members
from exports.rules import Cause, Rule

MAX_BINS = 60


@dataclass(frozen=True)
class Histogram:
    """Counts of the drop. Bin ``i`` is ``[edges[i], edges[i + 1])``, the last one closed on both sides.

    ``edges`` are multiples of one round width, so that a round threshold falls on an edge; ``all`` counts
    every candidate that is not superseded, ``members`` those the rule takes in. All empty without candidates.
    """

    edges: tuple[float, ...]
    all: tuple[int, ...]
    members: tuple[int, ...]


@dataclass(frozen=True)
class ClassCounts:
    """Members a class, over all ``classes`` of the class list; ``empty`` are the indices of those without one."""

    classes: int
    smallest: int
    median: float
    largest: int
    empty: tuple[int, ...]
    counts: dict[int, int]


@dataclass(frozen=True)
class BuildPreview:
    """What freezing would give now. ``members`` and the ``excluded`` counts add up to ``candidates``.

    ``excluded`` counts each candidate once, under the first :class:`~exports.rules.Cause` that applies.
    ``sample`` are candidate ids of members drawn with the seed, in order of id.
    """

    candidates: int
    members: int
    excluded: dict[Cause, int]
    classes: ClassCounts
    histogram: Histogram
    sample: tuple[int, ...]


@dataclass(frozen=True)
class WhatIf:
    """From one membership to another: how many candidates enter and leave, the balance by class, a seeded sample of
    each. ``before`` is the size of the first."""

    before: int
    entered: int
    left: int
    classes: dict[int, int]
    entered_sample: tuple[int, ...]
    left_sample: tuple[int, ...]


def preview(session: Session, recipe: Recipe, rule: Rule, *, sample_size: int = 24, seed: int = 0) -> BuildPreview:
    """What ``rule`` takes in among the recipe's candidates now."""
    return _preview(session, FactsSource(session).facts(recipe, [rule]), rule, sample_size, seed)


def what_if(
    session: Session, recipe: Recipe, before: Rule | Build, after: Rule, *, sample_size: int = 12, seed: int = 0
) -> WhatIf:
    """What changes when ``after`` is used instead of the rule or frozen build ``before``."""
    return preview_and_what_if(session, recipe, before, after, sample_size=sample_size, seed=seed)[1]


def preview_and_what_if(
    session: Session,
    recipe: Recipe,
    before: Rule | Build,
    after: Rule,
    *,
    sample_size: int = 12,
    seed: int = 0,
    source: FactsSource | None = None,
) -> tuple[BuildPreview, WhatIf]:
    """Both from one reading of the candidates, through ``source``. Samples have ``sample_size`` candidates at most."""
    source = source or FactsSource(session)
    alike = isinstance(before, Rule) and (before.kind, before.split) == (after.kind, after.split)
    facts = source.facts(recipe, [after, before] if alike else [after])
    if alike:
        old = facts.members(before)
    elif isinstance(before, Rule):
        old = source.facts(recipe, [before]).members(before)
    else:
        old = source.frozen(before)
    seen = _preview(session, facts, after, sample_size, seed)
    return seen, _change(old, facts.members(after), sample_size, seed)


def class_counts(session: Session, per_class: Counter[int]) -> ClassCounts:
    """``per_class`` members over the whole class list."""
    indices = list(session.scalars(select(ImageClass.class_index).order_by(ImageClass.class_index)))
    counts = [per_class[index] for index in indices]
    return ClassCounts(
        classes=len(indices),
        smallest=min(counts, default=0),
        median=float(median(counts)) if counts else 0.0,
        largest=max(counts, default=0),
        empty=tuple(index for index in indices if not per_class[index]),
        counts={index: per_class[index] for index in indices if per_class[index]},
    )


def _preview(session: Session, facts: LoadedFacts, rule: Rule, sample_size: int, seed: int) -> BuildPreview:
    failures = facts.failures(rule)
    inside = ~np.logical_or.reduce([fails for _, fails in failures])
    excluded = dict.fromkeys(Cause, 0)
    named = np.zeros(len(inside), bool)
    for cause, fails in failures:
        excluded[cause] += int((fails & ~named).sum())
        named |= fails
    shown = ~facts.superseded & np.isfinite(facts.drop)
    return BuildPreview(
        candidates=len(inside),
        members=int(inside.sum()),
        excluded=excluded,
        classes=class_counts(session, _per_class(facts.classes[inside])),
        histogram=_histogram(facts.drop[shown], facts.drop[shown & inside]),
        sample=_sample(facts.ids[inside], sample_size, seed),
    )


def _change(old: Members, new: Members, sample_size: int, seed: int) -> WhatIf:
    enters = ~np.isin(new.ids, old.ids, assume_unique=True)
    leaves = ~np.isin(old.ids, new.ids, assume_unique=True)
    balance = _per_class(new.classes[enters])
    balance.subtract(_per_class(old.classes[leaves]))
    return WhatIf(
        before=len(old.ids),
        entered=int(enters.sum()),
        left=int(leaves.sum()),
        classes={index: change for index, change in sorted(balance.items()) if change},
        entered_sample=_sample(new.ids[enters], sample_size, seed),
        left_sample=_sample(old.ids[leaves], sample_size, seed),
    )


def _per_class(classes: np.ndarray) -> Counter[int]:
    indices, counts = np.unique(classes, return_counts=True)
    return Counter(dict(zip(indices.tolist(), counts.tolist(), strict=True)))


def _sample(ids: np.ndarray, size: int, seed: int) -> tuple[int, ...]:
    chosen = random.Random(seed).sample(range(len(ids)), min(size, len(ids)))
    return tuple(sorted(ids[chosen].tolist()))


def _histogram(drops: np.ndarray, members: np.ndarray) -> Histogram:
    if not len(drops):
        return Histogram((), (), ())
    lowest, highest = float(drops.min()), float(drops.max())
    width = _round_width((highest - lowest) / (MAX_BINS - 2))
    first, last = math.floor(lowest / width), math.floor(highest / width) + 1
    edges = [index * width for index in range(first, last + 1)]

    def counted(values: np.ndarray) -> Iterable[int]:
        return np.histogram(values, edges)[0].tolist()

    return Histogram(edges=tuple(edges), all=tuple(counted(drops)), members=tuple(counted(members)))


def _round_width(least: float) -> float:
    """The smallest of 0.25, 0.5, 1, 2.5, 5, 10, 25, ... that is at least ``least``: 5 is a multiple up to 5."""
    scale = 0.1
    while True:
        for step in (2.5, 5.0, 10.0):
            if scale * step >= least:
                return scale * step
        scale *= 10
