"""What each kind of job does. One function a kind, one line in :data:`JOB_KINDS`.

A handler gets the open workspace, the job's params (JSON) and a progress to tell and to be cancelled
by; it returns the JSON that is kept as the job's result. Run twice, it does only what is missing.
Models and exporters are imported inside, so the page that lists the kinds stays light.
"""

from __future__ import annotations

from collections.abc import Callable

from app.jobs import archives, evaluation, figures, generation, masks, review, training, training_data
from db.progress import Progress
from db.workspace import Workspace

Handler = Callable[[Workspace, dict, Progress], dict]


class UnknownJobKind(LookupError):
    """The job was written by another version of this code."""


JOB_KINDS: dict[str, Handler] = {
    "import": generation.import_photos,
    "generate": generation.generate_candidates,
    "preview": generation.preview_source,
    "correct_mask": masks.correct_candidate,
    "sam_click": masks.answer_clicks,
    "export": archives.export_archive,
    "check": archives.check_written_archive,
    "import_archive": archives.import_archive,
    "texture": training_data.make_textures,
    "id_aug": training_data.make_id_augs,
    "train": training.train,
    "evaluate": evaluation.evaluate,
    "evaluation_set": evaluation.add_set,
    "shortcut_map": figures.shortcut_map,
    "triage": review.train_triage,
    "duplicates": review.find_duplicates,
}


def find_handler(kind: str) -> Handler:
    """The handler of that kind, or :class:`UnknownJobKind`."""
    try:
        return JOB_KINDS[kind]
    except KeyError:
        raise UnknownJobKind(f"This version does not know jobs of kind {kind!r}; update the code.") from None
