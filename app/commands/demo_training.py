"""demo-train: the demo's photos parted into train and val, so that the job goes on to its end."""

from __future__ import annotations

import shutil
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, folder_of, open_chosen

if TYPE_CHECKING:
    from db.workspace import Workspace

commands = typer.Typer()

SEED = 1
SHOTS = 16


@commands.command("demo-train")
def demo_train(
    workspace: WorkspaceOption = None,
    into: Annotated[
        Path | None, typer.Option(help="The new workspace. Default: the demo's name with -training behind it.")
    ] = None,
) -> None:
    """Make a second workspace to train and evaluate in, of the photos and verdicts of `launch.py demo`.

    Ten of the twenty photos become train photos, the other ten val photos, so that nothing is tested on what it was
    trained on. Candidates and verdicts are those of the demo. Then come `train` and `evaluate`.
    """
    from app.build_facts import freeze_reviewed
    from app.generate_job import generate_params
    from app.terminal import console, run_in_terminal
    from db.workspace import open_workspace
    from exports.rules import PRESETS
    from generation.fewshot import sample_fewshot
    from generation.recipe import embedded_options

    demo = open_chosen(workspace)
    chosen = folder_of(workspace)
    target = into or chosen.with_name(f"{chosen.name}-training")
    _share_made(demo.root, target)
    opened = open_workspace(target)
    for split, root in part_photos(opened.root / "photos").items():
        params = {"layout": "imagefolder", "root": str(root), "ground_truth": None, "split": split}
        run_in_terminal(opened, "import", params, f"Import {split}")
    run_in_terminal(opened, "generate", generate_params(embedded_options()), "Generate")
    carried = carry_verdicts(demo, opened)
    fewshot = sample_fewshot(opened, SHOTS, SEED)
    textures = {"fewshot_set": fewshot.set_id, "options": {"seed": SEED}}
    run_in_terminal(opened, "texture", textures, "Textures")
    for name in ("bg", "bg_s"):
        freeze_reviewed(opened, name, PRESETS[name], created_by="terminal")
    console.print(
        f"{opened.root}: ten train photos, ten val photos, {carried} verdicts of the demo, builds bg and bg_s.\n"
        f"Now: launch.py train --workspace {target}\n"
        f"then: launch.py evaluate --all-runs --workspace {target}",
        soft_wrap=True,
    )


def _share_made(demo: Path, target: Path) -> None:
    """What generation made lies in folders named by content, so the new workspace finds it as its own."""
    from generation.artifacts import CACHE, CANDIDATES

    for name in (CANDIDATES, CACHE):
        if (demo / name).is_dir():
            shutil.copytree(demo / name, target / name, dirs_exist_ok=True)


def part_photos(folder: Path) -> dict[str, Path]:
    """The demo's photos as two ImageFolders: every other one is a train photo. The two of one class are parted."""
    from generation.classes import load_imagenet_classes
    from generation.sources.listing import list_demo

    classes = load_imagenet_classes()
    root, listed = list_demo(classes)
    roots = {split: folder / split for split in ("train", "val")}
    for number, one in enumerate(sorted(listed, key=lambda one: one.path)):
        place = roots["val" if number % 2 else "train"] / classes.wnids[one.class_index] / Path(one.path).name
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(root / one.path, place)
    return roots


def carry_verdicts(demo: Workspace, opened: Workspace) -> int:
    """Give the verdicts that stand in the demo to the same pixels here, once; how many there are.

    All are the local annotator's here. Rejects come last: one of them outweighs any accepts.
    """
    from sqlalchemy import select

    from db.models import Candidate, CurrentVerdict, Verdict
    from db.queries import ensure_user
    from review.decisions import record
    from review.events import DecisionEvent

    with demo.read() as session:
        standing = select(Candidate, CurrentVerdict).join(CurrentVerdict, CurrentVerdict.candidate_id == Candidate.id)
        given = session.execute(standing.order_by(CurrentVerdict.verdict, CurrentVerdict.decision_id)).all()
    with opened.write() as session:
        user = ensure_user(session)
        mine = {one.result_sha256: one.id for one in session.scalars(select(Candidate))}
    events = [
        DecisionEvent(
            uuid=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{one.result_sha256} {verdict.decision_id}")),
            verdict=verdict.verdict,
            candidate_id=mine[one.result_sha256],
            result_sha256=one.result_sha256,
            reasons=tuple(verdict.reasons),
        )
        for one, verdict in given
        if one.result_sha256 in mine and verdict.verdict in (Verdict.ACCEPT, Verdict.REJECT)
    ]
    return len(record(opened, events, user.id))
