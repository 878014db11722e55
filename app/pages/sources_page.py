"""Sources: import photos, see what was skipped and why, and look through what is there."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import gradio as gr
from sqlalchemy import ColumnElement, and_, func, or_, select
from sqlalchemy.orm import Session

from app.pages.shared import (
    ACTION,
    JOBS_CHANGED_JS,
    QUIET,
    STATE_TEXT,
    FormError,
    Page,
    action,
    asker,
    empty,
    escape,
    heading,
    job_display,
    last_job,
    markup,
    section,
    source_image,
    table,
)
from db.jobs import active_job, enqueue
from db.models import ImageClass, Outcome, SourceImage, State
from db.queries import active_recipe, source_count
from db.workspace import Workspace

PAGE_SIZE = 40
SHOWN_SKIPPED = 100
LAYOUTS = [
    ("One folder a class, named by its wnid (ImageFolder)", "imagefolder"),
    ("One flat folder of ILSVRC2012_val_*.JPEG with a ground-truth file", "flat"),
]
SPLITS = [("val: test sets are made from it", "val"), ("train: training data, never mixed with val", "train")]
ANY_STATE = "any"


@dataclass(frozen=True)
class GridPage:
    """One page of photos: its HTML, and the id to go on after (None on the last page)."""

    html: str
    next_after: int | None


def sources_page(workspace: Workspace) -> Page:
    """Add the page to the open tab."""
    heading("Sources", "The labelled photos the set is made from. They stay where they are and are only read.")
    with gr.Row(equal_height=False):
        with gr.Column(scale=3):
            layout = gr.Radio(LAYOUTS, value="imagefolder", label="Layout of the folder")
            root = gr.Textbox("", label="Folder of photos", placeholder="/data/imagenet/val", elem_id="import-root")
            ground_truth = gr.Textbox(
                "",
                label="Ground-truth file (flat layout only)",
                placeholder="/data/imagenet/LOC_val_solution.csv",
                info="LOC_val_solution.csv, or the development kit's ILSVRC2012_validation_ground_truth.txt",
            )
            split = gr.Radio(SPLITS, value="val", label="Split")
            with gr.Row(elem_classes="buttons"):
                start = gr.Button("Import", variant="primary", elem_id="import-start", elem_classes="short")
                demo = gr.Button("Import the demo photos", elem_id="import-demo", elem_classes="short")
        with gr.Column(scale=2):
            message = markup("import-message")
            jobs = job_display("import", elem_id="import-jobs")
            summary = markup("import-summary")
    section("Photos")
    with gr.Row(elem_classes="filters"):
        class_text = gr.Textbox(
            "", label="Class: name, wnid or index", placeholder="any; Enter", elem_id="sources-class"
        )
        states = [("Any state", ANY_STATE), *((name, state.value) for state, (name, _) in STATE_TEXT.items())]
        state = gr.Dropdown(states, value=ANY_STATE, label="State", elem_id="sources-state")
    grid = markup("sources-grid")
    with gr.Row(elem_classes="buttons"):
        back = gr.Button("Previous page", interactive=False, elem_classes="short", elem_id="sources-back")
        forward = gr.Button("Next page", interactive=False, elem_classes="short", elem_id="sources-forward")
    # The ids after which the pages up to the shown one begin, and where the next one would.
    trail = gr.State([0])
    following = gr.State(None)
    shown = [grid, back, forward, trail, following]

    @action
    def import_folder(layout: str, root: str, ground_truth: str, split: str) -> str:
        params = _import_params(layout, root, ground_truth, split)
        return _enqueue_import(workspace, params)

    @action
    def import_demo() -> str:
        return _enqueue_import(workspace, {"layout": "demo", "root": None, "ground_truth": None, "split": "val"})

    def show(class_text: str, state: str, trail: list[int]) -> tuple[object, ...]:
        page = render_grid(workspace, class_text, state, trail[-1])
        more = page.next_after is not None
        return page.html, gr.Button(interactive=len(trail) > 1), gr.Button(interactive=more), trail, page.next_after

    def first(class_text: str, state: str) -> tuple[object, ...]:
        return show(class_text, state, [0])

    def go_back(class_text: str, state: str, trail: list[int]) -> tuple[object, ...]:
        return show(class_text, state, trail[:-1] or [0])

    def go_on(class_text: str, state: str, trail: list[int], following: int | None) -> tuple[object, ...]:
        return show(class_text, state, trail if following is None else [*trail, following])

    def refresh(class_text: str, state: str, trail: list[int]) -> tuple[object, ...]:
        return render_summary(workspace), *show(class_text, state, trail)

    start.click(import_folder, [layout, root, ground_truth, split], message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    demo.click(import_demo, None, message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    class_text.submit(first, [class_text, state], shown, **ACTION)
    state.input(first, [class_text, state], shown, **ACTION)
    back.click(go_back, [class_text, state, trail], shown, **ACTION)
    forward.click(go_on, [class_text, state, trail, following], shown, **ACTION)
    place = [class_text, state, trail]
    jobs.submit(refresh, place, [summary, *shown], **QUIET)
    return Page(refresh, [summary, *shown], inputs=place)


def render_summary(workspace: Workspace) -> str:
    """What the last finished import found, added and skipped, as HTML."""
    with workspace.read() as session:
        job = last_job(session, "import")
    if job is None or not job.result:
        return empty(
            "Nothing imported yet",
            "Name a folder and press Import, or press Import the demo photos: twenty labelled photos that ship with "
            "this tool.",
        )
    result = job.result
    skipped = [(item["path"], item["message"]) for item in result["skipped"]]
    facts = (
        f"<p>Job {job.id} found {int(result['found']):,} files: <strong>{int(result['added']):,} added</strong>, "
        f"{int(result['already_there']):,} there already, {len(skipped):,} skipped.</p>"
    )
    if not skipped:
        return f'<section class="card"><h3>Last import</h3>{facts}</section>'
    rows = [tuple(escape(value) for value in row) for row in skipped[:SHOWN_SKIPPED]]
    rest = len(skipped) - len(rows)
    more = f'<p class="aside">… and {rest:,} more, in the job\'s result.</p>' if rest else ""
    files = table("Skipped files and why", ("File", "Why"), rows)
    return f'<section class="card"><h3>Last import</h3>{facts}{files}{more}</section>'


def render_grid(workspace: Workspace, class_text: str, state: str, after: int) -> GridPage:
    """One page of thumbnails as HTML; the photos whose id comes after ``after``."""
    with workspace.read() as session:
        total = source_count(session)
        rows = _rows(session, class_text, state, after)
    if not total:
        return GridPage(empty("No photos yet", "Import a folder or the demo photos above; they appear here."), None)
    if not rows:
        return GridPage(
            empty("No photo matches", "Clear the class field and press Enter, or choose another state."), None
        )
    page = rows[:PAGE_SIZE]
    items = "".join(
        f"<li>{source_image(source, f'{source.name}: {source.image_class.name}')}"
        f"<strong>{escape(source.image_class.name)}</strong>"
        f'<span class="aside" title="{escape(source.name)}">{escape(source.name)}</span>'
        f'<span class="chip {found.value}">{escape(STATE_TEXT[found][0])}</span></li>'
        for source, found in page
    )
    return GridPage(
        f'<ul class="grid" aria-label="Photos">{items}</ul>', page[-1][0].id if len(rows) > PAGE_SIZE else None
    )


def _rows(session: Session, class_text: str, state: str, after: int) -> list[tuple[SourceImage, State]]:
    recipe = active_recipe(session)
    outcome = and_(Outcome.source_id == SourceImage.id, Outcome.recipe_id == (recipe.id if recipe else 0))
    query = select(SourceImage, Outcome.state).outerjoin(Outcome, outcome).where(SourceImage.id > after)
    if class_text.strip():
        query = query.where(SourceImage.class_index.in_(select(ImageClass.class_index).where(_class(class_text))))
    if state == State.PENDING:
        query = query.where(Outcome.state.is_(None))
    elif state != ANY_STATE:
        query = query.where(Outcome.state == State(state))
    query = query.order_by(SourceImage.id).limit(PAGE_SIZE + 1)
    return [(source, found or State.PENDING) for source, found in session.execute(query)]


def _class(text: str) -> ColumnElement[bool]:
    text = text.strip().lower()
    if text.isascii() and text.isdigit():
        return ImageClass.class_index == int(text[:9])
    return or_(func.lower(ImageClass.name).contains(text, autoescape=True), ImageClass.wnid == text)


def _import_params(layout: str, root: str, ground_truth: str, split: str) -> dict:
    folder = _existing(root, "Name the folder of photos, for example /data/imagenet/val.")
    if not folder.is_dir():
        raise FormError(f"{folder} is a file; name the folder the photos are in.")
    truth = None
    if layout == "flat":
        truth = _existing(ground_truth, "The flat layout needs its ground-truth file; name it too.")
        if not truth.is_file():
            raise FormError(f"{truth} is a folder; name the ground-truth file itself.")
    return {
        "layout": layout,
        "root": str(folder),
        "ground_truth": str(truth) if truth else None,
        "split": split,
    }


def _existing(text: str, missing: str) -> Path:
    if not text.strip():
        raise FormError(missing)
    path = Path(text.strip()).expanduser()
    if not path.is_absolute():
        raise FormError(f"Give the whole path, starting with /; {text.strip()!r} is relative.")
    if not path.exists():
        raise FormError(f"There is no {path} on this machine; check the spelling and that the disk is mounted.")
    return path.resolve()


def _enqueue_import(workspace: Workspace, params: dict) -> str:
    with workspace.write() as session:
        running = active_job(session, "import")
        if running is not None:
            raise FormError(f"Job {running.id} is importing already; wait for it or cancel it first.")
        job = enqueue(session, "import", params, created_by=asker())
    return f"Job {job.id} imports the photos."
