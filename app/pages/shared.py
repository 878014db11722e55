"""What the pages have in common: escaping, tables, messages, the job display, and how they are refreshed."""

from __future__ import annotations

import functools
import html
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import gradio as gr
from gradio.context import LocalContext
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.accounts import current_user
from db.jobs import UnknownJob
from db.models import Candidate, Job, JobState, SourceImage, State
from db.workspace import WorkspaceError
from exports.builds import BuildError
from exports.protocols import ExportError
from exports.rules import RuleError
from generation.recipe import RecipeError
from generation.registry import UnknownBackend

STATE_TEXT: dict[State, tuple[str, str]] = {
    State.PENDING: ("Pending", "waits for generation"),
    State.NO_DETECTION: ("No detection", "the object was not found"),
    State.MASK_TOO_SMALL: ("Mask too small", "next to nothing would be removed"),
    State.MASK_TOO_LARGE: ("Mask too large", "next to nothing would be left"),
    State.CANDIDATE: ("Candidate", "made, ready for review"),
    State.FAILED: ("Failed", "an error; the reason is kept"),
}
GRADE_TEXT = {"embedded": "embedded: not paper-grade", "paper": "paper-grade", "test": "for tests only"}

# A poll or a refresh: no queue, so no toast, no spinner and nothing that stays in memory.
QUIET: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
# What a person asked for: the default limit of 1 would make people wait for each other.
ACTION: dict[str, Any] = {"concurrency_limit": None, "show_progress": "hidden", "api_visibility": "private"}

JOBS_CHANGED_JS = "() => { window.dispatchEvent(new Event('jobs:changed')); return []; }"


class FormError(ValueError):
    """What was typed cannot be used; the message says what to type instead."""


PROJECT_ERRORS = (
    FormError,
    RecipeError,
    UnknownBackend,
    RuleError,
    BuildError,
    ExportError,
    UnknownJob,
    WorkspaceError,
)


@dataclass(frozen=True)
class Page:
    """How a page is brought up to date: ``refresh`` whenever it is opened, ``load`` once with the whole site.

    ``refresh`` is given the values of ``inputs``, so that what a person has chosen stays.
    """

    refresh: Callable[..., Any]
    outputs: Sequence[gr.components.Component]
    inputs: Sequence[gr.components.Component] = field(default=())
    load: Callable[[], Any] | None = None
    load_outputs: Sequence[gr.components.Component] = field(default=())


def escape(value: object) -> str:
    """Text for use inside HTML that gr.HTML shows. Also hides what its template engine would run as JavaScript."""
    text = html.escape(str(value), quote=True)
    return "".join(f"&#{ord(char)};" if char in "${}`\\" else char for char in text)


def markup(elem_id: str, **options: Any) -> gr.HTML:
    """A place for HTML made here, without Gradio's own styles around it."""
    return gr.HTML("", elem_id=elem_id, apply_default_css=False, padding=False, **options)


def heading(title: str, text: str) -> None:
    """A page's title and the sentence under it; both are constants of the code."""
    gr.HTML(
        f'<div class="page-head"><h2>{escape(title)}</h2><p>{escape(text)}</p></div>',
        apply_default_css=False,
        padding=False,
    )


def section(title: str) -> None:
    """The title of a part of a page."""
    gr.HTML(f'<h3 class="section-title">{escape(title)}</h3>', apply_default_css=False, padding=False)


def notice(text: str, *, tone: str = "info") -> str:
    """A message that screen readers speak. ``tone`` is info, good or bad."""
    role = "alert" if tone == "bad" else "status"
    return f'<p class="notice {tone}" role="{role}">{escape(text)}</p>' if text else ""


def empty(title: str, text: str, page: str = "", link: str = "") -> str:
    """What stands where there is nothing yet: what it would be, and where to go for it."""
    onward = f'<p><a class="button-link" href="#{page}">{escape(link)}</a></p>' if page else ""
    return f'<div class="empty-state"><h3>{escape(title)}</h3><p>{escape(text)}</p>{onward}</div>'


def table(
    caption: str,
    headers: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    numeric: Sequence[int] = (),
    footer: Sequence[str] = (),
) -> str:
    """An HTML table whose cells are HTML already. The first cell of a row is its header."""

    def cells(row: Sequence[str]) -> str:
        return "".join(
            f'<th scope="row">{cell}</th>' if index == 0 else f"<td{_numeric(index, numeric)}>{cell}</td>"
            for index, cell in enumerate(row)
        )

    head = "".join(
        f'<th scope="col"{_numeric(index, numeric)}>{escape(text)}</th>' for index, text in enumerate(headers)
    )
    body = "".join(f"<tr>{cells(row)}</tr>" for row in rows)
    foot = f"<tfoot><tr>{cells(footer)}</tr></tfoot>" if footer else ""
    label = escape(caption)
    return (
        f'<div class="table-frame" role="region" aria-label="{label}" tabindex="0"><table>'
        f"<caption>{label}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody>{foot}</table></div>"
    )


