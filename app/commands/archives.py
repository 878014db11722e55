"""build and export: from decisions to archives."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

commands = typer.Typer()


@commands.command()
def build(
    workspace: WorkspaceOption = None,
    name: Annotated[str, typer.Option(help="What to call it; freezing again gives the next number.")] = "bg",
    preset: Annotated[
        str, typer.Option(help="bg: all not rejected. bg_s: those with drop > 5. custom: your own.")
    ] = "",
    verdicts: Annotated[str | None, typer.Option(help="not_rejected, accepted or any.")] = None,
    drop_above: Annotated[float | None, typer.Option(help="Keep drop > this.")] = None,
    drop_at_least: Annotated[float | None, typer.Option(help="Keep drop >= this.")] = None,
    area_min: Annotated[float | None, typer.Option(help="Smallest mask area, a share of the image.")] = None,
    area_max: Annotated[float | None, typer.Option(help="Largest mask area, a share of the image.")] = None,
    residual_max: Annotated[float | None, typer.Option(help="Largest residual evidence of the class.")] = None,
    where: Annotated[
        str, typer.Option(help="A condition more, such as 'area < 0.5 and not (agreement < 1)'; see docs/builds.md.")
    ] = "",
    auto: Annotated[bool, typer.Option(help="Let the model's verdicts in confirmed bands count.")] = True,
    note: Annotated[str, typer.Option(help="A few words for the card: why this build.")] = "",
    show: Annotated[bool, typer.Option("--list", help="Only list the frozen builds.")] = False,
) -> None:
    """Freeze a build: a numbered, hashed list of the candidates a rule and the decisions let in."""
    from dataclasses import replace

    from app.build_facts import freeze_reviewed, refresh_class_kappas
    from app.terminal import console, plain_table
    from db.queries import active_recipe
    from exports.builds import BuildError, build_label, list_builds
    from exports.fields import KAPPA_FIELD
    from exports.rules import PRESETS, Rule

    opened = open_chosen(workspace)
    if show:
        table = plain_table("build", "images ", "content hash", "frozen")
        with opened.read() as session:
            for frozen in list_builds(session):
                when = f"{frozen.created_at:%Y-%m-%d %H:%M} UTC"
                table.add_row(build_label(frozen), str(frozen.item_count), frozen.content_hash[:16], when)
        console.print(table)
        return
    preset = preset or (name if name in PRESETS else "bg")
    if preset != "custom" and preset not in PRESETS:
        raise typer.BadParameter(f"Choose one of {', '.join(PRESETS)}, custom.", param_hint="--preset")
    values = {
        "verdicts": verdicts,
        "drop_above": drop_above,
        "drop_at_least": drop_at_least,
        "area_min": area_min,
        "area_max": area_max,
        "residual_max": residual_max,
        "expression": where or None,
        "auto": auto,
    }
    given = {key: value for key, value in values.items() if value is not None}
    rule = replace(Rule() if preset == "custom" else PRESETS[preset], **given)
    if KAPPA_FIELD in rule.fields_used():
        with opened.read() as session:
            recipe = active_recipe(session)
        if recipe is None:
            raise BuildError("There is no recipe yet: generate candidates first, then freeze a build.")
        refresh_class_kappas(opened, recipe)
    frozen = freeze_reviewed(opened, name, rule, created_by="terminal", note=note)
    console.print(f"{build_label(frozen.build)}: {frozen.build.item_count} images. {rule.describe()}", soft_wrap=True)
    console.print(f"Content hash {frozen.build.content_hash}")
    if not frozen.is_new:
        console.print("Nothing changed since it was frozen, so there is no new number.")


@commands.command()
def export(
    build: Annotated[str, typer.Option(help="bg, bg_s, ... for the newest of that name, or bg-2 for that one.")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")],
    workspace: WorkspaceOption = None,
    format: Annotated[
        str, typer.Option(help="imagefolder, kaggle, openood, huggingface, webdataset, croissant or coco.")
    ] = "imagefolder",
    images: Annotated[
        str, typer.Option(help="png, or jpeg: what ImageNet val itself is, so that compression gives nothing away.")
    ] = "png",
    quality: Annotated[int, typer.Option(help="Of JPEGs, 1 to 100.")] = 95,
    part: Annotated[
        str, typer.Option(help="val or test: the photos to choose thresholds on, or to report on. [default: all]")
    ] = "",
    part_gb: Annotated[float, typer.Option(help="Where image zips and shards are cut, in GiB.")] = 2.0,
    owner: Annotated[str, typer.Option(help="Kaggle: whose dataset it is to be.")] = "",
    title: Annotated[str, typer.Option(help="Kaggle: its title, 6 to 50 characters.")] = "",
    id_side: Annotated[
        bool,
        typer.Option(
            "--id-side",
            help="Write the source photos of the members instead, coded as the candidates are: the control for the "
            "format cue. imagefolder and openood only.",
        ),
    ] = False,
) -> None:
    """Write a frozen build as an archive. The same build gives the same bytes.

    A preset (bg, bg_s) that was never frozen is frozen first. Stopped half-way, the same command goes on.
    """
    from dataclasses import asdict

    from app.build_facts import freeze_reviewed
    from app.terminal import console, run_in_terminal
    from exports.builds import build_label, list_builds
    from exports.options import GIBIBYTE, ExportOptions
    from exports.rules import PRESETS

    options = ExportOptions(images, quality, part, round(part_gb * GIBIBYTE), owner, title, id_side)
    opened = open_chosen(workspace)
    with opened.read() as session:
        names = {frozen.name for frozen in list_builds(session)}
    if build in PRESETS and build not in names:
        frozen = freeze_reviewed(opened, build, PRESETS[build], created_by="terminal").build
        console.print(
            f"Frozen {build_label(frozen)}: {frozen.item_count} images. {PRESETS[build].describe()}", soft_wrap=True
        )
    params = {"build": build, "format": format, "out": str(out.expanduser().resolve()), "options": asdict(options)}
    result = run_in_terminal(opened, "export", params, "Export")
    console.print(f"{result['path']}: {result['images']} images, {result['bytes'] / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"sha256 {result['sha256']}")


@commands.command()
def compare(
    before: Annotated[str, typer.Argument(help="A frozen build: bg, bg-1, bg-v1.")],
    after: Annotated[str, typer.Argument(help="Another one.")],
    workspace: WorkspaceOption = None,
    names: Annotated[bool, typer.Option("--names", help="Print every source that entered, left or changed.")] = False,
) -> None:
    """What entered, what left and what was made anew between two frozen builds."""
    from app.terminal import console, plain_table
    from exports.builds import build_label, find_build
    from exports.builds import compare as compare_builds

    with open_chosen(workspace).read() as session:
        first, second = find_build(session, before), find_build(session, after)
        found = compare_builds(session, first, second)
    table = plain_table(f"from {build_label(first)} to {build_label(second)}", "images ")
    for what, count in (
        ("entered", len(found.entered)),
        ("left", len(found.left)),
        ("with another image", len(found.changed)),
        ("the same", found.unchanged),
    ):
        table.add_row(what, str(count))
    console.print(table)
    if names:
        for what, sources in (("+", found.entered), ("-", found.left), ("~", found.changed)):
            for source in sources:
                console.print(f"{what} {source}", markup=False)
