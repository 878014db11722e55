"""The commands of launch.py. Everything heavy is imported inside them, so that --help is instant."""

from __future__ import annotations

import os
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from db.workspace import Workspace
    from generation.recipe import RecipeOptions

DEFAULT_WORKSPACE = Path("workspace")
DEFAULT_PORT = 7860

app = typer.Typer(
    help="Build ImageNet-Bg: mask and inpaint the labelled object away, review, freeze, export.",
    epilog="Start with `uv run launch.py demo`: twenty photos, the whole job. Every command can be stopped with "
    "Ctrl-C and run again; it goes on where it stopped.",
    no_args_is_help=False,
    pretty_exceptions_enable=False,
    add_completion=False,
)
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", "-w", help="The folder with the database, images, builds. [default: ./workspace]"),
]
HostOption = Annotated[str, typer.Option(help="Address to listen on; only this machine's own until accounts exist.")]
PortOption = Annotated[int, typer.Option(help="Port to listen on; the next free one is taken if it is in use.")]


class _Chosen:
    """The --workspace given before the command, if any."""

    workspace: Path | None = None


def _folder(workspace: Path | None) -> Path:
    return workspace or _Chosen.workspace or DEFAULT_WORKSPACE


def _open(workspace: Path | None, *, create: bool = False) -> Workspace:
    from db.workspace import open_workspace

    return open_workspace(_folder(workspace), create=create)


@app.callback(invoke_without_command=True)
def serve(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
) -> None:
    """Without a command: serve the workspace in the browser, with a worker beside it."""
    _Chosen.workspace = workspace
    if context.invoked_subcommand is None:
        _serve(_open(workspace, create=True), host, port)


def _serve(workspace: Workspace, host: str, port: int) -> None:
    from app.server import serve as serve_pages

    serve_pages(workspace, host=host, port=port)


@app.command()
def demo(
    workspace: WorkspaceOption = None,
    no_serve: Annotated[bool, typer.Option("--no-serve", help="Do everything but open the server.")] = False,
    host: HostOption = "127.0.0.1",
    port: PortOption = DEFAULT_PORT,
) -> None:
    """Twenty real photos through the whole job with the embedded backends, then serve them for review.

    The photos ship with the foolbox package, labelled with ImageNet classes. Nothing is downloaded.
    """
    from app.terminal import console, run_in_terminal
    from generation.recipe import embedded_options

    opened = _open(workspace, create=True)
    imported = run_in_terminal(
        opened, "import", {"layout": "demo", "root": None, "ground_truth": None, "split": "val"}, "Import"
    )
    generated = run_in_terminal(opened, "generate", _generate_params(embedded_options()), "Generate")
    if imported["added"] == 0 and generated["made"] == 0:
        console.print("Nothing to do: every demo photo was imported and generated before.")
    _print_candidates(opened)
    _print_states(opened)
    if not no_serve:
        _serve(opened, host, port)


@app.command("import")
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
    result = run_in_terminal(_open(workspace, create=True), "import", params, "Import")
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


@app.command()
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

    opened = _open(workspace)
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
    params = _generate_params(options, limit, _class_indices(opened, classes), redo_failed)
    result = run_in_terminal(opened, "generate", params, "Generate")
    if result["made"] == 0:
        console.print("Nothing to do: no source is pending under this recipe.")
    _print_states(opened)


def _generate_params(
    options: RecipeOptions, limit: int | None = None, classes: list[int] | None = None, redo_failed: bool = False
) -> dict:
    from dataclasses import asdict

    return {"options": asdict(options), "limit": limit, "classes": classes, "redo_failed": redo_failed}


def _class_indices(workspace: Workspace, classes: str | None) -> list[int] | None:
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