def _numeric(index: int, numeric: Sequence[int]) -> str:
    return ' class="number"' if index in numeric else ""


def state_table(counts: dict[State, int]) -> str:
    """The sources by state. The last line is their sum, which is the number of sources."""
    total = sum(counts.values())
    rows = [
        (
            f'<span class="dot {state.value}" aria-hidden="true"></span>{escape(name)}'
            f'<span class="aside">{escape(meaning)}</span>',
            f"{counts[state]:,}",
            f'<span class="share"><span style="width:{_percent(counts[state], total):.2f}%"></span></span>'
            f'<span class="percent">{_percent(counts[state], total):.1f}&nbsp;%</span>',
        )
        for state, (name, meaning) in STATE_TEXT.items()
    ]
    return table(
        "Sources by state",
        ("State", "Photos", "Share"),
        rows,
        numeric=(1, 2),
        footer=("All sources", f"{total:,}", ""),
    )


def _percent(part: int, whole: int) -> float:
    return 100 * part / whole if whole else 0.0


def source_image(source: SourceImage, alt: str, size: int = 192) -> str:
    """A photo's thumbnail."""
    address = f"/media/source/{source.id}/{source.sha256}.jpg?size={size}"
    return f'<img loading="lazy" decoding="async" src="{address}" alt="{escape(alt)}" width="160" height="160">'


def candidate_image(candidate: Candidate, alt: str, name: str = "thumbnail.jpg") -> str:
    """One of a candidate's images."""
    address = f"/media/candidate/{candidate.id}/{candidate.result_sha256}/{name}"
    return f'<img loading="lazy" decoding="async" src="{address}" alt="{escape(alt)}" width="160" height="160">'


def badge(grade: str) -> str:
    """A backend's grade in words."""
    return f'<span class="badge {grade}">{GRADE_TEXT[grade]}</span>'


def job_display(*kinds: str, elem_id: str, limit: int = 1) -> gr.HTML:
    """The live display of the newest ``limit`` jobs of those kinds (all kinds without one).

    It fires ``submit`` when a job that it shows has ended. The template holds no data: static/jobs.js
    fetches it, so it is there again after a reload.
    """
    return gr.HTML(
        html_template=f'<div class="jobs" data-kinds="{" ".join(kinds)}" data-limit="{limit}"></div>',
        js_on_load="import('/static/jobs.js').then((jobs) => jobs.mount(element.querySelector('.jobs'), trigger));",
        apply_default_css=False,
        padding=False,
        elem_id=elem_id,
    )


def action(work: Callable[..., str]) -> Callable[..., str]:
    """Make a handler that returns a sentence into one that returns a notice; a named error becomes a notice too."""

    @functools.wraps(work)
    def wrapped(*arguments: Any) -> str:
        try:
            return notice(work(*arguments), tone="good")
        except PROJECT_ERRORS as error:
            return notice(str(error), tone="bad")

    return wrapped


def asker() -> str:
    """The name of the user whose event a handler is answering: who a job or a build is made by."""
    return current_user(LocalContext.request.get().request).name


def optional_number_box(label: str, *, placeholder: str = "none", **options: Any) -> gr.Textbox:
    """A field for a number that may be left empty; read it with :func:`optional_number`.

    Not ``gr.Number``: an empty one says 0 to an event that comes while the page is still loading.
    """
    return gr.Textbox("", label=label, placeholder=placeholder, max_lines=1, **options)


def optional_number(text: str | None, label: str) -> float | None:
    """The number in a field, None when it is empty. :class:`FormError` names the field otherwise."""
    words = (text or "").strip()
    if not words:
        return None
    try:
        return float(words)
    except ValueError:
        raise FormError(f"{label}: {words!r} is not a number; write one such as 0.5, or leave it empty.") from None


def last_job(session: Session, kind: str, state: JobState = JobState.DONE) -> Job | None:
    """The newest job of that kind in that state."""
    query = select(Job).where(Job.kind == kind, Job.state == state).order_by(Job.id.desc()).limit(1)
    return session.scalar(query)


def file_size(count: int) -> str:
    """Bytes in the unit a person would use: ``3.4 MB``."""
    size = float(count)
    for unit in ("bytes", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"
