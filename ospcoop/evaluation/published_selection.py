"""The published model selection: after every epoch the OOD *test* sets are scored, and the best epoch is kept.

A result so chosen is too good, because the test took part in the choice; every table says so of such a run.
"""

from __future__ import annotations

import statistics

import numpy as np
from sqlalchemy import select
from torch import Tensor

from db.models import ImageClass, Run
from db.progress import Progress
from db.workspace import Workspace
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.detectors.base import Resources
from ospcoop.detectors.mcm import GlMcm
from ospcoop.evaluation.guard import check_run
from ospcoop.evaluation.request import VAL, EvaluationError
from ospcoop.evaluation.scoring import score_features
from ospcoop.evaluation.sets import Readers, available_sets, default_ood_sets, resolve
from ospcoop.features import FeatureCache
from ospcoop.metrics import auroc


class OnTestSets:
    """GL-MCM's AUROC of the val photos against each OOD set, as :class:`ospcoop.validation.EpochMetrics`.

    The classic sets are averaged where there is one, else all sets. Only val photos of the run's classes count.
    Raises :class:`EvaluationError` where a side is missing, and the errors of :mod:`ospcoop.evaluation.guard`.
    """

    best = "test_auroc"

    def __init__(
        self, workspace: Workspace, run: Run, encoder: VisionLanguageModel, readers: Readers, progress: Progress
    ) -> None:
        self._scale = encoder.logit_scale
        with workspace.read() as session:
            classic = {one.name for one in available_sets(session) if one.group == "classic"}
            names = [name for name in default_ood_sets(session) if not classic or name in classic]
            wnids = list(run.data["by_class"])
            indices = set(session.scalars(select(ImageClass.class_index).where(ImageClass.wnid.in_(wnids))))
        if not names:
            raise EvaluationError(
                "Choosing the epoch on the test sets needs one: freeze a build or `launch.py sets add`; or choose the "
                "last epoch (leave --as-published out)."
            )
        sets = {name: resolve(workspace, name, readers) for name in (VAL, *names)}
        with workspace.read() as session:
            check_run(session, run, sets.values())
        cache = FeatureCache(workspace.root, encoder, storage=run.config["options"]["feature_storage"])
        self._features = {}
        for name, one in sets.items():
            images = [image.image for image in one.images if name != VAL or image.class_index in indices]
            if not images:
                raise EvaluationError(f"{name} has no image of the classes that {run.name} is trained on.")
            self._features[name] = cache.ensure(images, progress=progress)

    def __call__(self, text: Tensor) -> dict[str, float]:
        """See :class:`ospcoop.validation.EpochMetrics`."""
        detector = GlMcm(Resources(text, logit_scale=self._scale))
        scores: dict[str, np.ndarray] = {
            name: score_features(detector, features, text.device) for name, features in self._features.items()
        }
        inside = scores.pop(VAL)
        found = {f"auroc {name}": auroc(inside, outside) for name, outside in scores.items()}
        return {**found, self.best: statistics.fmean(found.values())}
