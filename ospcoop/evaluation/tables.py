"""Results as a page or table shows them: rows, the four-set average apart from Bg, mean and spread over seeds.

All metrics are fractions 0..1; the newest evaluation of the same prompts, detector and pair of sets counts.
"""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from db.models import Evaluation, FewShotSet, Run
from ospcoop.evaluation.paired import Paired
from ospcoop.evaluation.sets import CLASSIC_NAMES, classic_name
from ospcoop.metrics import Interval
from ospcoop.options import OBJECTIVE_LABELS, canonical_hash

ZERO_SHOT = "zero-shot"
COLUMNS: dict[str, str] = {
    "auroc": "AUROC",
    "aupr_in": "AUPR in",
    "aupr_out": "AUPR out",
    "fpr95_id_pos": "FPR95 (ID positive)",
    "fpr95_ood_pos": "FPR95 (OOD positive)",
    "id_accuracy": "ID accuracy",
}
"""Metrics in the order of the tables' columns."""
LOWER_IS_BETTER = frozenset({"fpr95_id_pos", "fpr95_ood_pos"})
SHOWN_DECIMALS = 4
"""Of a fraction, as tables print it; equal as printed is equally good."""
SELECTIONS: dict[str, str] = {
    "last": "last epoch",
    "held_out": "held-out",
    "test": "as published: chosen on the test sets",
}
CLASSIC_AVERAGE = "average of the classic four"
DEMO_IMAGES = 20
FEW_IMAGES = 100


@dataclass(frozen=True)
class ResultRow:
    """One evaluation. ``run`` is "zero-shot" or a run's name; ``epoch`` counts from 1 and is None for zero-shot.

    ``series`` is equal for runs that differ by their seeds alone. ``best`` names the metrics in which no row on the
    same sets and encoder is better. ``trained_classes`` of ``classes`` were trained on (None: zero-shot).
    ``data_known`` is False for an imported run, of which nobody can say whether it saw the test.
    """

    evaluation: int
    run: str
    run_id: int | None
    method: str
    encoder: str
    grade: str
    seed: int | None
    epoch: int | None
    selection: str
    detector: str
    id_set: str
    ood_set: str
    group: str
    id_images: int
    ood_images: int
    id_sha256: str
    ood_sha256: str
    classes: int
    trained_classes: int | None
    metrics: dict[str, Interval]
    paired: Paired | None
    scores: str
    series: str
    data_known: bool
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class AverageRow:
    """Plain means over the four classic sets of the same prompts, detector and ID set; Bg never takes part."""

    run: str
    method: str
    encoder: str
    detector: str
    id_set: str
    selection: str
    metrics: dict[str, float]
    best: frozenset[str] = frozenset()


@dataclass(frozen=True)
class SeriesRow:
    """Runs that differ by their seeds alone: ``mean`` and sample standard deviation ``spread`` over ``seeds``."""

    method: str
    encoder: str
    detector: str
    id_set: str
    ood_set: str
    selection: str
    runs: tuple[str, ...]
    seeds: tuple[int, ...]
    mean: dict[str, float]
    spread: dict[str, float]


def results(
    session: Session,
    *,
    runs: Iterable[str] | None = None,
    detectors: Iterable[str] | None = None,
    sets: Iterable[str] | None = None,
    id_set: str | None = None,
    evaluations: Iterable[int] | None = None,
) -> list[ResultRow]:
    """The newest evaluation of each kind, narrowed to the names given; zero-shot is among ``runs`` as "zero-shot".

    ``detectors`` are labels as a row has them ("GL-MCM"), ``sets`` OOD sets. In order of encoder, ID set, OOD set
    (classic, others, Bg), detector, then zero-shot before runs by age. ``best`` is among the rows returned.
    """
    newest = select(func.max(Evaluation.id)).group_by(
        Evaluation.run_id, Evaluation.detector, Evaluation.encoder, Evaluation.id_set, Evaluation.ood_set
    )
    query = select(Evaluation).where(Evaluation.id.in_(newest if evaluations is None else list(evaluations)))
    if detectors is not None:
        query = query.where(Evaluation.detector.in_(list(detectors)))
    if sets is not None:
        query = query.where(Evaluation.ood_set.in_(list(sets)))
    if id_set is not None:
        query = query.where(Evaluation.id_set == id_set)
    found = list(session.scalars(query))
    known = {run.id: run for run in session.scalars(select(Run).where(Run.id.in_({one.run_id for one in found})))}
    shots = dict(session.execute(select(FewShotSet.id, FewShotSet.shots)).all())
    rows = [_row(one, known.get(one.run_id), shots) for one in found]
    if runs is not None:
        wanted = set(runs)
        rows = [row for row in rows if row.run in wanted]
    return mark_best(sorted(rows, key=_place))


