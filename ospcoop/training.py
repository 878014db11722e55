"""Trains a planned run to its end: data, features, epochs, a checkpoint each, the chosen one.

A killed or cancelled run goes on behind its last whole checkpoint with the same random draws, so it ends at the
same context vectors, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import torch

from db.jobs import LeaseLost
from db.models import Run
from db.progress import Cancelled, Progress
from db.workspace import Workspace
from ospcoop import runs
from ospcoop.batches import TrainingBatches
from ospcoop.checkpoints import newest_checkpoint, read_facts, write_checkpoint
from ospcoop.clip.protocol import VisionLanguageModel
from ospcoop.data import OpenPhoto
from ospcoop.features import FeatureCache, encoder_facts
from ospcoop.objectives import OBJECTIVES
from ospcoop.options import TrainingOptions
from ospcoop.runs import DataChoice, RunError
from ospcoop.trainer import EpochReport, OnStep, PromptTrainer
from ospcoop.validation import EpochMetrics, HeldOut

# What a training can fail with; anything else is a bug and leaves the run as it is.
_FAILURES = (ArithmeticError, LookupError, OSError, RuntimeError, ValueError)


@dataclass(frozen=True)
class TrainingResult:
    """A finished run: its epochs, which of them (from 0) was chosen, and that one's metrics and context."""

    run: str
    epochs: int
    chosen_epoch: int
    metrics: dict[str, float]
    context_sha256: str


def train_run(
    workspace: Workspace,
    run_id: int,
    encoder: VisionLanguageModel,
    open_photo: OpenPhoto,
    progress: Progress,
    *,
    epoch_metrics: EpochMetrics | None = None,
) -> TrainingResult:
    """Train run ``run_id``, from its start or from where it was stopped, and record every epoch.

    ``epoch_metrics`` is asked after each epoch, and chooses the epoch by its ``best``; without it the options'
    ``selection`` decides. Raises :class:`ospcoop.runs.RunError` where data or weights are not those it began
    with, :class:`db.progress.Cancelled`, and whatever stops it, after recording that in the run.
    """
    run = runs.begin(workspace, run_id, encoder_facts(encoder))
    try:
        session = _Session(workspace, run, encoder, open_photo, progress, epoch_metrics)
        result = session.train()
    except Cancelled:
        runs.end(workspace, run_id, runs.CANCELLED)
        raise
    except LeaseLost:
        raise  # another worker trains it now
    except _FAILURES as error:
        runs.end(workspace, run_id, runs.FAILED, error=str(error))
        raise
    runs.end(workspace, run_id, runs.DONE, chosen_epoch=result.chosen_epoch)
    return result


class _Session:
    """One sitting of a run: everything loaded, then epoch after epoch."""

    def __init__(
        self,
        workspace: Workspace,
        run: Run,
        encoder: VisionLanguageModel,
        open_photo: OpenPhoto,
        progress: Progress,
        epoch_metrics: EpochMetrics | None,
    ) -> None:
        self._workspace, self._run, self._progress = workspace, run, progress
        self._options = options = TrainingOptions.from_dict(run.config["options"])
        self._folder: Path = workspace.path(run.folder)
        progress.update(0, None, "Collecting the training data")
        self._data = runs.read_training_set(workspace, DataChoice(**run.config["choice"]), options, open_photo)
        if self._data.sha256 != run.data["sha256"]:
            raise RunError(f"The training data of run {run.name} have changed since it began; start a new run.")
        self._trainer = PromptTrainer(encoder, self._data.classes.names, options)
        cache = FeatureCache(workspace.root, encoder, storage=options.feature_storage)
        local = OBJECTIVES[options.objective].needs_local
        self._batches = TrainingBatches(self._data, encoder, cache, options, progress, local=local)
        if epoch_metrics is None and options.selection == "held_out":
            epoch_metrics = HeldOut(self._data, encoder, cache, progress)
        if epoch_metrics is None and options.selection == "test":
            raise RunError(f"Run {run.name} chooses its epoch on the test sets; train it by its job, which opens them.")
        self._epoch_metrics = epoch_metrics

    def train(self) -> TrainingResult:
        first = self._resume()
        for epoch in range(first, self._options.epochs):
            batches = self._batches.epoch(self._trainer.generator)
            report = self._trainer.run_epoch(epoch, batches, self._tell(epoch))
            self._keep(report)
        best = None if self._epoch_metrics is None else self._epoch_metrics.best
        chosen = choose_epoch(self._folder, range(self._options.epochs), best)
        facts = read_facts(self._folder, chosen)
        return TrainingResult(self._run.name, self._options.epochs, chosen, facts["metrics"], facts["context_sha256"])

    def _resume(self) -> int:
        """The epoch to begin with; the state is then that of the checkpoint before it."""
        found = newest_checkpoint(self._folder)
        if found is None:
            return 0
        if found.facts["config_hash"] != self._run.config_hash:
            raise RunError(f"{self._folder} holds another run's checkpoints; move them away.")
        if found.facts["code_sha256"] != code_sha256():
            self._progress.log("The code has changed since this run began; the last digits may differ.")
        self._trainer.load_state(found.tensors)
        facts = found.facts
        runs.record_epoch(self._workspace, self._run.id, found.epoch, facts["lr"], facts["seconds"], facts["metrics"])
        self._progress.log(f"Going on with {self._run.name} after epoch {found.epoch + 1}.")
        return found.epoch + 1

    def _tell(self, epoch: int) -> OnStep:
        steps, epochs, started = self._batches.steps, self._options.epochs, time.perf_counter()

        def tell(step: int, images: int, losses: dict[str, float]) -> None:
            rate = images / (time.perf_counter() - started)
            words = f"epoch {epoch + 1}/{epochs}, loss {losses['loss']:.4f}, {rate:.0f} images/s"
            self._progress.update(epoch * steps + step + 1, epochs * steps, words)

        return tell

    def _keep(self, report: EpochReport) -> None:
        metrics = {**report.losses, "images_per_s": report.images / report.seconds}
        if self._epoch_metrics is not None:
            with torch.no_grad():
                metrics |= self._epoch_metrics(self._trainer.text_features())
        tensors = self._trainer.state()
        facts = {
            "run": self._run.name,
            "objective": self._options.objective,
            "config": self._run.config,
            "config_hash": self._run.config_hash,
            "classes": self._data.classes.facts(),
            "data_sha256": self._data.sha256,
            "code_sha256": code_sha256(),
            "torch": torch.__version__,
            "machine": f"{platform.machine()} {self._trainer.device.type}",
            "context_sha256": hashlib.sha256(tensors["context"].numpy().tobytes()).hexdigest(),
            "lr": report.lr,
            "seconds": report.seconds,
            "metrics": metrics,
        }
        write_checkpoint(self._folder, report.epoch, tensors, facts)
        runs.record_epoch(self._workspace, self._run.id, report.epoch, report.lr, report.seconds, metrics)
        parts = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        self._progress.log(f"epoch {report.epoch + 1}: lr {report.lr:.3g}, {parts}")


def choose_epoch(folder: Path, epochs: Iterable[int], best: str | None) -> int:
    """The last epoch, or the first of those whose metric ``best`` is highest."""
    epochs = list(epochs)
    if best is None:
        return epochs[-1]
    return max(epochs, key=lambda epoch: (read_facts(folder, epoch)["metrics"][best], -epoch))


@lru_cache(maxsize=1)
def code_sha256() -> str:
    """Of this package's sources: which version of the method made a number."""
    folder = Path(__file__).parent
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*.py")):
        digest.update(f"{path.relative_to(folder)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()
