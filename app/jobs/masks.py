"""Jobs of the mask editor: a candidate made again with a corrected mask, and SAM's answer to clicks."""

from __future__ import annotations

from functools import lru_cache

from app.jobs.generation import load_models
from db.models import Candidate
from db.progress import Progress
from db.workspace import Workspace

CORRECTIONS = "cache/corrections"


def correct_candidate(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: candidate_id, mask (a PNG in the workspace), corrected_by. The new version's id and number."""
    from generation.artifacts import decode_png
    from generation.correction import correct_mask, recipe_options

    candidate_id = int(params["candidate_id"])
    backends = load_models(workspace, recipe_options(workspace, candidate_id), progress)
    progress.update(0, 1, "Making the image again")
    path = workspace.path(params["mask"])
    mask = decode_png(path.read_bytes())
    made = correct_mask(workspace, candidate_id, mask, backends, corrected_by=params["corrected_by"])
    path.unlink(missing_ok=True)
    progress.update(1, 1, "Made again")
    return {"candidate_id": made.candidate_id, "version": made.version, "parent_id": made.parent_id}


@lru_cache(maxsize=1)
def _sam_click():
    """One SAM a worker process, its embeddings kept from click to click."""
    from generation.masking.sam_click import SamClick

    return SamClick()


def answer_clicks(workspace: Workspace, params: dict, progress: Progress) -> dict:
    """``params``: candidate_id, clicks (``[x, y, on]`` in pixels of the working image). The mask's path and quality."""
    from db.files import atomic_write
    from generation.artifacts import decode_png, encode_png, pixels_sha256
    from generation.masking.sam_click import Click

    progress.update(0, 1, "Loading Segment Anything")
    with workspace.read() as session:
        folder = session.get_one(Candidate, int(params["candidate_id"])).folder
    image = decode_png((workspace.path(folder) / "raw.png").read_bytes())
    clicks = [Click(float(x), float(y), bool(on)) for x, y, on in params["clicks"]]
    answer = _sam_click().segment(image, clicks=clicks)
    path = f"{CORRECTIONS}/sam-{pixels_sha256(answer.mask)[:32]}.png"
    atomic_write(workspace.path(path), encode_png(answer.mask))
    progress.update(1, 1, "")
    return {"mask": path, "quality": answer.quality}
