"""The job that trains a planned run."""

from __future__ import annotations

from dataclasses import asdict

from db.progress import Progress
from db.workspace import Workspace


def train(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: ``run``, the planned run's id, and ``device``. Goes on where the run was stopped."""
    from app.encoders import load_encoder
    from app.jobs.evaluation import set_readers
    from db.models import Run
    from generation.artifacts import MODEL_CACHE
    from generation.sources import open_source
    from ospcoop.evaluation.published_selection import OnTestSets
    from ospcoop.evaluation.request import EvaluationError
    from ospcoop.runs import FAILED, RunError, end
    from ospcoop.training import train_run

    with workspace.read() as session:
        run = session.get(Run, int(params["run"]))
    if run is None:
        raise RunError(f"There is no run {params['run']}.")
    progress.update(0, None, "Loading the encoder")
    choice = run.config["encoder"]
    encoder = load_encoder(
        choice["name"],
        choice["weights"],
        cache_dir=workspace.root / MODEL_CACHE,
        device=params.get("device", "auto"),
    )
    chosen_by = None
    if run.config["options"]["selection"] == "test":
        try:
            chosen_by = OnTestSets(workspace, run, encoder, set_readers(), progress)
        except EvaluationError as error:
            end(workspace, run.id, FAILED, error=str(error))
            raise
    return asdict(train_run(workspace, run.id, encoder, open_source, progress, epoch_metrics=chosen_by))
