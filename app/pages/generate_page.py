"""Generate: choose backends and thresholds, try them on one photo, then run them all and watch."""

from __future__ import annotations

import random
from dataclasses import asdict

import gradio as gr
from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.pages.generate_run import EVERY, enqueue_generate, photo_choices, render_last_run, run_form
from app.pages.shared import (
    ACTION,
    JOBS_CHANGED_JS,
    QUIET,
    STATE_TEXT,
    FormError,
    Page,
    action,
    asker,
    badge,
    empty,
    escape,
    heading,
    job_display,
    last_job,
    markup,
    section,
    state_table,
    table,
)
from db.jobs import active_job, enqueue
from db.models import Job, Outcome, Recipe, SourceImage, State
from db.queries import active_recipe, class_names, state_counts
from db.workspace import Workspace
from generation.recipe import RecipeError, RecipeOptions, default_options
from generation.registry import Stage, find_backend, listed_backends

SHOWN_REASONS = 5
STAGES = ("masker", "inpainter", "scorer")
# Field of RecipeOptions: what the page calls it, and what it does.
NUMBERS = {
    "dilation": ("Dilation, pixels", "How far the mask is grown before inpainting"),
    "min_area": ("Smallest mask", "Share of the photo; below it: mask too small"),
    "max_area": ("Largest mask", "Share of the photo; above it: mask too large"),
    "max_dilated_area": ("Largest dilated mask", "Share of the photo; above it: mask too large"),
    "min_component": ("Smallest piece kept", "Share of the photo; smaller pieces are dropped"),
    "max_components": ("Most pieces kept", "The largest ones stay"),
    "max_hole": ("Largest hole filled", "Share of the photo"),
    "seed": ("Seed", "The same seed gives the same images"),
}
WHOLE = ("dilation", "max_components", "seed")
BY_MASKER = ("dilation", "dilation_shape", "max_dilated_area")
RESOLUTIONS = [("224 (as published)", "224"), ("The photo's own size", "native")]
SHAPES = [("Square (as published)", "square"), ("Ellipse", "ellipse")]
PANES = (
    ("boxes", "Detection"),
    ("mask", "Mask"),
    ("dilated", "Dilated mask"),
    ("result", "Result"),
)


