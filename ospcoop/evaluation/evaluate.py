"""Evaluates prompts x detectors x OOD sets against one ID set, from cached features, and keeps every number.

What was computed is found again by a hash of all that decides it. Each result is committed by itself, so a killed
evaluation goes on with the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

import numpy as np
from sqlalchemy import select

from db.models import Evaluation
from db.progress import Progress
from db.workspace import Workspace
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import ClassNames, read_classes
from ospcoop.detectors import DETECTORS
from ospcoop.evaluation.bootstrap import LEVEL, bootstrap_intervals, share_interval
from ospcoop.evaluation.guard import check_run
from ospcoop.evaluation.negatives import labels_sha256
from ospcoop.evaluation.paired import analyse_pairs
from ospcoop.evaluation.prompts import Prompts, prompts_of
from ospcoop.evaluation.request import NEED_LABELS, EvaluationError, EvaluationRequest, key_of
from ospcoop.evaluation.scores_file import ImageScores, scores_path, write_scores
from ospcoop.evaluation.scoring import Classifier, Scorer, SetFeatures, build_detector
from ospcoop.evaluation.sets import ImageSet, Readers, default_ood_sets, resolve
from ospcoop.features import FeatureCache, encoder_facts
from ospcoop.runs import EncoderChoice, find_run

FORMAT = 1

LoadEncoder = Callable[[EncoderChoice], VisionLanguageModel]


@dataclass(frozen=True)
class EvaluationReport:
    """The evaluations asked for, by id in the order of prompts, detectors and sets, and how many were computed now."""

    evaluations: tuple[int, ...]
    computed: int
    reused: int


def evaluate(
    workspace: Workspace,
    request: EvaluationRequest,
    load_encoder: LoadEncoder,
    readers: Readers,
    progress: Progress,
) -> EvaluationReport:
    """Do what is missing of the request. Zero-shot prompts come first, on every encoder that a run was trained on.

    Raises :class:`~ospcoop.evaluation.request.EvaluationError`, UnknownSet, UnknownRun, the errors of
    :mod:`ospcoop.evaluation.guard`, CacheFull, whatever opening an image raises, and
    :class:`db.progress.Cancelled`; what is finished by then is kept.
    """
    progress.update(0, None, "Collecting the images")
    inside, outside = _sets(workspace, request, readers)
    with workspace.read() as session:
        runs = [find_run(session, name) for name in request.runs]
        for run in runs:
            check_run(session, run, [inside, *outside])
        classes = read_classes(session, {one.class_index for one in inside.images})
    if len(classes) < 2:
        raise EvaluationError(f"The images of {inside.name} are of one class; telling apart needs at least two.")
    by_encoder: dict[EncoderChoice, list[Prompts]] = {}
    for run in runs:
        prompts = by_encoder.setdefault(EncoderChoice(**run.config["encoder"]), [Prompts()])
        prompts.append(prompts_of(workspace, run))
    by_encoder = by_encoder or {request.encoder: [Prompts()]}
    ids: list[int] = []
    computed = 0
    for choice, prompts in by_encoder.items():
        progress.update(0, None, "Loading the encoder")
        sitting = _Sitting(workspace, request, choice, load_encoder(choice), classes, inside, outside, progress)
        found, new = sitting.evaluate(prompts)
        ids += found
        computed += new
    return EvaluationReport(tuple(ids), computed, len(ids) - computed)


def _sets(workspace: Workspace, request: EvaluationRequest, readers: Readers) -> tuple[ImageSet, list[ImageSet]]:
    with workspace.read() as session:
        names = list(dict.fromkeys(request.ood_sets or default_ood_sets(session)))
    if not names:
        raise EvaluationError(
            "There is no OOD set yet: freeze a build (`launch.py build`), or add images (`launch.py sets add`)."
        )
    inside = resolve(workspace, request.id_set, readers)
    outside = [resolve(workspace, name, readers) for name in names]
    for one, role in ((inside, "id"), *((one, "ood") for one in outside)):
        if one.role != role:
            raise EvaluationError(f"{one.name} is an {one.role.upper()} set and was given as {role.upper()} set.")
        if not one.images:
            raise EvaluationError(f"{one.name} has no images; import val photos first: `launch.py import FOLDER`.")
    return inside, outside


@dataclass(frozen=True)
class _Sitting:
    """One encoder's part: prompts by prompts, detector by detector, with an ID set's scores computed once each."""

    workspace: Workspace
    request: EvaluationRequest
    choice: EncoderChoice
    encoder: VisionLanguageModel
    classes: ClassNames
    inside: ImageSet
    outside: list[ImageSet]
    progress: Progress

    def evaluate(self, prompts: list[Prompts]) -> tuple[list[int], int]:
        """The evaluations' ids in order, and how many of them are new."""
        plan = list(product(prompts, self.request.detectors, self.outside))
        common = self._common_facts()
        facts = [self._facts(common, *one) for one in plan]
        known = [self._find(key_of(one)) for one in facts]
        ids: list[int] = []
        scorer_of = _ScorerMaker(self, local=self._needs_local(plan, known))
        for number, ((one, detector, outside), about, found) in enumerate(zip(plan, facts, known, strict=True)):
            label = self.request.detector_label(detector)
            self.progress.update(number, len(plan), f"{one.name}, {label}, {outside.name}")
            if found is None:
                scorer = scorer_of(one, detector)
                found = self._keep(one, detector, about, (scorer.scores(self.inside), scorer.scores(outside)))
            ids.append(found)
        self.progress.update(len(plan), len(plan), "evaluated")
        return ids, known.count(None)

    def _needs_local(self, plan: list[tuple], known: list[int | None]) -> bool:
        missing = {detector for (_, detector, _), found in zip(plan, known, strict=True) if found is None}
        return any(DETECTORS[name].needs_local for name in missing)

    def _common_facts(self) -> dict:
        request = self.request
        return {
            "format": FORMAT,
            "encoder": encoder_facts(self.encoder),
            "feature_storage": request.feature_storage,
            "id_set": _about(self.inside),
            "bootstrap": {"seed": request.seed, "resamples": request.resamples, "level": LEVEL},
            "class_list_sha256": self.classes.sha256,
            "classes": len(self.classes),
        }

    def _facts(self, common: dict, prompts: Prompts, detector: str, outside: ImageSet) -> dict:
        """All that decides the numbers: the evaluation's key is their hash."""
        about = {"name": detector, "options": self.request.detector_options(detector)}
        if detector in NEED_LABELS:
            about["labels_sha256"] = labels_sha256(Path(self.request.labels))
        prompt = {"run": None if prompts.run is None else prompts.run.id, **prompts.facts(self.classes)}
        return {**common, "prompts": prompt, "detector": about, "ood_set": _about(outside)}

    def _find(self, key: str) -> int | None:
        """An evaluation whose file is there."""
        with self.workspace.read() as session:
            row = session.scalar(select(Evaluation).where(Evaluation.key == key))
        return row.id if row is not None and self.workspace.path(row.scores).is_file() else None

    def _keep(self, prompts: Prompts, detector: str, facts: dict, sides: tuple[ImageScores, ImageScores]) -> int:
        key = key_of(facts)
        metrics = self._metrics(*sides)
        write_scores(self.workspace.path(scores_path(key)), sides, {"key": key})
        with self.workspace.write() as session:
            row = session.scalar(select(Evaluation).where(Evaluation.key == key))
            if row is None:
                row = Evaluation(
                    key=key,
                    run_id=None if prompts.run is None else prompts.run.id,
                    detector=self.request.detector_label(detector),
                    encoder=self.choice.name,
                    id_set=self.inside.name,
                    ood_set=facts["ood_set"]["name"],
                    facts=facts,
                    scores=scores_path(key),
                )
                session.add(row)
            row.metrics = metrics
            session.flush()
            return row.id

    def _metrics(self, inside: ImageScores, outside: ImageScores) -> dict:
        options = {"resamples": self.request.resamples, "seed": self.request.seed}
        intervals = bootstrap_intervals(inside.score, outside.score, **options)
        correct = int(np.sum(inside.predicted == _classes_of(inside.images)))
        intervals["id_accuracy"] = share_interval(correct, len(inside.predicted), **options)
        metrics: dict = {name: asdict(interval) for name, interval in intervals.items()}
        if outside.photo_score is not None:
            kept = outside.predicted == _classes_of(outside.images)
            sources = [one.source_id for one in outside.images.images]
            metrics["paired"] = analyse_pairs(outside.score, outside.photo_score, kept, sources, **options).as_dict()
        return metrics