@app.command()
def status(workspace: WorkspaceOption = None) -> None:
    """How many sources are in which state, and what the last jobs did."""
    from app.terminal import console, plain_table
    from db.jobs import recent_jobs

    opened = _open(workspace)
    _print_states(opened)
    with opened.read() as session:
        recent = recent_jobs(session)
    if not recent:
        console.print("No jobs yet.")
        return
    console.print("\n[bold]Last jobs")
    table = plain_table("job ", "kind", "state", "done ", "of ", "message", "error")
    for job in recent:
        done, total = str(job.done), "" if job.total is None else str(job.total)
        table.add_row(str(job.id), job.kind, job.state.value, done, total, job.message, job.error)
    console.print(table)


@app.command()
def worker(
    workspace: WorkspaceOption = None,
    until_idle: Annotated[bool, typer.Option("--until-idle", help="End when no job waits.")] = False,
) -> None:
    """Run the jobs that pages and commands enqueue. `launch.py` starts one by itself."""
    import logging

    from app.worker import work

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    work(_open(workspace), until_idle=until_idle)


@app.command()
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
    show: Annotated[bool, typer.Option("--list", help="Only list the frozen builds.")] = False,
) -> None:
    """Freeze a build: a numbered, hashed list of the candidates a rule and the decisions let in."""
    from dataclasses import replace

    from app.terminal import console, plain_table
    from exports.builds import build_label, freeze, list_builds
    from exports.rules import PRESETS, Rule

    opened = _open(workspace)
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
    }
    given = {key: value for key, value in values.items() if value is not None}
    rule = replace(Rule() if preset == "custom" else PRESETS[preset], **given)
    frozen = freeze(opened, name, rule, created_by="terminal")
    console.print(f"{build_label(frozen.build)}: {frozen.build.item_count} images. {rule.describe()}", soft_wrap=True)
    console.print(f"Content hash {frozen.build.content_hash}")
    if not frozen.is_new:
        console.print("Nothing changed since it was frozen, so there is no new number.")


@app.command()
def export(
    build: Annotated[str, typer.Option(help="bg, bg_s, ... for the newest of that name, or bg-2 for that one.")],
    out: Annotated[Path, typer.Option(help="Folder for the archive.")],
    workspace: WorkspaceOption = None,
    format: Annotated[str, typer.Option(help="Archive format.")] = "imagefolder",
) -> None:
    """Write a frozen build as an archive. The same build gives the same bytes.

    A preset (bg, bg_s) that was never frozen is frozen first.
    """
    from app.terminal import console, run_in_terminal
    from exports.builds import build_label, freeze, list_builds
    from exports.rules import PRESETS

    opened = _open(workspace)
    with opened.read() as session:
        names = {frozen.name for frozen in list_builds(session)}
    if build in PRESETS and build not in names:
        frozen = freeze(opened, build, PRESETS[build], created_by="terminal").build
        console.print(
            f"Frozen {build_label(frozen)}: {frozen.item_count} images. {PRESETS[build].describe()}", soft_wrap=True
        )
    params = {"build": build, "format": format, "out": str(out.expanduser().resolve())}
    result = run_in_terminal(opened, "export", params, "Export")
    console.print(f"{result['path']}: {result['images']} images, {result['bytes'] / 1e6:.1f} MB", soft_wrap=True)
    console.print(f"sha256 {result['sha256']}")


@app.command()
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


weights_app = typer.Typer(
    help="The published pipeline's model files: list, fetch, verify.",
    epilog="Files go to IMAGENET_BG_WEIGHTS or ~/.cache/imagenet-bg/weights. docs/weights.md says what each is for.",
    no_args_is_help=True,
)
app.add_typer(weights_app, name="weights")
FolderOption = Annotated[Path | None, typer.Option("--folder", help="The weights folder, instead of the usual one.")]
NamesArgument = Annotated[list[str] | None, typer.Argument(help="Which ones, by name. [default: all]")]


def _print_weights(rows: list) -> None:
    from app.terminal import console, plain_table
    from generation.weights import readable_size

    table = plain_table("name", "file", "size ", "state", "licence")
    for row in rows:
        table.add_row(row.name, row.file, readable_size(row.size), row.state, row.licence)
    console.print(table)
    for row in rows:
        if row.state == "wrong":
            console.print(row.note, soft_wrap=True)
    missing = [row.name for row in rows if row.state == "missing"]
    if missing:
        command = f"uv run launch.py weights fetch {' '.join(missing)}"
        console.print(
            f"\nFetch what is missing: `{command}`, or with `--from DIR` from a folder you bring.", soft_wrap=True
        )


