"""runs list, show, import; and how a run's data and result are printed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

if TYPE_CHECKING:
    from db.models import Run, RunEpoch

commands = typer.Typer(help="Trained runs: list, show, and import published ones.", no_args_is_help=True)

CLASSES_SHOWN = 10
KIND_WORDS = {
    "id": "few-shot photos",
    "background": "pseudo-OOD backgrounds",
    "texture": "pseudo-OOD textures",
    "id_aug": "ID augmentations",
}


def print_data(summary: dict, *, every_class: bool = False) -> None:
    """What goes into a run, by kind and class; ``summary`` is a run's ``data``."""
    from app.terminal import console, plain_table

    table = plain_table("kind", "images ", "held out ")
    for kind, words in KIND_WORDS.items():
        count, held = (summary.get(part, {}).get(kind, 0) for part in ("kinds", "held_out"))
        if count or held:
            table.add_row(words, str(count), str(held))
    console.print(table)
    classes = summary.get("by_class", {})
    kinds = [kind for kind in KIND_WORDS if kind in summary.get("kinds", {})]
    shown = dict(list(classes.items())[: None if every_class else CLASSES_SHOWN])
    table = plain_table("class", *(f"{kind} " for kind in kinds))
    for wnid, counts in shown.items():
        table.add_row(wnid, *(str(counts.get(kind, 0)) for kind in kinds))
    if shown:
        console.print(table)
    if len(shown) < len(classes):
        console.print(f"... and {len(classes) - len(shown)} more classes (--list-classes).")
    if summary.get("without_mask"):
        console.print(
            f"{summary['without_mask']} images have no usable background, so they count as object throughout.",
            soft_wrap=True,
        )
    for reason, count in summary.get("left_out", {}).items():
        console.print(f"Left out: {count}, {reason}.")
    console.print(f"{summary['classes']} classes, class list sha256 {summary['class_list_sha256']}", soft_wrap=True)
    if "sha256" in summary:
        console.print(f"Training data sha256 {summary['sha256']}", soft_wrap=True)


def print_result(run: Run) -> None:
    """One sentence on how a run stands and which epoch it gives."""
    from app.terminal import console

    console.print(f"Run [bold]{run.name}[/] is {run.state}: {run.epochs_done} epochs. {_chosen(run)}", soft_wrap=True)
    if run.error:
        console.print(run.error, soft_wrap=True, markup=False)
    facts = run.config.get("encoder_facts", {})
    if facts.get("grade") == "embedded":
        console.print(
            "Trained on the embedded encoder, which stands in for CLIP: its numbers say nothing of the paper's.",
            soft_wrap=True,
        )


def _chosen(run: Run) -> str:
    if run.chosen_epoch is None:
        return "No epoch is chosen yet."
    how = {
        "last": "the last",
        "held_out": "by held-out photos",
        "test": "by the OOD test sets, as published",
    }[run.config["options"]["selection"]]
    return f"Epoch {run.chosen_epoch + 1} is chosen, {how}."


@commands.command("list")
def runs_list(workspace: WorkspaceOption = None) -> None:
    """Every run, newest first."""
    from app.terminal import console, plain_table
    from ospcoop.runs import list_runs

    table = plain_table("run", "objective", "encoder", "seed ", "images ", "state", "epochs ", "chosen ", "begun")
    with open_chosen(workspace).read() as session:
        found = list_runs(session, limit=1000)
    for run in found:
        chosen = "" if run.chosen_epoch is None else str(run.chosen_epoch + 1)
        images = str(sum(run.data.get("kinds", {}).values()))
        when = f"{run.created_at:%Y-%m-%d %H:%M} UTC"
        numbers = (str(run.seed), images, run.state, str(run.epochs_done), chosen, when)
        table.add_row(run.name, run.objective, run.encoder, *numbers)
    console.print(table if found else "No run yet: `launch.py train`.")


@commands.command("show")
def runs_show(
    name: Annotated[str, typer.Argument(help="The run's name; `launch.py runs list` shows them.")],
    workspace: WorkspaceOption = None,
    list_classes: Annotated[bool, typer.Option("--list-classes", help="Show the counts of every class.")] = False,
) -> None:
    """A run's options, data, and every epoch's losses."""
    from app.terminal import console, plain_table
    from ospcoop.runs import epochs_of, find_run

    opened = open_chosen(workspace)
    with opened.read() as session:
        run = find_run(session, name)
        epochs = epochs_of(session, run.id)
    options = plain_table("option", "value")
    for option, value in run.config["options"].items():
        options.add_row(option, str(value))
    console.print(options)
    print_data(run.data, every_class=list_classes)
    if epochs:
        _print_epochs(epochs)
    print_result(run)
    console.print(f"Checkpoints: {opened.path(run.folder)}", soft_wrap=True)


def _print_epochs(epochs: list[RunEpoch]) -> None:
    from app.terminal import console, plain_table

    names = list(dict.fromkeys(name for epoch in epochs for name in epoch.metrics))
    table = plain_table("epoch ", "lr ", *(f"{name} " for name in names), "seconds ")
    for epoch in epochs:
        values = (f"{epoch.metrics[name]:.4g}" if name in epoch.metrics else "" for name in names)
        table.add_row(str(epoch.epoch + 1), f"{epoch.lr:.3g}", *values, f"{epoch.seconds:.1f}")
    console.print(table)


@commands.command("import")
def runs_import(
    file: Annotated[Path, typer.Argument(help="A .pth.tar of CoOp, LoCoOp or OSPCoOp.")],
    workspace: WorkspaceOption = None,
    objective: Annotated[str, typer.Option(help="What it was trained with: ospcoop, coop or locoop.")] = "ospcoop",
    encoder: Annotated[str, typer.Option(help="What it was trained on: clip, clip_b32 or clip_rn50.")] = "clip",
    class_position: Annotated[str, typer.Option(help="Where the class stood: end, middle or front.")] = "end",
    init_words: Annotated[str | None, typer.Option(help="The initial words, if it began from some.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call the run.")] = None,
) -> None:
    """Take a published checkpoint in as a finished run, to be evaluated like any other.

    Only tensors and plain values are read; a file that asks for anything else is refused. The fixed token vectors
    in it are dropped. It must have been trained on all classes of the class list.
    """
    from app.encoders import find_encoder
    from ospcoop.prompts import import_published

    find_encoder(encoder)
    run = import_published(
        open_chosen(workspace),
        file.expanduser().resolve(),
        encoder,
        objective=objective,
        class_position=class_position,
        init_words=init_words,
        name=name,
        created_by="terminal",
    )
    print_result(run)
