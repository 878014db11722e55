"""Archives as JSON: what can be chosen, writing one, going on with one, checking one, and those that were written."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Literal

from fastapi import APIRouter, Depends, HTTPException
from fastapi import Path as PathParameter
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.job_routes import archive_files, archive_of
from app.plain_route import MAX_ID, PlainErrorRoute
from app.reviewer import Reviewer, reviewer_dependency
from db.jobs import ENDED, enqueue
from db.models import Job, JobState, Role
from db.workspace import Workspace
from exports.builds import UnknownBuild, build_label, find_build, list_builds
from exports.id_side import ID_SIDE_FORMATS
from exports.options import GIBIBYTE, ExportOptions
from exports.protocols import ExportError
from exports.registry import EXPORTERS
from exports.rules import Rule

SHOWN = 20
LOOKED_THROUGH = 500
MAX_FAULTS = 8
MAX_PART_GB = 1024


class OptionsIn(BaseModel):
    """See :class:`exports.options.ExportOptions`; ``part_gb`` is in GiB."""

    model_config = ConfigDict(extra="forbid", strict=True)
    images: Literal["png", "jpeg"] = "png"
    quality: int = 95
    part: Literal["", "val", "test"] = ""
    part_gb: float = Field(2.0, gt=0, le=MAX_PART_GB)
    owner: str = Field("", max_length=100)
    title: str = Field("", max_length=100)
    id_side: bool = False


class ExportIn(BaseModel):
    """What to write and where; ``out`` is a folder's whole path on the server's machine."""

    model_config = ConfigDict(extra="forbid", strict=True)
    build: str = Field(max_length=60)
    format: str = Field(max_length=40)
    out: str = Field(max_length=4096)
    options: OptionsIn = OptionsIn()


class StartedOut(BaseModel):
    """The job that was enqueued, and a sentence about it."""

    job_id: int
    sentence: str


class FormatOut(BaseModel):
    """A format; ``id_side`` says whether it can hold the ID side."""

    name: str
    label: str
    about: str
    id_side: bool


class BuildChoiceOut(BaseModel):
    """A frozen build; ``parts`` counts its members in val and test."""

    label: str
    images: int
    rule_in_words: str
    content_hash: str
    parts: dict[str, int]


class ExportChoicesOut(BaseModel):
    """What the page offers; builds newest first."""

    builds: list[BuildChoiceOut]
    formats: list[FormatOut]
    folder: str


class FileOut(BaseModel):
    """A file that can be fetched."""

    name: str
    bytes: int
    url: str


class CheckOut(BaseModel):
    """The newest check of an archive. ``ok`` is None while it has not ended well; ``faults`` are the first found."""

    job_id: int
    state: JobState
    ok: bool | None
    looked_at: list[str]
    faults: list[str]
    error: str
    finished_at: dt.datetime | None


class ArchiveOut(BaseModel):
    """A written archive. ``place`` says whether it can be fetched here, lies elsewhere on the machine, or is gone."""

    job_id: int
    build: str
    format: str
    said: str
    images: int
    bytes: int
    sha256: str
    path: str
    place: Literal["here", "elsewhere", "gone"]
    files: list[FileOut]
    check: CheckOut | None
    finished_at: dt.datetime | None


class StoppedOut(BaseModel):
    """An export that was cancelled or failed and has not been gone on with."""

    job_id: int
    build: str
    format: str
    said: str
    state: JobState
    done: int
    total: int | None
    error: str
    finished_at: dt.datetime | None


class ExportsOut(BaseModel):
    """Both newest first."""

    archives: list[ArchiveOut]
    stopped: list[StoppedOut]


def export_router(workspace: Workspace, current_user: Callable[..., int]) -> APIRouter:
    """The routes under ``/api/exports``, for admins; ``current_user`` gives the user's id (a FastAPI dependency)."""
    router = APIRouter(prefix="/api/exports", route_class=PlainErrorRoute)
    asking = Depends(_admin(reviewer_dependency(workspace, current_user)))
    number = PathParameter(ge=1, le=MAX_ID)

    @router.get("/choices")
    def choices(who: Reviewer = asking) -> ExportChoicesOut:
        with workspace.read() as session:
            builds = sorted(list_builds(session), key=lambda build: build.id, reverse=True)
        return ExportChoicesOut(
            builds=[
                BuildChoiceOut(
                    label=build_label(build),
                    images=build.item_count,
                    rule_in_words=Rule.from_json(build.rule).describe(),
                    content_hash=build.content_hash,
                    parts=build.summary.get("parts", {}),
                )
                for build in builds
            ],
            formats=[
                FormatOut(name=name, label=one.label, about=one.about, id_side=name in ID_SIDE_FORMATS)
                for name, one in EXPORTERS.items()
            ],
            folder=str(workspace.root / "archives"),
        )

    @router.get("")
    def exports(who: Reviewer = asking) -> ExportsOut:
        with workspace.read() as session:
            return _exports(workspace, session)

    @router.post("")
    def export(given: ExportIn, who: Reviewer = asking) -> StartedOut:
        try:
            target = output_folder(given.out)
            options = _options(given)
            with workspace.write() as session:
                label = build_label(find_build(session, given.build))
                params = {"build": label, "format": given.format, "out": str(target), "options": options}
                job = enqueue(session, "export", params, created_by=who.name)
        except UnknownBuild as error:
            raise HTTPException(404, str(error)) from error
        except ExportError as error:
            raise HTTPException(422, str(error)) from error
        return StartedOut(job_id=job.id, sentence=f"Job {job.id} exports {label} to {target}.")

    @router.post("/{job_id}/again")
    def again(job_id: int = number, who: Reviewer = asking) -> StartedOut:
        with workspace.write() as session:
            job = _export_job(session, job_id)
            if job.state not in (JobState.CANCELLED, JobState.FAILED):
                raise HTTPException(409, f"Job {job_id} was not stopped; there is nothing to go on with.")
            made = enqueue(session, "export", job.params, created_by=who.name)
        return StartedOut(job_id=made.id, sentence=f"Job {made.id} goes on where job {job_id} stopped.")

    @router.post("/{job_id}/check")
    def check(job_id: int = number, who: Reviewer = asking) -> StartedOut:
        with workspace.write() as session:
            job = _export_job(session, job_id)
            path = (job.result or {}).get("path")
            if job.state != JobState.DONE or not path or not Path(path).exists():
                raise HTTPException(404, f"Job {job_id} left no archive that is still there; export the build again.")
            made = enqueue(session, "check", {"export": job_id, "path": path}, created_by=who.name)
        return StartedOut(job_id=made.id, sentence=f"Job {made.id} checks {Path(path).name}.")

    return router


