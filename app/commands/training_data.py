"""fewshot, texture, id-aug: from train photos to what OSPCoOp is trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

if TYPE_CHECKING:
    from db.workspace import Workspace
    from generation.fewshot import FewShotResult
    from generation.pseudo_ood.id_aug_options import OptionPlan

commands = typer.Typer()

NAMES_SHOWN = 10

SeedOption = Annotated[int, typer.Option(min=0, help="Every random draw comes from it.")]
SetOption = Annotated[int | None, typer.Option("--fewshot-set", help="The set's number. Default: the newest.")]
RecipeOption = Annotated[
    str | None,
    typer.Option(help="First digits of the background recipe whose masks are used. Default: the active one."),
]
RedoOption = Annotated[bool, typer.Option("--redo-failed", help="Try what failed again.")]


@commands.command()
def fewshot(
    workspace: WorkspaceOption = None,
    shots: Annotated[int, typer.Option(help="Photos a class: 1, 2, 4, 8 or 16.")] = 16,
    seed: SeedOption = 1,
    show_all: Annotated[bool, typer.Option("--list", help="Only list the recorded sets.")] = False,
    show: Annotated[int | None, typer.Option(help="Only tell all about the set of this number.")] = None,
) -> None:
    """Sample a few-shot set of the train photos and record it.

    Import train photos first (`launch.py import FOLDER --split train`).
    Afterwards come `generate`, `texture`, `id-aug` and `train`.

    The same photos, shots and seed give the same set, in whatever order
    they were imported, and the 1-shot set of a seed lies inside its 2-shot
    set, and so on. A class with fewer photos gives all it has, and is named.
    Photos of the val split are never taken.
    """
    from app.terminal import console
    from db.training_guard import fewshot_set
    from generation.fewshot import result_of, sample_fewshot

    opened = open_chosen(workspace)
    if show_all:
        _print_sets(opened)
        return
    if show is not None:
        with opened.read() as session:
            recorded = result_of(fewshot_set(session, show))
        _print_set(opened, recorded, every_name=True)
        return
    result = sample_fewshot(opened, shots, seed)
    _print_set(opened, result)
    if not result.is_new:
        console.print("The same set was recorded before; nothing is new.")


def _print_sets(workspace: Workspace) -> None:
    from sqlalchemy import select

    from app.terminal import console, plain_table
    from db.models import FewShotSet

    table = plain_table("set ", "shots ", "seed ", "photos ", "classes ", "content hash", "sampled")
    with workspace.read() as session:
        for one in session.scalars(select(FewShotSet).order_by(FewShotSet.id)):
            counts = (str(one.summary["sources"]), str(one.summary["classes"]))
            when = f"{one.created_at:%Y-%m-%d %H:%M} UTC"
            table.add_row(str(one.id), str(one.shots), str(one.seed), *counts, one.content_hash[:16], when)
    console.print(table)


def _print_set(workspace: Workspace, result: FewShotResult, *, every_name: bool = False) -> None:
    from sqlalchemy import select

    from app.terminal import console
    from db.models import ImageClass

    with workspace.read() as session:
        class_of = {one.wnid: f"{one.wnid} {one.name}" for one in session.scalars(select(ImageClass))}

    def say(sentence: str) -> None:
        console.print(sentence, soft_wrap=True)

    def named(names: list[str]) -> str:
        shown = names if every_name else names[:NAMES_SHOWN]
        more = len(names) - len(shown)
        rest = f" and {more} more (`launch.py fewshot --show {result.set_id}` names them)" if more else ""
        return ", ".join(shown) + rest

    say(f"Few-shot set {result.set_id}: {result.shots} shots, seed {result.seed}.")
    say(f"{result.sources} photos of {result.classes} classes. Content hash {result.content_hash}")
    if result.short:
        fewer = [f"{class_of[wnid]} ({count})" for wnid, count in result.short.items()]
        say(f"{len(fewer)} classes have fewer than {result.shots}: {named(fewer)}.")
    if result.missing:
        say(f"{len(result.missing)} classes have no train photo: {named([class_of[one] for one in result.missing])}.")
    if result.also_val:
        also_val = named(list(result.also_val))
        say(f"{len(result.also_val)} train photos are also val photos and were passed over: {also_val}.")
    if result.duplicates:
        say(f"{result.duplicates} train photos are copies of others of their class and were passed over.")


@commands.command()
def texture(
    workspace: WorkspaceOption = None,
    fewshot_set: SetOption = None,
    all_train: Annotated[bool, typer.Option("--all-train", help="All train photos instead of a few-shot set.")] = False,
    recipe: RecipeOption = None,
    seed: SeedOption = 1,
    copies: Annotated[int, typer.Option(min=1, help="Images a photo, each from another cell.")] = 1,
    split_drop: Annotated[
        float | None,
        typer.Option(help="Sort into top (drop above this) and low; training takes the top. Default: no sorting."),
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Do at most this many photos now.")] = None,
    redo_failed: RedoOption = False,
) -> None:
    """Keep one 32x32 cell of the object and paint the rest of the photo anew from it.

    Textures are pseudo-OOD for training: the object's surface without its
    shape. Needs the train photos' background candidates (`generate`): their
    masks say where the object is, and their inpainter and scorer are used.
    A photo without a cell wholly on its object gives none.

    Can be stopped and run again; only what is missing is made. A photo whose
    mask was corrected since gets a further version.
    """
    from app.terminal import console, run_in_terminal

    opened = open_chosen(workspace)
    params = {
        "fewshot_set": None if all_train else _chosen_set(opened, fewshot_set),
        "recipe": recipe,
        "options": {"seed": seed, "copies": copies, "split_drop": split_drop},
        "limit": limit,
        "redo_failed": redo_failed,
    }
    result = run_in_terminal(opened, "texture", params, "Textures")
    if result["made"] == 0:
        console.print("Nothing to do: every photo with a background candidate has its textures.")
    low = f", {result['low']} of them low" if split_drop is not None else ""
    console.print(f"Recipe {result['recipe_hash'][:12]}: {result['textures']} textures{low}.")
    console.print(
        f"Of {result['sources']} photos {result['without_cell']} have no cell wholly on the object, "
        f"{result['without_background']} no background candidate, {result['failed']} failed, "
        f"{result['pending']} are still to do.",
        soft_wrap=True,
    )


@commands.command("id-aug")
def id_aug(
    workspace: WorkspaceOption = None,
    fewshot_set: SetOption = None,
    recipe: RecipeOption = None,
    texture_recipe: Annotated[
        str | None, typer.Option(help="First digits of the texture recipe for option 2. Default: the newest.")
    ] = None,
    seed: SeedOption = 1,
    options: Annotated[str, typer.Option(help="1 background, 2 texture, 3 noise; with commas.")] = "1,2,3",
    rates: Annotated[str, typer.Option(help="For each option, the share of the photos to augment.")] = "0.5,0.5,0.5",
    times: Annotated[str, typer.Option(help="For each option, how often to go through the photos.")] = "1,1,1",
    tries: Annotated[int, typer.Option(min=1, help="Backgrounds tried for a photo, an option and a time.")] = 5,
    min_similarity: Annotated[float, typer.Option(help="Smallest cosine to the photo that is kept.")] = 0.7,
    min_object_area: Annotated[float, typer.Option(help="Smallest object, as a share of the image.")] = 0.5,
    min_drop: Annotated[float, typer.Option(help="Use masks and backgrounds with a drop above this.")] = 5.0,
    normalise: Annotated[
        bool, typer.Option(help="Give CLIP its mean and deviation; the published script does not.")
    ] = False,
    redo_failed: RedoOption = False,
) -> None:
    """Set the object of a few-shot photo on another class's background, a texture, or noise.

    All of it comes from the few-shot set: its photos, their background
    candidates (accepted, or with enough drop and not rejected) and their
    textures. A composite too unlike its photo is dropped, and another
    background is tried. The defaults are the published ones.

    The same seed and data give the same images. Can be stopped and run
    again. New verdicts or textures change what there is to draw from, and
    so begin a new set.
    """
    from app.terminal import console, plain_table, run_in_terminal
    from generation.pseudo_ood.id_aug_options import OPTION_NAMES, IdAugOptions

    opened = open_chosen(workspace)
    chosen = IdAugOptions(
        seed=seed,
        plans=_plans(options, rates, times),
        tries=tries,
        min_similarity=min_similarity,
        min_object_area=min_object_area,
        min_drop=min_drop,
    )
    params = {
        "fewshot_set": _chosen_set(opened, fewshot_set),
        "recipe": recipe,
        "texture_recipe": texture_recipe,
        "options": chosen.to_json(),
        "normalise": normalise,
        "redo_failed": redo_failed,
    }
    result = run_in_terminal(opened, "id_aug", params, "ID augmentation")
    if result["made"] == 0:
        console.print("Nothing to do: this was made before.")
    table = plain_table("option", "time ", "wanted ", "made ", "tries ")
    for one in result["passes"]:
        numbers = (one["repeat"] + 1, one["target"], one["made"], one["tries"])
        table.add_row(OPTION_NAMES[one["option"]], *map(str, numbers))
    console.print(table)
    console.print(
        f"Recipe {result['recipe_hash'][:12]}, from {result['images']} photos with a usable mask, of which "
        f"{result['too_small']} have an object below {min_object_area:.0%} of the image and {result['failed']} were "
        "tried in vain.",
        soft_wrap=True,
    )


def _plans(options: str, rates: str, times: str) -> tuple[OptionPlan, ...]:
    from generation.pseudo_ood.id_aug_options import OptionPlan

    def numbers(text: str, read: type, name: str) -> list:
        try:
            return [read(part) for part in text.split(",")]
        except ValueError:
            raise typer.BadParameter(f"{text!r} is not a list of numbers with commas.", param_hint=name) from None

    lists = (numbers(options, int, "--options"), numbers(rates, float, "--rates"), numbers(times, int, "--times"))
    if len({len(one) for one in lists}) > 1:
        raise typer.BadParameter("Give as many rates and times as options.", param_hint="--options")
    return tuple(OptionPlan(*one) for one in zip(*lists, strict=True))


def _chosen_set(workspace: Workspace, number: int | None) -> int:
    from sqlalchemy import func, select

    from db.models import FewShotSet
    from db.training_guard import UnknownFewShotSet, fewshot_set

    with workspace.read() as session:
        if number is not None:
            return fewshot_set(session, number).id
        newest = session.scalar(select(func.max(FewShotSet.id)))
    if newest is None:
        raise UnknownFewShotSet("There is no few-shot set yet; sample one: `launch.py fewshot --shots 16`.")
    return newest
