"""What a shortcut map is asked for, and which runs can be compared in one. No torch."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from db.models import Run
from db.workspace import Workspace
from ospcoop.runs import find_run

TOP_PATCHES = 8
PREDICTED, SOURCE = "predicted", "source"


class ShortcutError(ValueError):
    """A shortcut map cannot be made as asked; the message says what to choose."""


@dataclass(frozen=True)
class ShortcutRequest:
    """Which candidate, by id, and beside zero-shot the prompts of which runs, by name: of one encoder and class list.

    ``shown`` is the class whose evidence is drawn: "predicted", the one that zero-shot takes the background for;
    "source", the one whose object was removed; or a wnid. ``encoder`` is used where no run is named. ``evaluation``
    gives its classes; without one they are those that all the runs were trained on, or else the whole class list.
    """

    candidate: int
    runs: tuple[str, ...] = ()
    encoder: str = "embedded_dual"
    shown: str = PREDICTED
    top: int = TOP_PATCHES
    evaluation: int | None = None

    @classmethod
    def from_dict(cls, values: dict) -> ShortcutRequest:
        """From a job's JSON."""
        return cls(**{**values, "runs": tuple(values.get("runs", ()))})

    def as_dict(self) -> dict:
        return {**asdict(self), "runs": list(self.runs)}


def chosen_runs(workspace: Workspace, request: ShortcutRequest) -> list[Run]:
    """The runs of a request. Raises UnknownRun, and :class:`ShortcutError` for runs of several encoders."""
    with workspace.read() as session:
        found = [find_run(session, name) for name in dict.fromkeys(request.runs)]
    encoders = {(run.config["encoder"]["name"], run.config["encoder"]["weights"]) for run in found}
    if len(encoders) > 1:
        names = ", ".join(sorted(name for name, _ in encoders))
        raise ShortcutError(f"These runs were trained on different encoders ({names}); compare runs of one.")
    return found