def output_folder(text: str) -> Path:
    """The folder that was typed. Raises :class:`ExportError` saying what to type instead."""
    if not text.strip():
        raise ExportError("Name the folder the archive is to be written to.")
    path = Path(text.strip()).expanduser()
    if not path.is_absolute():
        raise ExportError(f"Give the output folder's whole path, starting with /; {text.strip()!r} is relative.")
    if path.exists() and not path.is_dir():
        raise ExportError(f"{path} is a file; name a folder.")
    return path


def _admin(reviewer: Callable[..., Reviewer]) -> Callable[..., Reviewer]:
    def allowed(who: Reviewer = Depends(reviewer)) -> Reviewer:  # noqa: B008 - how FastAPI declares a dependency
        who.check(Role.ADMIN, "An export")
        return who

    return allowed


def _options(given: ExportIn) -> dict:
    if given.format not in EXPORTERS:
        raise ExportError(f"There is no archive format {given.format!r}. Choose one of: {', '.join(EXPORTERS)}.")
    if given.options.id_side and given.format not in ID_SIDE_FORMATS:
        raise ExportError(f"The ID side is written as {' or '.join(ID_SIDE_FORMATS)}, not as {given.format}.")
    values = given.options.model_dump()
    options = ExportOptions(part_bytes=round(values.pop("part_gb") * GIBIBYTE), **values)
    return {name: value for name, value in asdict(options).items() if name != "audit"}


