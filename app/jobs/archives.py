"""Jobs that write archives."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from db.progress import Progress
from db.workspace import Workspace


def export_archive(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from app.build_facts import audit_facts
    from exports.builds import find_build
    from exports.options import ExportOptions
    from exports.registry import export_build

    with workspace.read() as session:
        audit = audit_facts(session, find_build(session, params["build"]))
    options = ExportOptions.from_dict({**params.get("options", {}), "audit": audit})
    result = export_build(workspace, params["build"], params["format"], Path(params["out"]), progress, options)
    return {"path": str(result.path), "sha256": result.sha256, "images": result.images, "bytes": result.bytes}


def check_written_archive(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: path, and export, the job that wrote it. The result is ok and what was found, check by check."""
    from exports.checking import check_archive

    report = check_archive(params["path"], workspace, progress)
    return {"ok": report.ok, "findings": [asdict(finding) for finding in report.findings]}


def import_archive(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: path, masks (a COCO archive or None), scorer (for images without scores), activate."""
    from exports.incoming import open_incoming
    from generation.artifacts import MODEL_CACHE
    from generation.imported import import_candidates
    from generation.pseudo_ood.models import load_scorer
    from generation.registry import find_backend

    find_backend("scorer", params["scorer"])
    masks = Path(params["masks"]) if params.get("masks") else None
    with open_incoming(Path(params["path"]), masks, progress) as archive:
        made = import_candidates(
            workspace,
            archive,
            lambda: load_scorer(params["scorer"], workspace.root / MODEL_CACHE),
            activate=bool(params.get("activate", True)),
            progress=progress,
        )
    return {**asdict(made), "unmatched": [one._asdict() for one in made.unmatched]}