def _row(one: Evaluation, run: Run | None, shots: dict[int, int]) -> ResultRow:
    facts, options = one.facts, {} if run is None else run.config["options"]
    metrics = {name: Interval(**one.metrics[name]) for name in COLUMNS}
    paired = one.metrics.get("paired")
    return ResultRow(
        evaluation=one.id,
        run=ZERO_SHOT if run is None else run.name,
        run_id=one.run_id,
        method=ZERO_SHOT if run is None else OBJECTIVE_LABELS[run.objective],
        encoder=one.encoder,
        grade=facts["encoder"]["grade"],
        seed=None if run is None else run.seed,
        epoch=None if run is None else facts["prompts"]["epoch"] + 1,
        selection="" if run is None else SELECTIONS[options["selection"]],
        detector=one.detector,
        id_set=one.id_set,
        ood_set=one.ood_set,
        group=facts["ood_set"]["group"],
        id_images=facts["id_set"]["images"],
        ood_images=facts["ood_set"]["images"],
        id_sha256=facts["id_set"]["sha256"],
        ood_sha256=facts["ood_set"]["sha256"],
        classes=facts["classes"],
        trained_classes=facts["prompts"].get("trained_classes"),
        metrics=metrics,
        paired=None if paired is None else Paired.from_dict(paired),
        scores=one.scores,
        series=ZERO_SHOT if run is None else _series(run, shots),
        data_known=run is None or run.fewshot_set_id is not None,
    )


def _series(run: Run, shots: dict[int, int]) -> str:
    """The sample of a few-shot set is drawn by a seed too, so its size counts here and not its photos."""
    options = {name: value for name, value in run.config["options"].items() if name != "seed"}
    data = {"shots": shots.get(run.fewshot_set_id), "classes": run.data["class_list_sha256"]}
    kinds = sorted(run.data.get("kinds", {}))
    imported = run.config.get("imported", {}).get("sha256")
    return canonical_hash([options, run.config["encoder"], data, kinds, imported])[:16]


def _place(row: ResultRow) -> tuple:
    groups = {"classic": 0, "other": 1, "bg": 2}
    classic = classic_name(row.ood_set)
    number = CLASSIC_NAMES.index(classic) if classic in CLASSIC_NAMES else len(CLASSIC_NAMES)
    where = (row.encoder, row.id_set, groups[row.group], number, row.ood_set)
    return (*where, row.detector, row.run_id is not None, row.run_id or 0, row.evaluation)


def mark_best(rows: Sequence[ResultRow]) -> list[ResultRow]:
    """The rows in their order with ``best`` set: among those on the same encoder and sets, as printed."""
    groups: dict[tuple, list[int]] = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row.encoder, row.id_sha256, row.id_set, row.ood_sha256, row.ood_set].append(number)
    marked = list(rows)
    for numbers in groups.values():
        values = [{name: one.value for name, one in rows[number].metrics.items()} for number in numbers]
        for number, best in zip(numbers, best_of(values), strict=True):
            marked[number] = replace(rows[number], best=best)
    return marked


