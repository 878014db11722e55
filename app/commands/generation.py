"""import, generate, classes: from photos to candidates."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen, print_states
from app.generate_job import generate_params, run_facts

if TYPE_CHECKING:
    from db.workspace import Workspace

commands = typer.Typer()

WHICH = "Which sources"
HOW = "How it runs"


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
    options_json: Annotated[str | None, typer.Option("--options", help="All recipe options as JSON, instead.")] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Do at most this many sources now.", rich_help_panel=WHICH)
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these classes: wnids or indices, with commas.", rich_help_panel=WHICH)
    ] = None,
    split: Annotated[str | None, typer.Option(help="Only val or only train sources.", rich_help_panel=WHICH)] = None,
    fewshot_set: Annotated[
        int | None,
        typer.Option("--fewshot-set", "--fewshot", help="Only the few-shot set of this number.", rich_help_panel=WHICH),
    ] = None,
    only_missing: Annotated[
        bool,
        typer.Option("--only-missing", help="Only sources that no recipe made a candidate of.", rich_help_panel=WHICH),
    ] = False,
    redo_failed: Annotated[
        bool, typer.Option("--redo-failed", help="Try the failed sources again.", rich_help_panel=WHICH)
    ] = False,
    low_memory: Annotated[
        bool,
        typer.Option(
            "--low-memory",
            help="In passes, with only the models of one in memory: for cards of 12 GB. Same result.",
            rich_help_panel=HOW,
        ),
    ] = False,
    batch: Annotated[
        str,
        typer.Option(
            help="Images at once: auto (tried out on a GPU, and remembered) or a number for every model.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    compile_: Annotated[
        bool,
        typer.Option(
            "--compile", help="SAM's and CLIP's image towers through torch.compile. Slow start.", rich_help_panel=HOW
        ),
    ] = False,
) -> None:
    """Mask, inpaint and score every pending source. Resumes by itself; a new recipe starts its own set.

    "Which sources" and "How it runs" are no part of the recipe: the same candidates come out. See docs/generation.md.
    """
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
    params = generate_params(
        options,
        limit,
        class_indices(classes),
        redo_failed,
        only_missing=only_missing,
        split=split,
        fewshot_set=fewshot_set,
        low_memory=low_memory,
        batch=int(batch) if batch.isdecimal() else batch,
        compiled=compile_,
    )
    _check(opened, params)
    result = run_in_terminal(opened, "generate", params, "Generate")
    if result["made"] == 0:
        console.print("Nothing to do: no such source is pending under this recipe.")
    else:
        console.print("\n".join(f"{name}: {value}" for name, value in run_facts(result)), markup=False)
    print_states(opened)


def class_indices(classes: str | None) -> list[int] | None:
    from generation.classes import UnknownClass, find_classes

    try:
        return None if classes is None else find_classes(classes)
    except UnknownClass as error:
        raise typer.BadParameter(str(error), param_hint="--classes") from error


def _check(workspace: Workspace, params: dict) -> None:
    """Refuse what the job would, before it is one."""
    from app.jobs.generation import selection_of, settings_of
    from db.training_guard import fewshot_set
    from generation.passes import SettingsError
    from generation.selection import SelectionError

    try:
        selection = selection_of(params)
        settings_of(params)
    except SettingsError as error:
        raise typer.BadParameter(str(error), param_hint="--batch") from error
    except SelectionError as error:
        raise typer.BadParameter(str(error), param_hint="--split") from error
    except ValueError:
        raise typer.BadParameter(f"{params['split']!r} is neither val nor train.", param_hint="--split") from None
    if selection.fewshot_set is not None:
        with workspace.read() as session:
            fewshot_set(session, selection.fewshot_set)


@commands.command()
def classes(
    search: Annotated[str | None, typer.Argument(help="Only classes whose wnid or name holds this.")] = None,
) -> None:
    """Print every class: index, wnid, what the detector is asked for and what CLIP is asked about."""
    from app.terminal import console, plain_table
    from generation.classes import load_imagenet_classes
    from generation.masking.prompts import prompt_for
    from ospcoop.clip.scores import DROP_TEMPLATE

    known = load_imagenet_classes()
    table = plain_table("index ", "wnid", "detector", "CLIP")
    for index, (wnid, name) in enumerate(zip(known.wnids, known.names, strict=True)):
        if search is None or search.lower() in f"{wnid} {name}".lower():
            table.add_row(str(index), wnid, prompt_for(name), DROP_TEMPLATE.format(name))
    console.print(table)
    console.print(f"{len(known)} classes, sha256 {known.sha256}")
