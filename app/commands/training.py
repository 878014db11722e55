"""train: from training data to prompts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen
from app.commands.runs import print_data, print_result

if TYPE_CHECKING:
    from db.models import Run
    from db.workspace import Workspace
    from ospcoop.data import TrainingSet
    from ospcoop.options import TrainingOptions
    from ospcoop.runs import DataChoice, EncoderChoice

commands = typer.Typer()

SELECTIONS = {"last": "last", "held-out": "held_out", "test": "test"}


@commands.command()
def train(
    workspace: WorkspaceOption = None,
    objective: Annotated[
        str, typer.Option(help="ospcoop: photos, backgrounds, textures. coop, locoop: photos alone.")
    ] = "ospcoop",
    encoder: Annotated[
        str, typer.Option(help="embedded_dual (runs anywhere, no paper's), clip (ViT-B/16), clip_b32 or clip_rn50.")
    ] = "embedded_dual",
    weights: Annotated[
        Path | None, typer.Option(help="A CLIP weights file: OpenAI's .pt, .safetensors. Default: the fetched one.")
    ] = None,
    fewshot_set: Annotated[int | None, typer.Option(help="The set's number. Default: the newest.")] = None,
    textures: Annotated[bool, typer.Option(help="Train on texture candidates too, where there are.")] = True,
    id_aug: Annotated[
        bool, typer.Option(help="Train on ID augmentations too, with the random crop that goes with them.")
    ] = False,
    min_drop: Annotated[float, typer.Option(help="Backgrounds need an accept, or a drop above this.")] = 5.0,
    all_classes: Annotated[
        bool, typer.Option("--all-classes", help="A prompt for every class, not only for those with photos.")
    ] = False,
    epochs: Annotated[int | None, typer.Option(help="Default: 50, with --id-aug 20.")] = None,
    batch_size: Annotated[int, typer.Option(help="Images a step.")] = 32,
    lr: Annotated[float, typer.Option(help="Highest learning rate: SGD, cosine, one warm-up epoch at 1e-5.")] = 0.002,
    loss1: Annotated[float, typer.Option(help="Weight of the local entropy outside the object.")] = 1.5,
    loss2: Annotated[float, typer.Option(help="Weight of the global entropy on pseudo-OOD images.")] = 0.5,
    locoop_weight: Annotated[float, typer.Option(help="LoCoOp: weight of its regulariser.")] = 0.25,
    locoop_rank: Annotated[
        int | None, typer.Option(help="LoCoOp: ranks that count as the class. Default: a fifth of the classes.")
    ] = None,
    n_ctx: Annotated[int, typer.Option(help="Context vectors.")] = 16,
    init_words: Annotated[
        str | None, typer.Option(help="Words to start the context from, as 'a photo of a'. Default: noise.")
    ] = None,
    class_specific: Annotated[
        bool, typer.Option("--class-specific", help="A context for each class; slower, and no shared prefix.")
    ] = False,
    class_position: Annotated[str, typer.Option(help="end, middle or front.")] = "end",
    validation_set: Annotated[
        str | None,
        typer.Option(
            help="How the epoch is chosen. last; held-out: by photos kept out of the training. Default: last."
        ),
    ] = None,
    held_out_share: Annotated[float, typer.Option(help="Share of the photos that held-out keeps.")] = 0.2,
    precision: Annotated[str, typer.Option(help="Of the text tower: float32, bfloat16 or float16.")] = "float32",
    feature_storage: Annotated[
        str, typer.Option(help="Cached features as float32 (exact) or float16 (half the disk).")
    ] = "float32",
    random_position: Annotated[
        bool, typer.Option("--random-position", help="Crop anywhere; published: always the top left corner.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Context, shuffling, flips and crops come from it.")] = 1,
    as_published: Annotated[
        bool,
        typer.Option(
            "--as-published",
            help="As the reference: the epoch that is best on the OOD *test* sets (tables say so), and its counting of "
            "the visible share and of initial words. --validation-set last or held-out keeps the tests out of it.",
        ),
    ] = False,
    name: Annotated[str | None, typer.Option(help="What to call the run. Default: from its options.")] = None,
    resume: Annotated[
        str | None, typer.Option(help="Go on with this run; all other options are those it began with.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    plan: Annotated[bool, typer.Option("--plan", help="Only show what would go in, train nothing.")] = False,
    list_classes: Annotated[bool, typer.Option("--list-classes", help="Show the counts of every class.")] = False,
) -> None:
    """Train prompts on a few-shot set and what was made of it. Defaults as published.

    Before it: `import --split train`, `generate`, `fewshot`, and if wanted `texture` and `id-aug`. Val photos never
    train. Image features are computed once and cached in the workspace; an epoch then touches no pixel. Every
    epoch leaves a checkpoint: stopped at any moment, the same command goes on to the same numbers.
    """
    from app.encoders import find_encoder
    from app.terminal import run_in_terminal
    from generation.sources import open_source
    from ospcoop import runs
    from ospcoop.options import EPOCHS, EPOCHS_WITH_ID_AUG, TrainingOptions

    opened = open_chosen(workspace)
    if resume is not None:
        with opened.read() as session:
            run = runs.find_unfinished(session, resume)
        print_data(run.data, every_class=list_classes)
    else:
        selection = validation_set or ("test" if as_published else "last")
        if selection not in SELECTIONS:
            raise typer.BadParameter(f"Choose one of {', '.join(SELECTIONS)}.", param_hint="--validation-set")
        find_encoder(encoder)
        options = TrainingOptions(
            objective=objective,
            epochs=(EPOCHS_WITH_ID_AUG if id_aug else EPOCHS) if epochs is None else epochs,
            batch_size=batch_size,
            lr=lr,
            loss1=loss1,
            loss2=loss2,
            locoop_weight=locoop_weight,
            locoop_rank=locoop_rank,
            n_ctx=n_ctx,
            init_words=init_words,
            class_specific=class_specific,
            class_position=class_position,
            all_classes=all_classes,
            min_drop=min_drop,
            random_position=random_position,
            selection=SELECTIONS[selection],
            held_out_share=held_out_share,
            precision=precision,
            feature_storage=feature_storage,
            seed=seed,
            as_published=as_published,
        )
        with opened.read() as session:
            choice = runs.choose_data(session, fewshot_set, textures=textures, id_augs=id_aug)
        data = runs.read_training_set(opened, choice, options, open_source)
        print_data(data.summary(), every_class=list_classes)
        if plan:
            return
        model = runs.EncoderChoice(encoder, str(weights.expanduser().resolve()) if weights else None)
        run = _planned(opened, data, choice, model, options, name)
    run_in_terminal(opened, "train", {"run": run.id, "device": device}, "Train")
    with opened.read() as session:
        print_result(runs.find_run(session, run.name))


def _planned(
    workspace: Workspace,
    data: TrainingSet,
    choice: DataChoice,
    encoder: EncoderChoice,
    options: TrainingOptions,
    name: str | None,
) -> Run:
    from app.terminal import console
    from ospcoop.runs import plan_run

    planned = plan_run(workspace, data, choice, encoder, options, name=name, created_by="terminal")
    run = planned.run
    if planned.is_new:
        console.print(f"Run [bold]{run.name}[/], {options.epochs} epochs, seed {options.seed}.")
    else:
        console.print(f"Run [bold]{run.name}[/] goes on after {run.epochs_done} of {options.epochs} epochs.")
    return run
