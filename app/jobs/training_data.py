"""Jobs that make training data of train sources: textures, id_augs."""

from __future__ import annotations

from dataclasses import asdict

from db.progress import Progress
from db.workspace import Workspace


def make_textures(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.pseudo_ood import texture_candidates
    from generation.pseudo_ood.texture_selection import TextureSelection

    result = texture_candidates.make_textures(
        workspace,
        texture_candidates.TextureOptions(**params["options"]),
        TextureSelection(params.get("fewshot_set"), params.get("limit"), bool(params.get("redo_failed", False))),
        recipe_prefix=params.get("recipe"),
        progress=progress,
    )
    return asdict(result)


def make_id_augs(workspace: Workspace, params: dict, progress: Progress) -> dict:
    from generation.pseudo_ood import id_aug_candidates
    from generation.pseudo_ood.id_aug_options import IdAugOptions

    result = id_aug_candidates.make_id_augs(
        workspace,
        IdAugOptions.from_dict(params["options"]),
        int(params["fewshot_set"]),
        recipe_prefix=params.get("recipe"),
        texture_prefix=params.get("texture_recipe"),
        redo_failed=bool(params.get("redo_failed", False)),
        normalise=bool(params.get("normalise", False)),
        progress=progress,
    )
    return asdict(result)
