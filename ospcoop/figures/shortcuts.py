"""The shortcut map of a candidate of the workspace: cached features, the prompts of runs beside zero-shot ones."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from db.models import Candidate, ImageClass, SourceImage
from db.progress import Progress
from db.workspace import Workspace
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.clip.scores import DROP_TEMPLATE
from ospcoop.data import ClassNames, read_classes
from ospcoop.evaluation.prompts import Prompts, prompts_of
from ospcoop.features import FeatureCache
from ospcoop.figures.request import PREDICTED, SOURCE, ShortcutError, ShortcutRequest, chosen_runs
from ospcoop.figures.shortcut_map import ShortcutMap, shortcut_map
from ospcoop.figures.stored import id_classes
from ospcoop.images import SIDE, SQUASHED, ImageRef, read_result


def map_candidate(
    workspace: Workspace, encoder: VisionLanguageModel, request: ShortcutRequest, progress: Progress
) -> dict:
    """The map as JSON: :meth:`ShortcutMap.as_dict` with the candidate, the encoder and the classes' number.

    Features are computed once and cached. Raises :class:`~ospcoop.figures.request.ShortcutError`, UnknownRun,
    UnknownEvaluation, ScoresMissing, EvaluationError, CheckpointError, and ValueError where ``encoder`` is not the one
    that the runs were trained on.
    """
    prompts = [Prompts(), *(prompts_of(workspace, run) for run in chosen_runs(workspace, request))]
    with workspace.read() as session:
        candidate = session.get(Candidate, request.candidate)
        if candidate is None:
            raise ShortcutError(f"There is no candidate {request.candidate}.")
        source = session.get_one(SourceImage, candidate.source_id)
        own = session.get_one(ImageClass, source.class_index)
    classes = _classes(workspace, request, prompts)
    shown = own.wnid if request.shown == SOURCE else request.shown
    label = None if shown == PREDICTED else _label_of(classes, shown)
    progress.update(0, len(prompts) + 1, "Computing image features")
    path = workspace.path(f"{candidate.folder}/result.png")
    variant = "" if (candidate.width, candidate.height) == (SIDE, SIDE) else SQUASHED
    image = ImageRef(candidate.result_sha256, lambda: read_result(path), variant)
    features = FeatureCache(workspace.root, encoder).ensure([image]).take([0])
    made = shortcut_map(
        features.whole[0],
        features.local[0],
        _texts(encoder, classes, prompts, progress),
        classes.names,
        encoder.logit_scale,
        encoder.local_grid,
        label=label,
        top=request.top,
    )
    return _told(made, candidate, own, encoder, classes)


def _texts(
    encoder: VisionLanguageModel, classes: ClassNames, prompts: Sequence[Prompts], progress: Progress
) -> dict[str, Tensor]:
    texts = {}
    for number, one in enumerate(prompts):
        progress.update(number + 1, len(prompts) + 1, f"Computing the text features of {one.name}")
        texts[one.name] = one.text_features(encoder, classes).float().cpu()
    return texts


def _classes(workspace: Workspace, request: ShortcutRequest, prompts: Sequence[Prompts]) -> ClassNames:
    """Evidence is a probability over classes, so they are the same for all panels."""
    lists = {one.trained.classes.sha256: one.trained.classes for one in prompts if one.trained is not None}
    indices = None
    if request.evaluation is not None:
        indices = id_classes(workspace, request.evaluation)
    elif len(lists) == 1:
        return next(iter(lists.values()))
    with workspace.read() as session:
        return read_classes(session, indices)


def _label_of(classes: ClassNames, wnid: str) -> int:
    try:
        return classes.wnids.index(wnid)
    except ValueError:
        raise ShortcutError(
            f"Class {wnid} is not among the {len(classes)} that have prompts here; show the predicted class."
        ) from None


def _told(
    made: ShortcutMap, candidate: Candidate, own: ImageClass, encoder: VisionLanguageModel, classes: ClassNames
) -> dict:
    return {
        **made.as_dict(),
        "candidate": candidate.id,
        "result_sha256": candidate.result_sha256,
        "source_class": own.name,
        "wnid": classes.wnids[made.label],
        "classes": len(classes),
        "encoder": encoder.name,
        "grade": encoder.grade,
        "zero_shot_prompt": DROP_TEMPLATE,
    }