def best_of(values: Sequence[dict[str, float]]) -> list[frozenset[str]]:
    """For each of several results the metrics in which none of the others is better; no result is best alone."""
    if len(values) < 2:
        return [frozenset()] * len(values)
    best: list[set[str]] = [set() for _ in values]
    for name in COLUMNS:
        shown = [round(one[name], SHOWN_DECIMALS) for one in values]
        top = min(shown) if name in LOWER_IS_BETTER else max(shown)
        for place, value in enumerate(shown):
            if value == top:
                best[place].add(name)
    return [frozenset(one) for one in best]


def classic_averages(rows: Sequence[ResultRow]) -> list[AverageRow]:
    """One for each prompts, detector and ID set that has all four classic OOD sets among the rows."""
    groups: dict[tuple, dict[str, ResultRow]] = defaultdict(dict)
    for row in rows:
        name = classic_name(row.ood_set)
        if row.group == "classic" and name is not None:
            groups[row.encoder, row.id_set, row.id_sha256, row.detector, row.run].setdefault(name, row)
    averages = []
    for four in groups.values():
        if len(four) == len(CLASSIC_NAMES):
            one = next(iter(four.values()))
            metrics = {name: statistics.fmean(row.metrics[name].value for row in four.values()) for name in COLUMNS}
            averages.append(
                AverageRow(one.run, one.method, one.encoder, one.detector, one.id_set, one.selection, metrics)
            )
    by_place: dict[tuple, list[int]] = defaultdict(list)
    for number, average in enumerate(averages):
        by_place[average.encoder, average.id_set].append(number)
    for numbers in by_place.values():
        for number, best in zip(numbers, best_of([averages[n].metrics for n in numbers]), strict=True):
            averages[number] = replace(averages[number], best=best)
    return averages


def over_seeds(rows: Sequence[ResultRow]) -> list[SeriesRow]:
    """Mean and spread wherever at least two runs differ by their seeds alone and were evaluated on the same images."""
    groups: dict[tuple, list[ResultRow]] = defaultdict(list)
    for row in rows:
        if row.run_id is not None:
            groups[row.series, row.detector, row.id_set, row.id_sha256, row.ood_set, row.ood_sha256].append(row)
    found = []
    for same in groups.values():
        if len(same) < 2:
            continue
        values = {name: [row.metrics[name].value for row in same] for name in COLUMNS}
        one = same[0]
        found.append(
            SeriesRow(
                one.method,
                one.encoder,
                one.detector,
                one.id_set,
                one.ood_set,
                one.selection,
                tuple(row.run for row in same),
                tuple(row.seed for row in same),
                {name: statistics.fmean(some) for name, some in values.items()},
                {name: statistics.stdev(some) for name, some in values.items()},
            )
        )
    return found


def sentences(rows: Sequence[ResultRow]) -> list[str]:
    """What must stand under a table of these rows, whatever its format."""
    said = []
    sizes = [size for row in rows for size in (row.id_images, row.ood_images)]
    if any(row.grade != "paper" for row in rows):
        said.append("Demo encoder, not CLIP: these numbers say nothing of the paper's.")
    if sizes and max(sizes) <= DEMO_IMAGES:
        said.append("These are demo numbers: twenty photos at most on either side, far too few to compare methods by.")
    elif sizes and min(sizes) < FEW_IMAGES:
        said.append(f"The smallest set has {min(sizes)} images: see the intervals before comparing methods by it.")
    chosen = sorted({row.run for row in rows if row.selection == SELECTIONS["test"]})
    if chosen:
        said.append(f"Chosen on the test sets, as published, and so too good: {', '.join(chosen)}.")
    partly = {row.run: row for row in rows if row.trained_classes not in (None, row.classes)}
    for name, row in sorted(partly.items()):
        said.append(f"{name} was trained on {row.trained_classes} of the {row.classes} classes evaluated.")
    unknown = sorted({row.run for row in rows if row.run_id is not None and not row.data_known})
    if unknown:
        said.append(f"What {', '.join(unknown)} was trained on is not known here: it was imported.")
    return said
