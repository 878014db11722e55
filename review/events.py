"""What a client reports, how its parts are checked, and every way in which a report can be refused."""

from __future__ import annotations

import uuid as uuid_module
from collections.abc import Sequence
from dataclasses import dataclass

from db.models import Reason, Verdict, Via

REDO = "redo"


class DecisionRefused(ValueError):
    """An event that cannot be recorded. ``field`` is what is wrong with it; the message says what to do."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


class MalformedEvent(DecisionRefused):
    """A value that no client of ours would send."""


class UuidTaken(DecisionRefused):
    """The uuid belongs to a different decision."""


class UnknownCandidate(DecisionRefused):
    """There is no such candidate."""


class StaleResult(DecisionRefused):
    """The image that was judged is not the candidate's image."""


class UnknownReason(DecisionRefused):
    """A reason that is not on the list."""


class ReasonMissing(DecisionRefused):
    """A reject without a reason."""


class ReasonNotAllowed(DecisionRefused):
    """A reason with a verdict that takes none."""


class NothingToUndo(DecisionRefused):
    """No standing decision to take back, or not the one named."""


class NothingToRedo(DecisionRefused):
    """No undo to take back, or not the one named, or a new verdict has been given since."""


@dataclass(frozen=True)
class DecisionEvent:
    """What a client reports. ``verdict`` is one of :class:`db.models.Verdict`, or ``redo``.

    For ``undo``, ``undoes`` is the uuid of the decision to take back; left out, the annotator's latest standing one is
    meant. For ``redo``, ``redoes`` is the uuid of the undo to take back; left out, the latest one is meant. Both may
    leave out the candidate and its sha256. ``via`` says how the verdict was given: single, grid or duplicates.
    """

    uuid: str
    verdict: str
    candidate_id: int | None = None
    result_sha256: str | None = None
    reasons: Sequence[str] = ()
    undoes: str | None = None
    elapsed_ms: int | None = None
    redoes: str | None = None
    via: str = Via.SINGLE


def canonical_uuid(text: str) -> str:
    """The uuid in its usual spelling. Raises :class:`MalformedEvent`."""
    try:
        return str(uuid_module.UUID(text))
    except ValueError:
        raise MalformedEvent("uuid", "The uuid must be 32 hexadecimal digits, with or without dashes.") from None


def checked_reasons(given: Sequence[str], verdict: Verdict) -> list[str]:
    """The reasons, each once. Raises when one is unknown, a reject has none, or anything but a reject has one."""
    reasons = list(dict.fromkeys(given))
    for reason in reasons:
        if reason not in list(Reason):
            raise UnknownReason("reasons", f"{reason!r} is not a reason; choose among {', '.join(Reason)}.")
    if verdict is Verdict.REJECT and not reasons:
        raise ReasonMissing("reasons", "A reject needs at least one reason; press R and then 1 to 7.")
    if verdict is not Verdict.REJECT and reasons:
        raise ReasonNotAllowed("reasons", f"Only a reject has reasons; send this {verdict.value} without.")
    return reasons


def checked_via(event: DecisionEvent) -> Via:
    """How the verdict was given. Raises :class:`MalformedEvent`; ``redo`` is not for a client to say."""
    allowed = (Via.SINGLE, Via.GRID, Via.DUPLICATES)
    if event.via not in allowed:
        raise MalformedEvent("via", f"A verdict is given via one of {', '.join(allowed)}.")
    return Via(event.via)
