"""Whether anything was committed to a workspace's database since one last looked."""

from __future__ import annotations

import sqlite3
import threading

from db.workspace import DATABASE_NAME, Workspace


class ChangeCounter:
    """A number that is another one after every commit, by this process or another one.

    SQLite's ``PRAGMA data_version`` of a connection of its own, which never writes: see
    https://www.sqlite.org/pragma.html#pragma_data_version.
    """

    def __init__(self, workspace: Workspace) -> None:
        self._address = f"{(workspace.root / DATABASE_NAME).as_uri()}?mode=ro"
        self._connection: sqlite3.Connection | None = None
        self._lock = threading.Lock()

    def value(self) -> int:
        """The number now. The first call opens the connection."""
        with self._lock:
            if self._connection is None:
                self._connection = sqlite3.connect(self._address, uri=True, check_same_thread=False)
            return self._connection.execute("PRAGMA data_version").fetchone()[0]
