"""A workspace: one folder with the database and everything the database names.

Open one with :func:`open_workspace`; it creates the folder, migrates the database inside a
transaction and refuses a database that a newer version of this code has written.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from db.migrate import migrate

DATABASE_NAME = "workspace.db"
BUSY_TIMEOUT_MS = 30_000


class WorkspaceError(RuntimeError):
    """The workspace cannot be opened; the message says what to do."""


@dataclass(frozen=True)
class Workspace:
    """An open workspace. ``read`` for queries, ``write`` for one short transaction each."""

    root: Path
    engine: Engine
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A session for queries. Nothing done in it is kept; loaded rows stay readable after it."""
        with self._session("DEFERRED") as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One write transaction: takes the write lock at once, commits at the end, rolls back on an error."""
        # SQLite makes those who wait for its lock sleep, longer each time; threads of one process take turns instead.
        has_turn = self._turn.acquire(timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            with self._session("IMMEDIATE") as session, session.begin():
                yield session
        finally:
            if has_turn:
                self._turn.release()

    @contextmanager
    def _session(self, mode: str) -> Iterator[Session]:
        engine = self.engine.execution_options(sqlite_begin=mode)
        with Session(engine, expire_on_commit=False) as session:
            yield session

    def path(self, relative: str) -> Path:
        """A path inside the workspace. Refuses one that leads out of it."""
        full = (self.root / relative).resolve()
        if not full.is_relative_to(self.root):
            raise WorkspaceError(f"{relative!r} leads out of the workspace {self.root}.")
        return full

    def close(self) -> None:
        self.engine.dispose()


def _sqlite_pragmas(connection, _record) -> None:
    # The driver must not open transactions by itself: _begin does, so that writers take the lock first.
    connection.isolation_level = None
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT_MS}")
    cursor.execute("PRAGMA foreign_keys = ON")
    cursor.execute("PRAGMA journal_mode = WAL")
    cursor.execute("PRAGMA synchronous = FULL")
    cursor.close()


def _begin(connection) -> None:
    mode = connection.get_execution_options().get("sqlite_begin", "DEFERRED")
    connection.exec_driver_sql(f"BEGIN {mode}")


def make_engine(database: Path) -> Engine:
    """An SQLite engine in WAL mode with foreign keys, a busy timeout and explicit BEGINs."""
    engine = create_engine(f"sqlite:///{database}", connect_args={"check_same_thread": False})
    event.listen(engine, "connect", _sqlite_pragmas)
    event.listen(engine, "begin", _begin)
    return engine


def open_workspace(folder: Path | str, *, create: bool = True) -> Workspace:
    """Open (and, if ``create``, make) the workspace in ``folder``, its database at the code's version."""
    root = Path(folder).expanduser().resolve()
    database = root / DATABASE_NAME
    if not database.exists():
        if not create:
            raise WorkspaceError(
                f"There is no workspace in {root}. Make one: `uv run launch.py demo --workspace {folder}`."
            )
        if root.exists() and not root.is_dir():
            raise WorkspaceError(f"{root} is a file, not a folder; give another --workspace.")
        root.mkdir(parents=True, exist_ok=True)
    engine = make_engine(database)
    try:
        migrate(engine)
    except BaseException:  # also a Ctrl-C: no open file is left behind
        engine.dispose()
        raise
    return Workspace(root, engine)
