"""Jobs that write archives."""

from __future__ import annotations

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
