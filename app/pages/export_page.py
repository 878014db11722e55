"""Export: write a frozen build as an archive, and find the archives written before."""

from __future__ import annotations

from pathlib import Path

import gradio as gr
from sqlalchemy import select

from app.job_routes import archive_of
from app.pages.shared import (
    ACTION,
    JOBS_CHANGED_JS,
    QUIET,
    FormError,
    Page,
    action,
    asker,
    empty,
    escape,
    file_size,
    heading,
    job_display,
    markup,
    section,
    table,
)
from db.jobs import enqueue
from db.models import Job, JobState
from db.workspace import Workspace
from exports.builds import build_label, find_build, list_builds
from exports.registry import EXPORTERS
from exports.rules import Rule

SHOWN_ARCHIVES = 20


def export_page(workspace: Workspace) -> Page:
    """Add the page to the open tab."""
    heading("Export", "Write a frozen build as an archive. The same build gives the same bytes every time.")
    nothing = markup("export-nothing")
    with gr.Row():
        build = gr.Dropdown([], value=None, label="Build", info="Frozen on the Build page", elem_id="export-build")
        formats = [(exporter.label, name) for name, exporter in EXPORTERS.items()]
        archive_format = gr.Dropdown(formats, value=formats[0][1], label="Format", info="How the archive is laid out")
    facts = markup("export-facts")
    folder = gr.Textbox(
        str(workspace.root / "archives"),
        label="Output folder",
        info="On this machine; made if missing. Archives inside the workspace can be downloaded here.",
    )
    with gr.Row(elem_classes="buttons"):
        start = gr.Button("Export", variant="primary", elem_id="export-start", elem_classes="short")
    message = markup("export-message")
    jobs = job_display("export", elem_id="export-jobs")
    section("Archives")
    archives = markup("export-archives")

    @action
    def export(reference: str | None, chosen_format: str, out: str) -> str:
        if not reference:
            raise FormError("Choose a build first; if there is none, freeze one on the Build page.")
        target = _output_folder(out)
        with workspace.write() as session:
            label = build_label(find_build(session, reference))
            params = {"build": reference, "format": chosen_format, "out": str(target)}
            job = enqueue(session, "export", params, created_by=asker())
        return f"Job {job.id} exports {label} to {target}."

    def refresh(chosen: str | None) -> tuple[object, ...]:
        with workspace.read() as session:
            builds = list_builds(session)
        choices = [(f"{build_label(b)}: {b.item_count:,} images", build_label(b)) for b in builds]
        known = [build_label(b) for b in sorted(builds, key=lambda b: b.id)]
        value = chosen if chosen in known else next(reversed(known), None)
        shown = gr.Dropdown(choices=choices, value=value)
        return "" if builds else _no_builds(), shown, render_facts(workspace, value), render_archives(workspace)

    build.input(lambda chosen: render_facts(workspace, chosen), build, facts, **ACTION)
    start.click(export, [build, archive_format, folder], message, **ACTION).then(None, js=JOBS_CHANGED_JS)
    jobs.submit(lambda: render_archives(workspace), None, archives, **QUIET)
    return Page(refresh, [nothing, build, facts, archives], inputs=[build])


def render_facts(workspace: Workspace, reference: str | None) -> str:
    """What is in a build, as HTML; nothing without one."""
    if not reference:
        return ""
    with workspace.read() as session:
        build = find_build(session, reference)
    rule = Rule.from_json(build.rule).describe()
    return (
        f'<p class="rule"><strong>{escape(build_label(build))}: {build.item_count:,} images.</strong> {escape(rule)} '
        f'<span class="aside">Content hash <code>{escape(build.content_hash[:16])}</code></span></p>'
    )


def render_archives(workspace: Workspace) -> str:
    """The archives that export jobs have written, newest first, as HTML."""
    query = (
        select(Job)
        .where(Job.kind == "export", Job.state == JobState.DONE)
        .order_by(Job.id.desc())
        .limit(SHOWN_ARCHIVES)
    )
    with workspace.read() as session:
        jobs = list(session.scalars(query))
    if not jobs:
        return empty("No archives yet", "A finished export shows its path, size, sha256 and a link to download it.")
    return table(
        "Archives written, newest first",
        ("Build", "Images", "Size", "File", "sha256", "Download"),
        [_archive_row(workspace, job) for job in jobs],
        numeric=(1, 2),
    )


def _archive_row(workspace: Workspace, job: Job) -> tuple[str, ...]:
    result = job.result or {}
    path = Path(str(result.get("path", "")))
    if archive_of(workspace, job) is not None:
        link = f'<a href="/download/{job.id}" download>Download<span class="unseen"> {escape(path.name)}</span></a>'
    elif path.is_file():
        link = '<span class="aside">outside the workspace</span>'
    else:
        link = '<span class="aside">moved or deleted</span>'
    return (
        escape(job.params.get("build", "")),
        f"{int(result.get('images', 0)):,}",
        file_size(int(result.get("bytes", 0))),
        f'<code class="long">{escape(path)}</code>',
        f'<code class="long">{escape(result.get("sha256", ""))}</code>',
        link,
    )


def _no_builds() -> str:
    return empty("Nothing to export yet", "An archive is made from a frozen build.", "build", "Go to Build")


def _output_folder(text: str) -> Path:
    if not text.strip():
        raise FormError("Name the folder the archive is to be written to.")
    path = Path(text.strip()).expanduser()
    if not path.is_absolute():
        raise FormError(f"Give the output folder's whole path, starting with /; {text.strip()!r} is relative.")
    if path.exists() and not path.is_dir():
        raise FormError(f"{path} is a file; name a folder.")
    return path
