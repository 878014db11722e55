"""How long work tells how far it is and learns that it should stop: the same for a job and a terminal."""

from __future__ import annotations

from typing import Protocol


class Cancelled(Exception):
    """Somebody asked for a cancel. What is finished is kept; the same call again goes on from there."""


class Progress(Protocol):
    def update(self, done: int, total: int | None, message: str = "") -> None:
        """Tell how far the work is; cheap enough for every item. Raises :class:`Cancelled`."""
        ...

    def log(self, line: str) -> None:
        """Keep a line for the person who asks later what happened."""
        ...


class NoProgress:
    """For callers that do not watch."""

    def update(self, done: int, total: int | None, message: str = "") -> None:
        pass

    def log(self, line: str) -> None:
        pass
