"""Sending a planned upload through the kaggle package, and comparing what arrived with what was sent."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from db.progress import NoProgress, Progress
from exports.publishing.kaggle_api import ServiceFailed, connect, service_errors
from exports.publishing.plan import MAX_NAMED, PlannedFile, PublishError, UploadPlan

if TYPE_CHECKING:
    from kaggle.api.kaggle_api_extended import KaggleApi

PAGE_SIZE = 200
POLL_SECONDS = 10.0
READY, FAILED = "ready", ("failed", "deleted")


class StillProcessing(PublishError):
    """Everything was sent, and the service has not finished unpacking it."""


class NotWhatWasSent(PublishError):
    """The service lists other files, or other sizes, than those that were sent."""


@dataclass(frozen=True)
class Published:
    """Where it is, how many of the listed files were compared, and the tags the service does not know."""

    url: str
    files: int
    invalid_tags: tuple[str, ...] = ()


def publish(
    plan: UploadPlan,
    *,
    public: bool = False,
    version_notes: str | None = None,
    wait_seconds: float = 600.0,
    progress: Progress | None = None,
) -> Published:
    """Send the plan as a new dataset, or with ``version_notes`` as a new version of it, wait for it and verify it.

    Uploads that broke off are gone on with by the same call (the package remembers them, below the system's temporary
    folder, for six days). Raises :class:`~exports.publishing.kaggle_api.NoToken`, :class:`StillProcessing`,
    :class:`~exports.publishing.kaggle_api.ServiceFailed`, :class:`NotWhatWasSent` and, through ``progress``,
    :class:`db.progress.Cancelled`.
    """
    progress = progress or NoProgress()
    sent = iter(range(len(plan.files) + 1))
    api = connect(lambda name: progress.update(next(sent, 0), len(plan.files), f"sending {name}"))
    before = _state(api, plan)
    if before is not None and version_notes is None:
        raise PublishError(
            f"{plan.ref} is there already. Send a new version with --version NOTES, or look whether it is complete "
            "with --verify."
        )
    if before is None and version_notes is not None:
        raise PublishError(f"{plan.ref} is not there yet, or is not yours; leave --version out to make it.")
    with service_errors(f"making {plan.ref}"):
        if version_notes is None:
            answer = api.dataset_create_new(str(plan.folder), public=public, quiet=True)
        else:
            answer = api.dataset_create_version(str(plan.folder), version_notes, quiet=True)
    if answer.error or (answer.status or "").lower() != "ok":
        raise ServiceFailed(f"Kaggle did not make {plan.ref}: {answer.error or answer.status or 'no reason given'}.")
    files = _verify(api, plan, wait_seconds, progress, newer_than=0 if before is None else before.version)
    return Published(answer.url or "", files, tuple(answer.invalid_tags or ()))


def verify(plan: UploadPlan, *, wait_seconds: float = 0.0, progress: Progress | None = None) -> Published:
    """Only compare what the service lists with the plan. Raises as :func:`publish` does."""
    progress = progress or NoProgress()
    return Published("", _verify(connect(lambda name: None), plan, wait_seconds, progress))


class _State(NamedTuple):
    """The dataset's state in the service's word, and the number of its newest version."""

    word: str
    version: int


def _state(api: KaggleApi, plan: UploadPlan) -> _State | None:
    """None where there is no dataset that the token's user may see."""
    import requests

    with service_errors(f"asking after {plan.ref}"):
        try:
            answer = json.loads(api.dataset_status(plan.ref, format="json(status,current_version_number)"))
            return _State(answer["status"], int(answer["current_version_number"] or 0))
        except requests.HTTPError as error:
            if error.response is not None and error.response.status_code in (403, 404):
                return None
            raise


def _verify(api: KaggleApi, plan: UploadPlan, wait_seconds: float, progress: Progress, newer_than: int = 0) -> int:
    """Wait until a version after ``newer_than`` is ready: just after the upload, the one before still is."""
    deadline = time.monotonic() + wait_seconds
    while True:
        state = _state(api, plan)
        if state is not None and state.version > newer_than:
            if state.word == READY:
                return _compare(plan, _listed(api, plan, progress))
            if state.word in FAILED:
                raise ServiceFailed(
                    f"Kaggle says of {plan.ref}: {state.word}. See its page, then send it again with --version NOTES."
                )
        if time.monotonic() >= deadline:
            raise StillProcessing(
                f"Kaggle does not show all of {plan.ref} yet. Look again later: the same command with --verify."
            )
        progress.update(len(plan.files), len(plan.files), "waiting for Kaggle to unpack it")
        time.sleep(POLL_SECONDS)


def _listed(api: KaggleApi, plan: UploadPlan, progress: Progress) -> dict[str, int]:
    """Every file that the service lists, by name, with its size in bytes."""
    found: dict[str, int] = {}
    page: str | None = None
    while True:
        with service_errors(f"listing {plan.ref}"):
            answer = api.dataset_list_files(plan.ref, page_token=page, page_size=PAGE_SIZE)
        if answer.error_message:
            raise ServiceFailed(f"Kaggle does not list {plan.ref}: {answer.error_message}.")
        found.update((file.name, file.total_bytes) for file in answer.dataset_files)
        progress.update(len(found), None, f"{len(found)} files listed")
        page = answer.next_page_token
        if not page:
            return found


def _compare(plan: UploadPlan, listed: dict[str, int]) -> int:
    """How many of the listed files were compared. Raises :class:`NotWhatWasSent`.

    A zip may be listed as itself or, unpacked, as its members below a folder of its name.
    """
    expected: dict[str, int] = {}
    for file in plan.files:
        expected.update({file.name: file.bytes} if _as_itself(file, listed) else file.inside)
    missing = sorted(set(expected) - set(listed))
    wrong = sorted(name for name in set(expected) & set(listed) if expected[name] != listed[name])
    if missing or wrong:
        faults = [f"{name} is missing" for name in missing]
        faults += [f"{name} has {listed[name]} bytes, not {expected[name]}" for name in wrong]
        more = f" ... and {len(faults) - MAX_NAMED} more" if len(faults) > MAX_NAMED else ""
        raise NotWhatWasSent(
            f"Of {len(expected)} files of {plan.ref}, Kaggle lists {len(expected) - len(missing)}: "
            f"{'; '.join(faults[:MAX_NAMED])}{more}. Send the set again with --version NOTES."
        )
    return len(expected)


def _as_itself(file: PlannedFile, listed: dict[str, int]) -> bool:
    return not file.inside or file.name in listed