def _export_job(session: Session, job_id: int) -> Job:
    job = session.get(Job, job_id)
    if job is None or job.kind != "export":
        raise HTTPException(404, f"There is no export with the number {job_id}.")
    return job


def _exports(workspace: Workspace, session: Session) -> ExportsOut:
    query = select(Job).where(Job.kind.in_(("export", "check")), Job.state.in_(ENDED) | (Job.kind == "check"))
    checks: dict[int, Job] = {}
    archives: dict[str, Job] = {}
    stopped: dict[tuple, Job] = {}
    gone_on: set[tuple] = set()
    for job in session.scalars(query.order_by(Job.id.desc()).limit(LOOKED_THROUGH)):
        if job.kind == "check":
            checks.setdefault(int(job.params.get("export", 0)), job)
        elif job.state == JobState.DONE:
            gone_on.add(_same(job))
            archives.setdefault(str((job.result or {}).get("path", "")), job)
        elif _same(job) not in gone_on:
            stopped.setdefault(_same(job), job)
    running = {_same(job) for job in session.scalars(select(Job).where(Job.kind == "export", Job.state.not_in(ENDED)))}
    return ExportsOut(
        archives=[_archive_out(workspace, job, checks.get(job.id)) for job in list(archives.values())[:SHOWN]],
        stopped=[_stopped_out(job) for same, job in list(stopped.items())[:SHOWN] if same not in running],
    )


def _same(job: Job) -> tuple:
    """What makes two jobs the same export."""
    options = sorted(job.params.get("options", {}).items())
    return job.params.get("build"), job.params.get("format"), job.params.get("out"), str(options)


def _archive_out(workspace: Workspace, job: Job, check: Job | None) -> ArchiveOut:
    result = job.result or {}
    path = Path(str(result.get("path", "")))
    archive = archive_of(workspace, job)
    if archive is not None:
        files = [FileOut(name=archive.name, bytes=archive.stat().st_size, url=f"/download/{job.id}")]
    else:
        files = [
            FileOut(name=name, bytes=file.stat().st_size, url=f"/download/{job.id}/{name}")
            for name, file in archive_files(workspace, job).items()
        ]
    return ArchiveOut(
        job_id=job.id,
        build=str(job.params.get("build", "")),
        format=str(job.params.get("format", "")),
        said=_said(job),
        images=int(result.get("images", 0)),
        bytes=int(result.get("bytes", 0)),
        sha256=str(result.get("sha256", "")),
        path=str(path),
        place="here" if files else "elsewhere" if path.exists() else "gone",
        files=files,
        check=None if check is None else _check_out(check),
        finished_at=job.finished_at,
    )


def _stopped_out(job: Job) -> StoppedOut:
    return StoppedOut(
        job_id=job.id,
        build=str(job.params.get("build", "")),
        format=str(job.params.get("format", "")),
        said=_said(job),
        state=job.state,
        done=job.done,
        total=job.total,
        error=job.error,
        finished_at=job.finished_at,
    )


def _said(job: Job) -> str:
    """The options that are not the usual ones, in words."""
    options = job.params.get("options", {})
    words = []
    if options.get("id_side"):
        words.append("ID side")
    if options.get("part"):
        words.append(f"{options['part']} part")
    if options.get("images") == "jpeg":
        words.append(f"JPEG {options.get('quality', 95)}")
    return ", ".join(words)


def _check_out(job: Job) -> CheckOut:
    result = job.result if job.state == JobState.DONE and job.result else {}
    findings = result.get("findings", [])
    return CheckOut(
        job_id=job.id,
        state=job.state,
        ok=result.get("ok"),
        looked_at=[f"{one['what']}: {one['looked_at']}" for one in findings if one["looked_at"]],
        faults=[fault for one in findings for fault in one["faults"]][:MAX_FAULTS],
        error=job.error,
        finished_at=job.finished_at,
    )