def generate_page(workspace: Workspace) -> Page:
    """Add the page to the open tab."""
    heading("Generate", "Mask the labelled object, inpaint it away, score what is left.")
    section("1. Settings")
    fields, grades = _form()
    section("2. Try on one photo")
    with gr.Row(elem_classes="filters"):
        name = gr.Textbox("", label="Photo", placeholder="Its name; empty takes any", elem_id="try-name")
        attempt = gr.Button("Try it", elem_id="try-start", elem_classes="short")
        lucky = gr.Button("Try a random photo", elem_id="try-random", elem_classes="short")
    try_message = markup("try-message")
    try_jobs = job_display("preview", elem_id="try-jobs")
    outcome = markup("try-outcome")
    section("3. Run all")
    run = run_form()
    run_message = markup("run-message")
    run_jobs = job_display("generate", elem_id="run-jobs")
    last_run = markup("run-last")
    states = markup("run-states")
    inputs = list(fields.values())

    def options_of(values: tuple[object, ...]) -> RecipeOptions:
        return _options(dict(zip(fields, values, strict=True)))

    @action
    def try_one(name: str, *values: object) -> str:
        return _enqueue_preview(workspace, options_of(values), name)

    @action
    def try_any(*values: object) -> str:
        return _enqueue_preview(workspace, options_of(values), "")

    @action
    def run_all(*values: object) -> str:
        count = len(run.inputs())
        return enqueue_generate(workspace, options_of(values[count:]), *values[:count])

    def suit(masker: str) -> tuple[object, ...]:
        suited = asdict(default_options(masker=masker))
        return tuple(suited[field] for field in BY_MASKER)

    def load() -> tuple[object, ...]:
        with workspace.read() as session:
            options = asdict(starting_options(active_recipe(session)))
        return render_grades(*(options[stage] for stage in STAGES)), *(options[field] for field in fields)

    def after_run() -> tuple[str, str]:
        return render_last_run(workspace), render_states(workspace)

    def refresh(chosen: str | None) -> tuple[object, ...]:
        with workspace.read() as session:
            choices = photo_choices(session)
        value = chosen if chosen in {value for _, value in choices} else EVERY
        return render_preview(workspace), *after_run(), gr.Dropdown(choices=choices, value=value)

    fields["masker"].input(suit, fields["masker"], [fields[field] for field in BY_MASKER], **ACTION)
    backends = [fields[stage] for stage in STAGES]
    for dropdown in backends:
        dropdown.change(render_grades, backends, grades, **QUIET)
    attempt.click(try_one, [name, *inputs], try_message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    name.submit(try_one, [name, *inputs], try_message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    lucky.click(try_any, inputs, try_message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    run.start.click(run_all, [*run.inputs(), *inputs], run_message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    try_jobs.submit(lambda: render_preview(workspace), None, outcome, **QUIET)
    run_jobs.submit(after_run, None, [last_run, states], **QUIET)
    outputs = [outcome, last_run, states, run.photos]
    return Page(refresh, outputs, inputs=[run.photos], load=load, load_outputs=[grades, *inputs])


def starting_options(recipe: Recipe | None) -> RecipeOptions:
    """What the form begins with: the active recipe's options, where this page can offer them, else the defaults."""
    if recipe is not None and recipe.config.get("options"):
        try:
            options = RecipeOptions.from_dict(recipe.config["options"])
        except RecipeError:
            return default_options()
        if all(getattr(options, stage) in listed_backends(stage) for stage in STAGES):
            return options
    return default_options()


def render_grades(masker: str, inpainter: str, scorer: str) -> str:
    """The grades of the chosen backends as HTML."""
    chosen = (("masker", "Mask", masker), ("inpainter", "Inpaint", inpainter), ("scorer", "Score", scorer))
    entries = [(title, find_backend(stage, name)) for stage, title, name in chosen]
    items = "".join(f"<li>{title} {badge(entry.grade)}</li>" for title, entry in entries)
    return f'<ul class="grades" aria-label="Grades of the chosen backends">{items}</ul>'


def _form() -> tuple[dict[str, gr.components.Component], gr.HTML]:
    """The settings' controls by field of RecipeOptions, and the place for the grades."""
    defaults = asdict(default_options())
    fields: dict[str, gr.components.Component] = {}

    def backend(stage: Stage, label: str) -> gr.Dropdown:
        choices = [(entry.label, name) for name, entry in listed_backends(stage).items()]
        return gr.Dropdown(choices, value=defaults[stage], label=label, filterable=False)

    def number(field: str) -> gr.Number:
        label, info = NUMBERS[field]
        return gr.Number(
            defaults[field],
            label=label,
            info=info,
            precision=0 if field in WHOLE else None,
            step=1 if field in WHOLE else 0.01,
            min_width=200,
        )

    with gr.Row():
        fields["masker"] = backend("masker", "Mask")
        fields["inpainter"] = backend("inpainter", "Inpaint")
        fields["scorer"] = backend("scorer", "Score")
    grades = markup("grades")
    with gr.Accordion("Thresholds", open=False, elem_id="thresholds"):
        with gr.Row():
            fields["resolution"] = gr.Dropdown(
                RESOLUTIONS,
                value=defaults["resolution"],
                label="Resolution",
                info="Of the images that are made",
                filterable=False,
                min_width=200,
            )
            fields["dilation_shape"] = gr.Dropdown(
                SHAPES,
                value=defaults["dilation_shape"],
                label="Dilation shape",
                info="What the mask is grown with",
                filterable=False,
                min_width=200,
            )
            fields["dilation"] = number("dilation")
            fields["min_area"] = number("min_area")
        with gr.Row():
            for field in ("max_area", "max_dilated_area", "min_component", "max_components"):
                fields[field] = number(field)
        with gr.Row():
            fields["max_hole"] = number("max_hole")
            fields["seed"] = number("seed")
            fields["second_look"] = gr.Checkbox(
                defaults["second_look"],
                label="Second look",
                info="Mask more where the class is still seen afterwards",
                min_width=420,
                scale=2,
            )
    return fields, grades


def _options(values: dict[str, object]) -> RecipeOptions:
    for field, value in values.items():
        if value is None:
            raise FormError(f"{NUMBERS[field][0]} is empty; give a number." if field in NUMBERS else f"Choose {field}.")
    return RecipeOptions.from_dict(values)


def _enqueue_preview(workspace: Workspace, options: RecipeOptions, name: str) -> str:
    with workspace.write() as session:
        source = _find_source(session, name.strip()) if name.strip() else _any_source(session)
        waiting = active_job(session, "preview")
        if waiting is not None:
            raise FormError(f"Job {waiting.id} is trying a photo already; wait for it or cancel it first.")
        params = {"options": asdict(options), "source_id": source.id}
        job = enqueue(session, "preview", params, created_by=asker())
    return f"Job {job.id} tries the settings on {source.name}."


def _find_source(session: Session, name: str) -> SourceImage:
    exact = session.scalar(select(SourceImage).where(SourceImage.name == name))
    if exact is not None:
        return exact
    query = select(SourceImage).where(SourceImage.name.contains(name, autoescape=True)).order_by(SourceImage.id)
    found = list(session.scalars(query.limit(4)))
    if len(found) == 1:
        return found[0]
    if not found:
        raise FormError(f"No photo is called {name!r}; the Sources page lists them, or leave the field empty.")
    some = ", ".join(source.name for source in found[:3])
    raise FormError(f"More than one photo has {name!r} in its name ({some}, …); write more of it.")


def _any_source(session: Session) -> SourceImage:
    last = session.scalar(select(func.max(SourceImage.id)))
    if last is None:
        raise FormError("There are no photos yet; import some on the Sources page first.")
    query = select(SourceImage).where(SourceImage.id >= random.randint(1, last)).order_by(SourceImage.id).limit(1)
    return session.scalars(query).one()


def render_preview(workspace: Workspace) -> str:
    """The last photo that was tried: boxes, masks, result and the numbers, as HTML."""
    with workspace.read() as session:
        job = last_job(session, "preview")
        source = session.get(SourceImage, int(job.params["source_id"])) if job is not None else None
        class_name = class_names(session).get(source.class_index, "") if source is not None else ""
    if job is None or job.result is None or source is None:
        return empty(
            "Nothing tried yet",
            "Try the settings on a photo before the long run: detection, mask, dilated mask and result appear here.",
        )
    result = job.result
    state = State(result["state"])
    panes = "".join(_pane(job, name, title, source.name) for name, title in PANES)
    said = f' <span class="aside">{escape(result["reason"])}</span>' if result.get("reason") else ""
    facts = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in _numbers(result))
    return (
        f'<section class="card trial" aria-label="The last photo tried"><h3>{escape(source.name)} '
        f'<span class="aside">{escape(class_name)}</span> '
        f'<span class="chip {state.value}">{escape(STATE_TEXT[state][0])}</span>{said}</h3>'
        f'<div class="panes">{panes}</div><dl class="numbers">{facts}</dl></section>'
    )


def _pane(job: Job, name: str, title: str, source_name: str) -> str:
    images = (job.result or {}).get("images", [])
    file = f"{name}.png"
    if name == "boxes" and file not in images:
        file = "raw.png"
    if file not in images:
        return f'<figure><div class="no-image">not reached</div><figcaption>{title}</figcaption></figure>'
    key = escape(job.result["key"])
    alt = f"{title} of {source_name}"
    return (
        f'<figure><img src="/media/preview/{key}/{file}" alt="{escape(alt)}" width="224" height="224">'
        f"<figcaption>{title}</figcaption></figure>"
    )


def _numbers(result: dict) -> list[tuple[str, str]]:
    def text(name: str, pattern: str) -> str:
        value = result.get(name)
        return "–" if value is None else format(value, pattern)

    boxes = [f"{box['phrase']} {box['confidence']:.2f}" for box in result.get("boxes", [])]
    seconds = sum((result.get("timings") or {}).values())
    return [
        ("Drop", text("drop", ".2f")),
        ("Residual", text("residual", ".2f")),
        ("Rank", text("rank", ",")),
        ("Probability", text("probability", ".3f")),
        ("Mask", text("area", ".1%")),
        ("Dilated", text("dilated_area", ".1%")),
        ("Boxes", escape(", ".join(boxes)) or "–"),
        ("Time", f"{seconds:.1f} s"),
    ]


def render_states(workspace: Workspace) -> str:
    """The sources by state under the active recipe, and why some failed, as HTML."""
    with workspace.read() as session:
        recipe = active_recipe(session)
        counts = state_counts(session, recipe)
        failures = _failures(session, recipe) if recipe and counts[State.FAILED] else []
    if not sum(counts.values()):
        return empty("No photos to run on", "Import photos first.", "sources", "Go to Sources")
    under = (
        f"Under recipe <code>{escape(recipe.hash[:12])}</code>. A changed setting makes another recipe with its own "
        "candidates; what is there stays."
        if recipe
        else "No recipe yet: the first run makes one from the settings above."
    )
    reasons = ""
    if failures:
        rows = [(escape(reason), f"{count:,}") for reason, count in failures]
        reasons = table("Most frequent failures", ("Reason", "Photos"), rows, numeric=(1,))
    return f'<p class="aside">{under}</p>{state_table(counts)}{reasons}'


def _failures(session: Session, recipe: Recipe) -> list[tuple[str, int]]:
    query = (
        select(Outcome.reason, func.count().label("photos"))
        .where(Outcome.recipe_id == recipe.id, Outcome.state == State.FAILED)
        .group_by(Outcome.reason)
        .order_by(func.count().desc())
        .limit(SHOWN_REASONS)
    )
    return [(reason, photos) for reason, photos in session.execute(query)]
