"""Generate, the long run: which photos it takes, how it uses the machine, what the last one did."""

from __future__ import annotations

from dataclasses import dataclass

import gradio as gr
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.generate_job import generate_params, run_facts
from app.pages.shared import FormError, asker, escape, last_job, optional_number, optional_number_box
from db.jobs import active_job, enqueue
from db.models import FewShotSet
from db.queries import source_count
from db.workspace import Workspace
from generation.classes import UnknownClass, find_classes
from generation.recipe import RecipeOptions

LIMIT = "At most this many photos"
BATCH = "Images at once"
CLASSES = "Only these classes"
EVERY = "all"
FEWSHOT = "few-shot set "
SPLITS = [("All", EVERY), ("val: test sets are made of them", "val"), ("train: training data", "train")]


@dataclass(frozen=True)
class RunForm:
    """The controls; :meth:`inputs` in the order of :func:`enqueue_generate`'s arguments."""

    limit: gr.Textbox
    photos: gr.Dropdown
    classes: gr.Textbox
    redo_failed: gr.Checkbox
    only_missing: gr.Checkbox
    low_memory: gr.Checkbox
    batch: gr.Textbox
    compiled: gr.Checkbox
    start: gr.Button

    def inputs(self) -> list[gr.components.Component]:
        return [
            self.limit,
            self.photos,
            self.classes,
            self.redo_failed,
            self.only_missing,
            self.low_memory,
            self.batch,
            self.compiled,
        ]


def run_form() -> RunForm:
    """Add the controls to the page."""
    with gr.Row(elem_classes="filters"):
        limit = optional_number_box(LIMIT, placeholder="all", elem_id="run-limit")
        redo_failed = gr.Checkbox(False, label="Try the failed ones again", elem_classes="beside")
        start = gr.Button("Run all", variant="primary", elem_id="run-start", elem_classes="short")
    with gr.Accordion("Which photos, and how", open=False, elem_id="run-more", elem_classes="folded"):
        with gr.Row():
            photos = gr.Dropdown(
                SPLITS,
                value=EVERY,
                label="Photos",
                info="By split or few-shot set",
                filterable=False,
                elem_id="run-photos",
            )
            classes = gr.Textbox(
                "", label=CLASSES, placeholder="all", info="wnids or indices, with commas", elem_id="run-classes"
            )
            only_missing = gr.Checkbox(
                False, label="Only photos without a candidate", info="Under any recipe", elem_id="run-missing"
            )
        with gr.Row():
            batch = optional_number_box(
                BATCH, placeholder="auto", info="For every model; a GPU finds its own", elem_id="run-batch"
            )
            low_memory = gr.Checkbox(
                False, label="Low memory", info="In passes, for GPUs of 12 GB; same result", elem_id="run-low-memory"
            )
            compiled = gr.Checkbox(
                False, label="Compile the models", info="Slow start; for long runs on a GPU", elem_id="run-compile"
            )
    return RunForm(limit, photos, classes, redo_failed, only_missing, low_memory, batch, compiled, start)


def photo_choices(session: Session) -> list[tuple[str, str]]:
    """The splits, and the few-shot sets there are, newest first."""
    sets = session.scalars(select(FewShotSet).order_by(FewShotSet.id.desc()))
    return [*SPLITS, *((f"Few-shot set {s.id}: {s.shots} shots, seed {s.seed}", f"{FEWSHOT}{s.id}") for s in sets)]


def enqueue_generate(
    workspace: Workspace,
    options: RecipeOptions,
    limit: str,
    photos: str | None,
    classes: str,
    redo_failed: bool,
    only_missing: bool,
    low_memory: bool,
    batch: str,
    compiled: bool,
) -> str:
    """Enqueue the job and say so. Raises :class:`FormError` for a field that cannot be used."""
    photos = photos or EVERY
    in_set = photos.startswith(FEWSHOT)
    params = generate_params(
        options,
        _whole(limit, LIMIT, "all"),
        _classes(classes),
        redo_failed,
        only_missing=only_missing,
        split=None if in_set or photos == EVERY else photos,
        fewshot_set=int(photos.removeprefix(FEWSHOT)) if in_set else None,
        low_memory=low_memory,
        batch=_whole(batch, BATCH, "what the machine finds") or "auto",
        compiled=compiled,
    )
    with workspace.write() as session:
        if not source_count(session):
            raise FormError("There are no photos yet; import some on the Sources page first.")
        running = active_job(session, "generate")
        if running is not None:
            raise FormError(f"Job {running.id} is generating already; wait for it or cancel it first.")
        job = enqueue(session, "generate", params, created_by=asker())
    return f"Job {job.id} makes the candidates. The page may be closed; the work goes on."


def render_last_run(workspace: Workspace) -> str:
    """What the last finished run did, as HTML; nothing before the first."""
    with workspace.read() as session:
        job = last_job(session, "generate")
    if job is None or not job.result or not job.result["made"]:
        return ""
    facts = "".join(
        f"<div><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>" for name, value in run_facts(job.result)
    )
    return (
        f'<section class="card" aria-label="The last run"><h3>The last run <span class="aside">job {job.id}</span></h3>'
        f'<dl class="numbers">{facts}</dl></section>'
    )


def _whole(text: str, label: str, empty: str) -> int | None:
    number = optional_number(text, label)
    if number is not None and (number < 1 or number != int(number)):
        raise FormError(f"{label}: give a whole number from 1 up, or leave it empty for {empty}.")
    return None if number is None else int(number)


def _classes(text: str) -> list[int] | None:
    try:
        return find_classes(text) if text.strip() else None
    except UnknownClass as error:
        raise FormError(f"{CLASSES}: {error}") from error
