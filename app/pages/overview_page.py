"""Overview: where the workspace stands, what runs, and what to do next."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import current_user_id
from app.pages.shared import (
    QUIET,
    Page,
    badge,
    empty,
    escape,
    heading,
    job_display,
    last_job,
    markup,
    section,
    state_table,
)
from db.jobs import active_job
from db.models import Build, Job, Recipe, State
from db.queries import active_recipe, source_count, state_counts
from db.workspace import Workspace
from generation.registry import REGISTRIES
from review.filters import QueueFilter, QueueState
from review.progress import counts_by_state

SHOWN_JOBS = 8


@dataclass(frozen=True)
class Standing:
    """What the next step is derived from."""

    sources: int
    pending: int
    candidates: int
    unreviewed: int
    builds: int
    exported: bool
    running: Job | None


@dataclass(frozen=True)
class Step:
    """One stop on the way from import to export."""

    page: str
    title: str
    done: bool
    fact: str


def overview_page(workspace: Workspace) -> Page:
    """Add the page to the open tab."""
    heading("Overview", "From labelled photos to a frozen background set, and what is left to do.")
    content = markup("overview-content")
    section("Recent jobs")
    jobs = job_display(elem_id="overview-jobs", limit=SHOWN_JOBS)

    def refresh(request: gr.Request) -> str:
        return render(workspace, current_user_id(request.request))

    jobs.submit(refresh, None, content, **QUIET)
    return Page(refresh, [content])


def render(workspace: Workspace, user_id: int) -> str:
    """The page's changing part as HTML."""
    with workspace.read() as session:
        recipe = active_recipe(session)
        counts = state_counts(session, recipe)
        standing = standing_of(session, recipe, counts, user_id)
    where = f'<p class="where">Workspace <code>{escape(workspace.root)}</code></p>'
    if standing.sources:
        states = state_table(counts)
    else:
        states = empty("No photos yet", "Import a folder of labelled photos, or the twenty demo photos.")
    return (
        f"{where}{_next_step(standing)}{_path(steps(standing))}"
        f'<div class="columns"><div>{states}</div><div>{recipe_card(recipe)}</div></div>'
    )


def standing_of(session: Session, recipe: Recipe | None, counts: dict[State, int], user_id: int) -> Standing:
    """The numbers that say how far the workspace is."""
    review = {QueueState.ALL: 0, QueueState.UNREVIEWED: 0}
    if recipe is not None:
        review = counts_by_state(session, QueueFilter(recipe_id=recipe.id), user_id)
    newest = session.scalar(select(Build).order_by(Build.created_at.desc()).limit(1))
    export = last_job(session, "export")
    running = active_job(session, "generate") or active_job(session, "import")
    return Standing(
        sources=source_count(session),
        pending=counts[State.PENDING],
        candidates=review[QueueState.ALL],
        unreviewed=review[QueueState.UNREVIEWED],
        builds=len(session.scalars(select(Build.id)).all()),
        exported=newest is not None and export is not None and export.created_at >= newest.created_at,
        running=running,
    )


def steps(standing: Standing) -> list[Step]:
    """The five stops with what is done at each."""
    made = standing.sources - standing.pending
    reviewed = standing.candidates - standing.unreviewed
    return [
        Step("sources", "Sources", standing.sources > 0, f"{standing.sources:,} photos"),
        Step(
            "generate",
            "Generate",
            standing.sources > 0 and standing.pending == 0,
            f"{made:,} of {standing.sources:,} done",
        ),
        Step(
            "review",
            "Review",
            standing.candidates > 0 and standing.unreviewed == 0,
            f"{reviewed:,} of {standing.candidates:,} judged",
        ),
        Step("build", "Build", standing.builds > 0, f"{standing.builds:,} frozen"),
        Step("export", "Export", standing.exported, "newest build exported" if standing.exported else "not yet"),
    ]


def next_step(standing: Standing) -> tuple[str, str, str]:
    """What to do next: a sentence, the page to do it on, and the link's words."""
    if standing.running is not None and standing.running.kind == "import":
        return "Photos are being imported; watch it on the Sources page.", "sources", "Go to Sources"
    if standing.sources == 0:
        return "Import labelled photos, or try it out with the demo photos.", "sources", "Go to Sources"
    if standing.running is not None:
        return "Candidates are being made; review can start with those that are there.", "generate", "Watch it"
    if standing.pending > 0:
        return (
            f"{standing.pending:,} photos wait for generation: try the settings on one, then run all.",
            "generate",
            "Go to Generate",
        )
    if standing.unreviewed > 0:
        return f"{standing.unreviewed:,} candidates wait for a verdict.", "review", "Go to Review"
    if standing.candidates == 0:
        return (
            "No photo became a candidate: the states below say why. Loosen the thresholds and run again.",
            "generate",
            "Go to Generate",
        )
    if standing.builds == 0:
        return "Everything is judged: freeze a build.", "build", "Go to Build"
    if not standing.exported:
        return "The newest build has not been exported.", "export", "Go to Export"
    return "All done: the newest build is exported.", "export", "See the archives"


def _next_step(standing: Standing) -> str:
    sentence, page, link = next_step(standing)
    return (
        '<section class="next-step" aria-labelledby="next-title"><div><h3 id="next-title">What to do next</h3>'
        f'<p>{escape(sentence)}</p></div><a class="button-link" href="#{page}">{escape(link)}</a></section>'
    )


def _path(stops: list[Step]) -> str:
    items = "".join(
        f'<li class="{"done" if stop.done else "open"}"><a href="#{stop.page}"><strong>{stop.title}</strong>'
        f'<span class="aside">{escape(stop.fact)}</span>'
        f'<span class="unseen">{", done" if stop.done else ""}</span></a></li>'
        for stop in stops
    )
    return f'<ol class="path" aria-label="The way from photos to an archive">{items}</ol>'


def recipe_card(recipe: Recipe | None) -> str:
    """The active recipe: its hash and its backends with their grades."""
    if recipe is None:
        return empty(
            "No recipe yet",
            "A recipe records backends, weights and thresholds; the first generation run makes it.",
            "generate",
            "Choose the settings",
        )
    options = recipe.config.get("options", {})
    lines = "".join(_backend_line(stage, options.get(stage)) for stage in REGISTRIES)
    return (
        '<section class="card" aria-labelledby="recipe-title"><h3 id="recipe-title">Active recipe '
        f'<code title="{escape(recipe.hash)}">{escape(recipe.hash[:12])}</code></h3><dl>{lines}</dl>'
        f'<p class="aside">Made {recipe.created_at:%Y-%m-%d %H:%M} UTC. A changed setting makes another recipe; '
        "nothing made under this one is lost.</p></section>"
    )


def _backend_line(stage: str, name: str | None) -> str:
    entry = REGISTRIES[stage].get(name or "")
    label = entry.label if entry else name or "not recorded"
    grade = badge(entry.grade) if entry else ""
    return f"<div><dt>{stage.capitalize()}</dt><dd>{escape(label)} {grade}</dd></div>"