def _about(one: ImageSet) -> dict:
    return {"name": one.name, "group": one.group, "images": len(one.images), "sha256": one.sha256}


def _classes_of(images: ImageSet) -> np.ndarray:
    return np.array([-1 if one.class_index is None else one.class_index for one in images.images])


class _ScorerMaker:
    """Scorers and what they stand on; the last are kept, for all sets go through one before the next is made."""

    def __init__(self, sitting: _Sitting, *, local: bool) -> None:
        self._sitting = sitting
        cache = FeatureCache(sitting.workspace.root, sitting.encoder, storage=sitting.request.feature_storage)
        self._features = SetFeatures(cache, local, sitting.progress)
        self._prompts: Prompts | None = None
        self._scorers: dict[str, Scorer] = {}

    def __call__(self, prompts: Prompts, detector: str) -> Scorer:
        sitting = self._sitting
        if self._prompts is not prompts:
            self._text = prompts.text_features(sitting.encoder, sitting.classes)
            self._classifier = Classifier(self._features, self._text, sitting.encoder.logit_scale, sitting.classes)
            self._prompts, self._scorers = prompts, {}
        if detector not in self._scorers:
            built = build_detector(detector, sitting.request, sitting.encoder, sitting.classes, self._text)
            self._scorers = {detector: Scorer(self._features, built, self._classifier, self._text.device)}
        return self._scorers[detector]
