"""triage, audit, duplicates: what helps people review, and what says how well they did."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from app.commands.common import WorkspaceOption, open_chosen

if TYPE_CHECKING:
    from db.models import TriageModel
    from db.workspace import Workspace
    from review.audit_report import AuditReport
    from review.triage.bands import Band

commands = typer.Typer()
triage = typer.Typer(
    help="Train the triage model from the verdicts so far, or show the newest.",
    epilog="docs/triage.md says what it learns from and what its figures mean.",
    invoke_without_command=True,
)
audit = typer.Typer(
    help="Random samples of a build, judged blind: draw, report, list.",
    epilog="Judging is done on the Audit page. docs/audit.md says how the bounds are made.",
    no_args_is_help=True,
)
commands.add_typer(triage, name="triage")
commands.add_typer(audit, name="audit")


@triage.callback()
def train(
    context: typer.Context,
    workspace: WorkspaceOption = None,
    show: Annotated[bool, typer.Option("--show", help="Only show the newest model.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Train the newest model again and compare it with what it stored.")
    ] = False,
    seed: Annotated[int, typer.Option(min=0, help="Of the folds and the learners.")] = 0,
) -> None:
    """Train the triage model from the verdicts so far, and show it."""
    from app.commands.common import Chosen

    Chosen.workspace = workspace or Chosen.workspace
    if context.invoked_subcommand is not None:
        return
    from app.terminal import console, run_in_terminal

    opened = open_chosen(workspace)
    if check:
        _check_model(opened)
        return
    if not show:
        from app.jobs.review import TRIAGE, recipe_of

        params = {"recipe_id": recipe_of(opened, {}).id, "seed": seed}
        result = run_in_terminal(opened, TRIAGE, params, "Triage")
        if not result["is_new"]:
            console.print("Nothing to do: no verdict and no candidate came since the newest model.")
    _print_model(_newest_model(opened))


def _newest_model(workspace: Workspace) -> TriageModel:
    from app.jobs.review import recipe_of
    from review.triage.bands import newest_model
    from review.triage.training import retrain_state

    recipe = recipe_of(workspace, {})
    with workspace.read() as session:
        model = newest_model(session, recipe.id)
        missing = retrain_state(session, recipe.id).missing
    if model is None:
        raise LookupError(missing or "No triage model has been trained yet: run `launch.py triage`.")
    return model


def _check_model(workspace: Workspace) -> None:
    from app.terminal import console
    from review.triage.training import retraining_difference

    model = _newest_model(workspace)
    difference = retraining_difference(workspace, model.id)
    console.print(f"Model {model.id} trained again: P(accept) differs by at most {difference:.3g}.")
    if difference > 1e-9:
        console.print(
            f"It was trained with {model.metrics['libraries']}; another version of these gives other numbers."
        )
        raise typer.Exit(1)


def _print_model(model: TriageModel) -> None:
    from app.terminal import console, plain_table

    metrics = model.metrics
    console.print(
        f"[bold]Model {model.id}[/], {model.created_at:%Y-%m-%d %H:%M} UTC: {metrics['algorithm'].replace('_', ' ')}, "
        f"{metrics['calibration']} calibration, from {metrics['accepted']} accepted and {metrics['rejected']} rejected "
        f"candidates up to decision {model.last_decision_id}.",
        soft_wrap=True,
    )
    table = plain_table("out of fold", "value ")
    names = {"auroc": "AUROC", "log_loss": "log loss", "brier": "Brier score", "ece": "calibration error"}
    for key, name in names.items():
        table.add_row(name, f"{metrics[key]:.4f}")
    console.print(table)
    table = plain_table("\nP(accept)", "judged ", "mean ", "accepted ")
    for part in metrics["reliability"]:
        bounds = f"{part['lower']:.1f} to {part['upper']:.1f}"
        table.add_row(bounds, str(part["judged"]), f"{part['p_accept']:.3f}", f"{part['accepted']:.3f}")
    console.print(table)
    table = plain_table("\nlearning from", "AUROC ", "log loss ")
    for point in metrics["learning_curve"]:
        table.add_row(f"{point['judged']} verdicts", f"{point['auroc']:.3f}", f"{point['log_loss']:.3f}")
    console.print(table)
    table = plain_table("\nfeature", "log loss without it, more by ")
    for entry in metrics["importances"][:10]:
        table.add_row(entry["feature"], f"{entry['log_loss_growth']:.4f}")
    console.print(table)


@triage.command()
def bands(
    workspace: WorkspaceOption = None,
    max_error: Annotated[float, typer.Option(help="Largest share of wrong accepts, as a 95 % bound.")] = 0.01,
    max_reject_error: Annotated[
        float | None, typer.Option(help="Largest share of wrong rejects. [default: as --max-error]")
    ] = None,
    confirm: Annotated[bool, typer.Option("--confirm", help="Let the model decide there from now on.")] = False,
    accept: Annotated[bool, typer.Option(help="Confirm the band to accept.")] = True,
    reject: Annotated[bool, typer.Option(help="Confirm the band to reject.")] = True,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take the standing band back instead.")] = False,
) -> None:
    """Propose the ends of P(accept) that the model could decide, with their estimated error."""
    from app.terminal import console
    from review.triage.bands import propose_bands
    from review.triage.confirmed import active_band, confirm_bands, revoke_band

    opened = open_chosen(workspace)
    model = _newest_model(opened)
    if revoke:
        with opened.read() as session:
            standing = active_band(session, model.recipe_id)
        if standing is None:
            raise LookupError("No confirmed band stands.")
        revoke_band(opened, standing.id)
        console.print(f"Band {standing.id} is revoked; its verdicts are gone.")
        return
    with opened.read() as session:
        proposal = propose_bands(session, model.id, max_error, max_reject_error)
    console.print(f"Model {model.id}: {proposal.open} candidates that nobody has looked at.")
    _print_bands(proposal.bands)
    for note in proposal.notes:
        console.print(note, soft_wrap=True)
    console.print(f"{proposal.left} would stay for people.")
    if confirm:
        band = confirm_bands(
            opened,
            model.id,
            confirmed_by="terminal",
            max_error=max_error,
            max_reject_error=max_reject_error,
            accept=accept,
            reject=reject,
        )
        console.print(f"Confirmed as band {band.id} by {band.confirmed_by}; `--revoke` takes it back.")
    elif proposal.bands:
        console.print("Nothing is decided by that; `--confirm` would.")


def _print_bands(found: tuple[Band, ...]) -> None:
    from app.terminal import console, plain_table

    table = plain_table("band", "P(accept)", "judged ", "wrong ", "at most ", "would decide ", "model expects wrong ")
    for band in found:
        sign = ">=" if band.verdict == "accept" else "<"
        bounds = (f"{sign} {band.threshold:.4f}", str(band.judged), str(band.errors), f"{band.upper:.2%}")
        table.add_row(band.verdict, *bounds, str(band.candidates), f"{band.expected:.2%}")
    if found:
        console.print(table)


@audit.command()
def draw(
    workspace: WorkspaceOption = None,
    build: Annotated[str, typer.Option(help="A frozen build: bg, bg_s, ... the newest of that name, or bg-2.")] = "",
    preset: Annotated[str, typer.Option(help="Instead: what this preset (bg, bg_s) would take in now.")] = "",
    size: Annotated[
        int, typer.Option(min=1, help="How many to judge; 300 without a find bound the share to 1 %.")
    ] = 300,
    strata: Annotated[str, typer.Option(help="none, drop, class_group or decided_by.")] = "drop",
    seed: Annotated[int, typer.Option(min=0, help="Same members and seed, same sample.")] = 0,
) -> None:
    """Draw a stratified random sample to be judged on the Audit page."""
    from app.audit_members import members_of_build, members_of_rule
    from app.jobs.review import recipe_of
    from app.terminal import console
    from exports.rules import PRESETS
    from review.audit import draw_audit

    if bool(build) == bool(preset):
        raise typer.BadParameter("Give one of --build and --preset.")
    if preset and preset not in PRESETS:
        raise typer.BadParameter(f"Choose one of {', '.join(PRESETS)}.", param_hint="--preset")
    opened = open_chosen(workspace)
    recipe = None if build else recipe_of(opened, {})
    with opened.read() as session:
        found = members_of_build(session, build) if build else members_of_rule(session, recipe, PRESETS[preset])
    drawn = draw_audit(
        opened,
        found.members,
        recipe_id=found.recipe_id,
        rule=found.rule,
        size=size,
        seed=seed,
        strata=strata,
        build_id=found.build_id,
        created_by="terminal",
    )
    console.print(f"Audit {drawn.id}: {drawn.size} of {len(found.members)} candidates drawn with seed {seed}.")
    console.print("Judge them on the Audit page, then: " + f"`launch.py audit report {drawn.id}`.")


@audit.command()
def report(
    number: Annotated[int, typer.Argument(help="The audit's number.")], workspace: WorkspaceOption = None
) -> None:
    """What an audit comes to, with exact bounds."""
    from app.terminal import console, plain_table
    from review.audit_report import audit_report

    opened = open_chosen(workspace)
    with opened.read() as session:
        found = audit_report(session, number)
    console.print(f"[bold]{found.statement[:1].upper()}{found.statement[1:]}", soft_wrap=True)
    if found.estimate is not None:
        low, high = found.estimate.interval.lower, found.estimate.interval.upper
        console.print(
            f"Estimate {found.estimate.share:.2%}, two-sided {found.estimate.confidence:.0%} interval {low:.2%} to "
            f"{high:.2%} ({found.estimate.method.replace('_', '-')}).",
            soft_wrap=True,
        )
    table = plain_table("stratum", "members ", "drawn ", "judged ", "object left ")
    for one in found.strata:
        table.add_row(one.name, *(str(count) for count in (one.population, one.drawn, one.judged, one.object_left)))
    console.print(table)
    _print_auditors(found)


def _print_auditors(found: AuditReport) -> None:
    from app.terminal import console

    console.print(f"Drawn {found.drawn_at:%Y-%m-%d} with seed {found.seed}.")
    if found.last_judged_at is not None:
        who = ", ".join(f"{one.name} ({one.judged})" for one in found.auditors)
        console.print(f"Judged {found.first_judged_at:%Y-%m-%d} to {found.last_judged_at:%Y-%m-%d} by {who}.")
    if found.disputed:
        console.print(f"The auditors differ on {found.disputed}, which count as object left.")


@audit.command("list")
def list_(workspace: WorkspaceOption = None) -> None:
    """Every audit, newest first."""
    from app.terminal import console, plain_table
    from review.audit import list_audits
    from review.audit_report import audit_report

    opened = open_chosen(workspace)
    table = plain_table("audit ", "drawn", "sample ", "of ", "strata", "result")
    with opened.read() as session:
        for row in list_audits(session):
            found = audit_report(session, row.id)
            when = f"{row.created_at:%Y-%m-%d}"
            table.add_row(str(row.id), when, str(found.drawn), str(found.population), found.strata_by, found.statement)
    console.print(table if table.row_count else "No audit has been drawn yet.")


@commands.command()
def duplicates(
    workspace: WorkspaceOption = None,
    distance: Annotated[
        int, typer.Option(min=0, max=15, help="How many of 64 bits near-duplicates may differ in.")
    ] = 6,
    own_distance: Annotated[
        int, typer.Option(min=0, max=15, help="A candidate as near to its own source hardly changed.")
    ] = 2,
) -> None:
    """Group candidates that look alike, and find those that look like another source or still like their own."""
    from app.jobs.review import DUPLICATES, recipe_of
    from app.terminal import console, plain_table, run_in_terminal

    opened = open_chosen(workspace)
    params = {"recipe_id": recipe_of(opened, {}).id, "distance": distance, "own_distance": own_distance}
    result = run_in_terminal(opened, DUPLICATES, params, "Duplicates")
    console.print(f"{result['candidates']} candidates and {result['sources']} sources compared.")
    table = plain_table("groups", "count ")
    for likeness, name in (
        ("all", "all"),
        ("candidates", "several candidates alike"),
        ("other_source", "like another source"),
        ("own_source", "still like their own source"),
    ):
        table.add_row(name, str(result["groups"][likeness]))
    console.print(table)
