"""Has triage trained again once enough verdicts have come in: asked after decisions, cheap for whoever decides."""

from __future__ import annotations

import threading
import time

from app.jobs.review import queue_triage
from db.workspace import Workspace

LOOK_SECONDS = 5.0


class TriageWatch:
    """Looks at most every few seconds whether training is due, and enqueues it. Safe in any thread."""

    def __init__(self, workspace: Workspace, every: float = LOOK_SECONDS) -> None:
        self._workspace = workspace
        self._every = every
        self._lock = threading.Lock()
        self._next_look = 0.0

    def decided(self) -> None:
        """Tell that verdicts were recorded."""
        with self._lock:
            now = time.monotonic()
            if now < self._next_look:
                return
            self._next_look = now + self._every
        queue_triage(self._workspace, created_by="triage")
