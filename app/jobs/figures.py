"""The job that makes a shortcut map."""

from __future__ import annotations

from db.progress import Progress
from db.workspace import Workspace


def shortcut_map(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: an :class:`ospcoop.figures.request.ShortcutRequest` as JSON, and ``device``; the map as JSON."""
    from app.encoders import load_encoder
    from generation.artifacts import MODEL_CACHE
    from ospcoop.figures.request import ShortcutRequest, chosen_runs
    from ospcoop.figures.shortcuts import map_candidate

    device = params.get("device", "auto")
    request = ShortcutRequest.from_dict({name: value for name, value in params.items() if name != "device"})
    runs = chosen_runs(workspace, request)
    choice = runs[0].config["encoder"] if runs else {"name": request.encoder, "weights": None}
    progress.update(0, None, "Loading the encoder")
    encoder = load_encoder(choice["name"], choice["weights"], cache_dir=workspace.root / MODEL_CACHE, device=device)
    return map_candidate(workspace, encoder, request, progress)
