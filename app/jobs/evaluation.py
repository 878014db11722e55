"""Jobs that evaluate prompts and detectors, and that make a set to evaluate on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from db.progress import Progress
from db.workspace import Workspace

if TYPE_CHECKING:
    from ospcoop.clip.protocol import VisionLanguageModel
    from ospcoop.evaluation.sets import Readers
    from ospcoop.runs import EncoderChoice


def set_readers() -> Readers:
    """How evaluation reads pixels."""
    from generation.decode import decode_rgb
    from generation.sources import open_source
    from ospcoop.evaluation.sets import Readers

    return Readers(open_source, decode_rgb)


def evaluate(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: an EvaluationRequest's fields as ``request``, and ``device``. Only what is missing is computed."""
    from app.encoders import load_encoder
    from generation.artifacts import MODEL_CACHE
    from ospcoop.evaluation.evaluate import evaluate as evaluate_request
    from ospcoop.evaluation.request import EvaluationRequest

    def load(choice: EncoderChoice) -> VisionLanguageModel:
        cache = workspace.root / MODEL_CACHE
        return load_encoder(choice.name, choice.weights, cache_dir=cache, device=params.get("device", "auto"))

    request = EvaluationRequest.from_dict(params["request"])
    report = asdict(evaluate_request(workspace, request, load, set_readers(), progress))
    return {**report, "evaluations": list(report["evaluations"])}


def add_set(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: ``name``, ``root``, ``role`` and, for an OpenOOD list, ``imglist``. Returns what the set holds."""
    from generation.sources import ensure_class_list
    from ospcoop.evaluation.sets import register

    with workspace.write() as session:
        ensure_class_list(session)
    made = register(
        workspace,
        params["name"],
        Path(params["root"]),
        set_readers().decode,
        progress,
        role=params.get("role", "ood"),
        imglist=Path(params["imglist"]) if params.get("imglist") else None,
    )
    return {**asdict(made), "skipped_files": list(made.skipped_files)}
