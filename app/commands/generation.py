"""import, generate, classes: from photos to candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen, print_states

if TYPE_CHECKING:
    from db.workspace import Workspace
    from generation.recipe import RecipeOptions

commands = typer.Typer()


@commands.command("import")
def import_(
    root: Annotated[
        Path | None, typer.Argument(help="Folder of photos: wnid folders, or the flat ILSVRC2012_val_*.JPEG files.")
    ] = None,
    workspace: WorkspaceOption = None,
    layout: Annotated[str, typer.Option(help="imagefolder, flat or demo; guessed from the folder if not given.")] = "",
    ground_truth: Annotated[
        Path | None, typer.Option(help="For the flat layout: the file that says each photo's class.")
    ] = None,
    split: Annotated[str, typer.Option(help="val (test sets are made from it) or train (training data).")] = "val",
) -> None:
    """Take photos into the workspace: decoded, hashed, with their class. They stay where they are."""
    from app.terminal import console, plain_table, run_in_terminal

    layout = layout or _guess_layout(root, ground_truth)
    params = {
        "layout": layout,
        "root": str(root.expanduser().resolve()) if root else None,
        "ground_truth": str(ground_truth.expanduser().resolve()) if ground_truth else None,
        "split": split,
    }
    result = run_in_terminal(open_chosen(workspace, create=True), "import", params, "Import")
    skipped = result["skipped"]
    console.print(
        f"{result['found']} files: {result['added']} added, {result['already_there']} there already, "
        f"{len(skipped)} skipped."
    )
    if skipped:
        table = plain_table("skipped", "why", "details")
        for item in skipped[:50]:
            table.add_row(item["path"], item["code"].replace("_", " "), item["message"])
        console.print(table)
        if len(skipped) > 50:
            console.print(f"... and {len(skipped) - 50} more.")


def _guess_layout(root: Path | None, ground_truth: Path | None) -> str:
    if root is None:
        raise typer.BadParameter("Give the folder of photos, or `--layout demo`.", param_hint="ROOT")
    flat = ground_truth is not None or any(root.glob("ILSVRC2012_val_*.JPEG"))
    return "flat" if flat else "imagefolder"


@commands.command()
def generate(
    workspace: WorkspaceOption = None,
    masker: Annotated[str, typer.Option(help="Mask backend.")] = "embedded_cam",
    inpainter: Annotated[str, typer.Option(help="Inpainting backend.")] = "patchmatch",
    scorer: Annotated[str, typer.Option(help="Scoring backend.")] = "embedded_dual",
    resolution: Annotated[str, typer.Option(help="224 (LANCZOS squash, as published) or native.")] = "224",
    dilation: Annotated[
        int | None, typer.Option(help="Pixels. [default: 15 embedded, 12 as published otherwise]")
    ] = None,
    dilation_shape: Annotated[str | None, typer.Option(help="square or ellipse.")] = None,
    min_area: Annotated[float | None, typer.Option(help="Smallest mask, as a share of the image.")] = None,
    max_area: Annotated[float | None, typer.Option(help="Largest mask, as a share of the image.")] = None,
    second_look: Annotated[bool, typer.Option(help="Mask more where the class is still seen afterwards.")] = True,
    limit: Annotated[int | None, typer.Option(min=1, help="Do at most this many sources now.")] = None,
    classes: Annotated[str | None, typer.Option(help="Only these classes: wnids or indices, with commas.")] = None,
    redo_failed: Annotated[bool, typer.Option("--redo-failed", help="Try the failed sources again.")] = False,
    options_json: Annotated[str | None, typer.Option("--options", help="All recipe options as JSON, instead.")] = None,
) -> None:
    """Mask, inpaint and score every pending source. Resumes by itself; a new recipe starts its own set."""
    import json

    from app.terminal import console, run_in_terminal
    from generation.recipe import RecipeOptions, default_options

    opened = open_chosen(workspace)
    if options_json:
        options = RecipeOptions.from_dict(json.loads(options_json))
    else:
        chosen = {
            "resolution": resolution,
            "dilation": dilation,
            "dilation_shape": dilation_shape,
            "min_area": min_area,
            "max_area": max_area,
            "second_look": second_look,
        }
        given = {name: value for name, value in chosen.items() if value is not None}
        options = default_options(masker=masker, inpainter=inpainter, scorer=scorer, **given)
    params = generate_params(options, limit, class_indices(opened, classes), redo_failed)
    result = run_in_terminal(opened, "generate", params, "Generate")
    if result["made"] == 0:
        console.print("Nothing to do: no source is pending under this recipe.")
    print_states(opened)


def generate_params(
    options: RecipeOptions, limit: int | None = None, classes: list[int] | None = None, redo_failed: bool = False
) -> dict:
    from dataclasses import asdict

    return {"options": asdict(options), "limit": limit, "classes": classes, "redo_failed": redo_failed}


def class_indices(workspace: Workspace, classes: str | None) -> list[int] | None:
    if classes is None:
        return None
    from generation.classes import load_imagenet_classes

    known = load_imagenet_classes()
    indices = []
    for word in (part.strip() for part in classes.split(",")):
        index = known.index_of.get(word, int(word) if word.isdigit() else -1)
        if not 0 <= index < len(known):
            raise typer.BadParameter(f"{word!r} is neither a wnid nor an index from 0 to 999.", param_hint="--classes")
        indices.append(index)
    return indices


@commands.command()
def classes(
    search: Annotated[str | None, typer.Argument(help="Only classes whose wnid or name holds this.")] = None,
) -> None:
    """Print every class: index, wnid, what the detector is asked for and what CLIP is asked about."""
    from app.terminal import console, plain_table
    from generation.classes import load_imagenet_classes
    from generation.masking.groundingdino import prompt_for
    from ospcoop.clip.scores import DROP_TEMPLATE

    known = load_imagenet_classes()
    table = plain_table("index ", "wnid", "detector", "CLIP")
    for index, (wnid, name) in enumerate(zip(known.wnids, known.names, strict=True)):
        if search is None or search.lower() in f"{wnid} {name}".lower():
            table.add_row(str(index), wnid, prompt_for(name), DROP_TEMPLATE.format(name))
    console.print(table)
    console.print(f"{len(known)} classes, sha256 {known.sha256}")
