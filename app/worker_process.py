"""The one worker that the server keeps beside itself, as a process of its own."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
FIRST_WAIT_SECONDS = 1.0
LONGEST_WAIT_SECONDS = 60.0
NICENESS = 19
HEALTHY_SECONDS = 60.0
END_SECONDS = 30.0


def worker_command(workspace_root: Path) -> list[str]:
    """The command line of a worker for that workspace; to be run in the repository's root."""
    return [sys.executable, "launch.py", "--workspace", str(workspace_root), "worker"]


class WorkerProcess:
    """Keeps one child process running between :meth:`start` and :meth:`stop`; one that dies is started again.

    The wait before that doubles with every quick death, up to a minute, so that a worker that cannot
    start does not keep the machine busy.
    """

    def __init__(
        self, command: Sequence[str], *, cwd: Path = ROOT, first_wait_seconds: float = FIRST_WAIT_SECONDS
    ) -> None:
        self._command = list(command)
        self._cwd = cwd
        self._first_wait = first_wait_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._process: subprocess.Popen | None = None
        self._thread = threading.Thread(target=self._keep, name="worker-process", daemon=True)

    @property
    def pid(self) -> int | None:
        """The child's process id while it runs."""
        process = self._process
        return None if process is None or process.poll() is not None else process.pid

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ask the child to end (SIGTERM: its job goes back to the queue) and wait for it; kill it if it will not."""
        self._stopping.set()
        with self._lock:
            process = self._process
        if process is not None and process.poll() is None:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("The worker did not end within %.0f s and is killed.", END_SECONDS)
                process.kill()
                process.wait()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        wait = self._first_wait
        while True:
            with self._lock:
                if self._stopping.is_set():
                    return
                try:
                    self._process = subprocess.Popen(self._command, cwd=self._cwd, stdin=subprocess.DEVNULL)
                    _step_back(self._process.pid)
                except OSError as error:
                    log.error("The worker could not be started (%s); trying again in %.0f s.", error, wait)
                    self._process = None
            began = time.monotonic()
            if self._process is not None:
                code = self._process.wait()
                if self._stopping.is_set():
                    return
                if time.monotonic() - began > HEALTHY_SECONDS:
                    wait = self._first_wait
                log.warning("The worker ended with code %s; starting it again in %.0f s.", code, wait)
            if self._stopping.wait(wait):
                return
            wait = min(2 * wait, LONGEST_WAIT_SECONDS)


def _step_back(pid: int) -> None:
    """Let people's requests go before the worker's jobs, where the system knows priorities."""
    if hasattr(os, "setpriority"):
        try:
            os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, pid) + NICENESS)
        except ProcessLookupError:
            return  # it has ended already, and is started again
