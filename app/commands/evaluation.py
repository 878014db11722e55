"""evaluate, and sets: from trained prompts to tables."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ospcoop.evaluation.tables import ResultRow

commands = typer.Typer()
sets_commands = typer.Typer(help="Sets to evaluate on: add, list, remove.", no_args_is_help=True)

TABLE = "table"
SKIPPED_SHOWN = 10


@commands.command()
def evaluate(
    workspace: WorkspaceOption = None,
    run: Annotated[
        list[str] | None, typer.Option(help="A finished run; repeatable. Zero-shot prompts always go with it.")
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all-runs", help="Every finished run.")] = False,
    detector: Annotated[
        list[str] | None,
        typer.Option(help="mcm, gl-mcm, neglabel, csp or negrefine; repeatable. Default: mcm and gl-mcm."),
    ] = None,
    id_set: Annotated[
        str, typer.Option(help="The ID set: val, the workspace's val photos, or one that was added.")
    ] = "val",
    ood_set: Annotated[
        list[str] | None,
        typer.Option(help="An OOD set or a build as bg-v1; repeatable. Default: all added, and each build's newest."),
    ] = None,
    encoder: Annotated[str, typer.Option(help="For zero-shot prompts alone; a run has its own.")] = "embedded_dual",
    weights: Annotated[
        Path | None, typer.Option(help="A weights file for that encoder. Default: the fetched one.")
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="For neglabel, csp, negrefine: a folder of WordNet files, or a file with a label a line."),
    ] = None,
    temperature: Annotated[float, typer.Option(help="T of MCM and GL-MCM.")] = 1.0,
    local_weight: Annotated[float, typer.Option(help="Weight of GL-MCM's patches.")] = 0.5,
    seed: Annotated[int, typer.Option(min=0, help="The bootstrap's.")] = 0,
    resamples: Annotated[int, typer.Option(min=1, help="Of the bootstrap's 95 % intervals.")] = 1000,
    feature_storage: Annotated[
        str, typer.Option(help="Cached features as float32 (exact) or float16 (half the disk).")
    ] = "float32",
    format_: Annotated[str, typer.Option("--format", help="table, csv, markdown or latex.")] = TABLE,
    out: Annotated[Path | None, typer.Option(help="Write the table here instead of printing it.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
) -> None:
    """Zero-shot prompts and runs, by every detector, on every OOD set; with 95 % bootstrap intervals.

    Images are encoded once and cached, results kept: asked again, nothing is computed. Default: the val photos
    against all added sets and the newest builds. A score for every image lies in evaluation/scores as Parquet.
    """
    from rich.console import Console

    from app.encoders import find_encoder
    from app.terminal import console, run_in_terminal
    from ospcoop.evaluation.formats import FORMATS
    from ospcoop.evaluation.request import DEFAULT_DETECTORS, EvaluationRequest
    from ospcoop.evaluation.tables import results
    from ospcoop.runs import DONE, EncoderChoice, list_runs

    if format_ not in (TABLE, *FORMATS):
        raise typer.BadParameter(f"Choose one of {TABLE}, {', '.join(FORMATS)}.", param_hint="--format")
    find_encoder(encoder)
    opened = open_chosen(workspace)
    names = list(run or [])
    if all_runs:
        with opened.read() as session:
            names += [one.name for one in reversed(list_runs(session)) if one.state == DONE]
    request = EvaluationRequest(
        runs=tuple(dict.fromkeys(names)),
        encoder=EncoderChoice(encoder, str(weights.expanduser().resolve()) if weights else None),
        detectors=tuple(detector or DEFAULT_DETECTORS),
        id_set=id_set,
        ood_sets=tuple(ood_set or ()),
        temperature=temperature,
        local_weight=local_weight,
        labels=str(labels.expanduser().resolve()) if labels else None,
        seed=seed,
        resamples=resamples,
        feature_storage=feature_storage,
    )
    params = {"request": request.as_dict(), "device": device}
    # What is printed for a program to read is the table alone.
    shown = console if format_ == TABLE or out is not None else Console(stderr=True, highlight=False)
    done = run_in_terminal(opened, "evaluate", params, "Evaluate", on=shown)
    with opened.read() as session:
        rows = results(session, evaluations=done["evaluations"])
    if format_ == TABLE and out is None:
        print_results(rows)
    elif out is None:
        typer.echo(FORMATS[format_](rows), nl=False)
    else:
        write_table(out, rows, format_)
    reused = f", {done['reused']} were there already" if done["reused"] else ""
    said = f"{done['computed']} evaluations computed{reused}. Scores of every image: {opened.path('evaluation/scores')}"
    if out is not None:
        said = f"Table: {out}. {said}"
    if format_ == TABLE or out is not None:
        console.print(said, soft_wrap=True)


def print_results(rows: Sequence[ResultRow]) -> None:
    """The tables, the best in bold, and what must be said of them."""
    from rich.table import Table
    from rich.text import Text

    from app.terminal import console
    from ospcoop.evaluation.formats import tables
    from ospcoop.evaluation.tables import sentences

    for made in tables(rows):
        shown = Table(box=None, pad_edge=False, header_style="bold", title=made.title, title_justify="left")
        words = len(made.headers) - made.numbers
        for place, header in enumerate(made.headers):
            shown.add_column(header, justify="left" if place < words else "right")
        for line in made.lines:
            shown.add_row(*(Text(cell.text, style="bold" if cell.best else "") for cell in line))
        console.print(shown)
        console.print()
    for sentence in sentences(rows):
        console.print(sentence, soft_wrap=True, markup=False)


def write_table(path: Path, rows: Sequence[ResultRow], format_: str) -> None:
    """A CSV, Markdown or LaTeX file, whole or not at all; "table" is written as Markdown."""
    from db.files import atomic_write
    from ospcoop.evaluation.formats import FORMATS, as_markdown

    atomic_write(path.expanduser(), FORMATS.get(format_, as_markdown)(rows).encode())


@sets_commands.command("add")
def sets_add(
    name: Annotated[str, typer.Argument(help="iNaturalist, SUN, Places and Textures count as the classic four.")],
    root: Annotated[
        Path, typer.Argument(help="Folder of images: flat, or in folders; those named by a wnid say the class.")
    ],
    workspace: WorkspaceOption = None,
    role: Annotated[str, typer.Option(help="ood, or id: then every image needs a class.")] = "ood",
    imglist: Annotated[
        Path | None, typer.Option(help="An OpenOOD list (path and class a line) of images below that folder.")
    ] = None,
) -> None:
    """Read every image once, hash it, and keep the list. The images stay where they are."""
    from app.terminal import console, run_in_terminal

    params = {
        "name": name,
        "root": str(root.expanduser().resolve()),
        "role": role,
        "imglist": str(imglist.expanduser().resolve()) if imglist else None,
    }
    made = run_in_terminal(open_chosen(workspace), "evaluation_set", params, "Read")
    words = f", {made['skipped']} left out" if made["skipped"] else ""
    console.print(
        f"[bold]{made['name']}[/], {made['group']} {made['role'].upper()} set: {made['images']} images{words}, "
        f"sha256 {made['sha256']}",
        soft_wrap=True,
    )
    for line in made["skipped_files"][:SKIPPED_SHOWN]:
        console.print(line, markup=False, soft_wrap=True)


@sets_commands.command("list")
def sets_list(workspace: WorkspaceOption = None) -> None:
    """What can be evaluated on: val photos, added sets, frozen builds."""
    from app.terminal import console, plain_table
    from ospcoop.evaluation.sets import available_sets

    with open_chosen(workspace).read() as session:
        found = available_sets(session)
    table = plain_table("set", "role", "group", "images ", "left out ", "sha256", "from")
    for one in found:
        sha256 = (one.sha256 or "")[:16]
        table.add_row(one.name, one.role, one.group, str(one.images), str(one.skipped or ""), sha256, one.where)
    console.print(table if found else "No set yet: import val photos, freeze a build, or `launch.py sets add`.")


@sets_commands.command("remove")
def sets_remove(
    name: Annotated[str, typer.Argument(help="A set that was added.")], workspace: WorkspaceOption = None
) -> None:
    """Forget a set. Its images stay where they are, and so do results on it."""
    from app.terminal import console
    from ospcoop.evaluation.sets import remove

    remove(open_chosen(workspace), name)
    console.print(f"{name} is no longer a set.", markup=False)
