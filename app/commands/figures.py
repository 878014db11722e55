"""figures: curves, score diagrams and shortcut maps as SVG files, without a browser."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

commands = typer.Typer(help="Figures as SVG files: what the pages draw, headless.", no_args_is_help=True)

OutOption = Annotated[Path, typer.Option(help="The folder that the files go to.")]
FIGURES = Path("figures")


@commands.command("curves")
def figures_curves(
    run: Annotated[str, typer.Argument(help="The run's name; `launch.py runs list` shows them.")],
    workspace: WorkspaceOption = None,
    out: OutOption = FIGURES,
) -> None:
    """A run's losses, accuracy, learning rate and validation by epoch."""
    from ospcoop.figures.drawn import curve_figures
    from ospcoop.runs import epochs_of, find_run

    with open_chosen(workspace).read() as session:
        found = find_run(session, run)
        epochs = epochs_of(session, found.id)
    if not epochs:
        raise typer.BadParameter(f"{run} has not finished an epoch yet.", param_hint="RUN")
    _write(out, f"{run}-", curve_figures(epochs))


@commands.command("scores")
def figures_scores(
    workspace: WorkspaceOption = None,
    run: Annotated[list[str] | None, typer.Option(help="Only of this run, or zero-shot; repeatable.")] = None,
    detector: Annotated[
        list[str] | None, typer.Option(help="Only of this detector as tables call it, such as GL-MCM; repeatable.")
    ] = None,
    ood_set: Annotated[list[str] | None, typer.Option("--set", help="Only on this OOD set; repeatable.")] = None,
    out: OutOption = FIGURES,
) -> None:
    """Score histograms, ROC and reliability of every result, or of those chosen, from their stored scores."""
    from ospcoop.evaluation.tables import results
    from ospcoop.figures.drawn import score_figures
    from ospcoop.figures.stored import evaluation_figures

    opened = open_chosen(workspace)
    with opened.read() as session:
        rows = results(session, runs=run, detectors=detector, sets=ood_set)
    if not rows:
        raise typer.BadParameter("There is no such result; `launch.py evaluate` shows those there are.")
    for row in rows:
        prefix = re.sub(r"[^A-Za-z0-9_.-]+", "-", f"{row.id_set}-{row.ood_set}-{row.detector}-{row.run}-")
        _write(out, prefix, score_figures(evaluation_figures(opened, row.evaluation)))


@commands.command("shortcuts")
def figures_shortcuts(
    candidate: Annotated[int, typer.Argument(help="The candidate's number.")],
    workspace: WorkspaceOption = None,
    run: Annotated[
        list[str] | None, typer.Option(help="A run to show beside zero-shot; repeatable, all of one encoder.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Used where no run is named.")] = "embedded_dual",
    shown: Annotated[
        str, typer.Option("--class", help="predicted (by zero-shot), source (whose object was removed), or a wnid.")
    ] = "predicted",
    top: Annotated[int, typer.Option(min=0, help="Patches to outline.")] = 8,
    evaluation: Annotated[
        int | None, typer.Option(help="Take this evaluation's classes. Default: those the runs were trained on.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    out: OutOption = FIGURES,
) -> None:
    """Which patches of a background push it towards a class: zero-shot and runs side by side."""
    from app.encoders import find_encoder
    from app.terminal import run_in_terminal
    from db.models import Candidate
    from ospcoop.figures.request import ShortcutRequest, chosen_runs
    from ospcoop.figures.svg import shortcut_figure

    opened = open_chosen(workspace)
    find_encoder(encoder)
    request = ShortcutRequest(candidate, tuple(run or ()), encoder, shown, top, evaluation)
    chosen_runs(opened, request)
    made = run_in_terminal(opened, "shortcut_map", {**request.as_dict(), "device": device}, "Shortcut map")
    with opened.read() as session:
        folder = session.get_one(Candidate, candidate).folder
    picture = opened.path(f"{folder}/result.png").read_bytes()
    _write(out, f"candidate-{candidate}-", {"shortcuts": shortcut_figure(made, picture)})


def _write(folder: Path, prefix: str, figures: dict[str, str]) -> None:
    from app.terminal import console
    from db.files import atomic_write

    folder.mkdir(parents=True, exist_ok=True)
    for name, text in figures.items():
        path = folder / f"{prefix}{name}.svg"
        atomic_write(path, text.encode())
        console.print(str(path), soft_wrap=True)