@weights_app.command("list")
def weights_list(folder: FolderOption = None) -> None:
    """What there is and what is missing. Reads no file's content."""
    from generation.weights import list_weights

    _print_weights(list_weights(folder))


@weights_app.command("fetch")
def weights_fetch(
    names: NamesArgument = None,
    folder: FolderOption = None,
    source: Annotated[
        Path | None, typer.Option("--from", help="Take the files from this folder instead of the network.")
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="Never touch the network; only say what is missing.")
    ] = False,
) -> None:
    """Download what is missing, resuming what was begun; verify size and sha256 before a file gets its name."""
    from app.terminal import console, download_bar
    from generation.weights import fetch, readable_size

    with download_bar("Fetch") as bar:
        fetched = fetch(names or None, folder, bar, source_dir=source, offline=offline or None)
    for one in fetched:
        console.print(f"{one.name}: {one.how}, {one.path} ({readable_size(one.path.stat().st_size)})", soft_wrap=True)


@weights_app.command("verify")
def weights_verify(names: NamesArgument = None, folder: FolderOption = None) -> None:
    """Hash every file anew. Exit code 1 when one is wrong."""
    from generation.weights import verify

    rows = verify(names or None, folder)
    _print_weights(rows)
    if any(row.state == "wrong" for row in rows):
        raise typer.Exit(1)


@app.command()
def doctor(workspace: WorkspaceOption = None) -> None:
    """What this machine has of what the tool needs. Exit code 1 when something necessary is missing."""
    from app.doctor import examine
    from app.terminal import console

    findings = examine(_folder(workspace))
    marks = {True: "[green]ok[/]", False: "[red]no[/]", None: "[dim]--[/]"}
    for finding in findings:
        console.print(f"{marks[finding.ok]}  [bold]{finding.topic}[/]  {finding.value}", soft_wrap=True)
    if any(finding.ok is False for finding in findings):
        raise typer.Exit(1)


def _print_states(workspace: Workspace) -> None:
    from app.terminal import console, plain_table
    from db.queries import active_recipe, source_count, state_counts

    with workspace.read() as session:
        recipe = active_recipe(session)
        counts, total = state_counts(session, recipe), source_count(session)
    console.print("\n[bold]Sources" if recipe is None else f"\n[bold]Sources under recipe {recipe.hash[:12]}")
    table = plain_table("state", "sources ")
    for state, count in counts.items():
        table.add_row(state.value, str(count))
    table.add_row("[bold]together", f"[bold]{total}")
    console.print(table)


def _print_candidates(workspace: Workspace) -> None:
    from app.terminal import console, plain_table
    from db.queries import outcome_rows

    table = plain_table("source", "class", "area ", "drop ", "residual ", "state", "")
    with workspace.read() as session:
        for source, class_name, outcome, candidate in outcome_rows(session):
            numbers = ("", "", "")
            if candidate is not None:
                numbers = (f"{candidate.area:.1%}", f"{candidate.drop:.2f}", f"{candidate.residual:.2f}")
            table.add_row(source.name, class_name, *numbers, outcome.state.value, outcome.reason)
    console.print(table)


def main() -> None:
    """Run the command line; a named error prints its sentence, not a traceback."""
    os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")
    # groundingdino-py 0.4.0 says so on every import; it is nothing an operator can act on.
    warnings.filterwarnings("ignore", message="Importing from timm.models.layers", category=FutureWarning)
    try:
        app()
    except (ValueError, LookupError, OSError, RuntimeError) as error:
        if os.environ.get("IMAGENET_BG_TRACEBACK"):
            raise
        print(f"Error: {error}\n(IMAGENET_BG_TRACEBACK=1 shows where.)", file=sys.stderr)
        sys.exit(1)
