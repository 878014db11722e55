"""Bring a database to the code's version with Alembic, in one transaction, or refuse a newer one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from sqlalchemy import Connection, Engine, inspect, text

MIGRATIONS = Path(__file__).parent / "migrations"
HEAD = "0002"


class MigrationFailed(RuntimeError):
    """A migration would have left the database inconsistent, so it was rolled back."""


class NewerDatabase(RuntimeError):
    """The database was written by a newer version of this code."""


def migrate(engine: Engine) -> None:
    """Run the missing migrations. Nothing is changed when one fails, or when the database is newer."""
    with engine.connect() as connection:
        current = _current_version(connection)
    if current == HEAD:
        return
    _refuse_unknown(current, engine)
    from alembic import command  # a third of a second to import, and rarely needed

    immediate = engine.execution_options(sqlite_begin="IMMEDIATE")
    with immediate.connect() as connection, _foreign_keys_off(connection), connection.begin():
        # Another process may have migrated while this one waited for the lock.
        _refuse_unknown(_current_version(connection), engine)
        config = _alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, HEAD)
        if broken := connection.exec_driver_sql("PRAGMA foreign_key_check").first():
            raise MigrationFailed(f"A row of {broken[0]} points at a missing row of {broken[2]}; nothing was changed.")


@contextmanager
def _foreign_keys_off(connection: Connection) -> Iterator[None]:
    """A table that is made anew is dropped in between, which its references would forbid.

    SQLite heeds the switch outside of transactions only.
    """
    raw = connection.connection.driver_connection
    raw.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        raw.execute("PRAGMA foreign_keys = ON")


def _alembic_config():
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


@lru_cache(maxsize=1)
def known_versions() -> frozenset[str]:
    """The revisions in ``db/migrations``."""
    from alembic.script import ScriptDirectory

    script = ScriptDirectory.from_config(_alembic_config())
    return frozenset(revision.revision for revision in script.walk_revisions())


def _current_version(connection: Connection) -> str | None:
    if not inspect(connection).has_table("alembic_version"):
        return None
    return connection.execute(text("SELECT version_num FROM alembic_version")).scalar()


def _refuse_unknown(current: str | None, engine: Engine) -> None:
    if current is not None and current not in known_versions():
        raise NewerDatabase(
            f"The database {engine.url.database} is at version {current}, which this code does not know: "
            "it was written by a newer version. Update the code; nothing was changed."
        )
