"""The database: migrations, pragmas, append-only tables, a newer database refused."""

from __future__ import annotations

import datetime as dt
import multiprocessing
import sqlite3
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, StatementError

from db.migrate import NewerDatabase
from db.models import Base, Decision, FewShotItem, FewShotSet, Meta, User, Verdict
from db.queries import get_meta, set_meta
from db.workspace import DATABASE_NAME, WorkspaceError, open_workspace


def test_migrations_make_exactly_the_mapped_tables(workspace):
    with workspace.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []


def test_sqlite_runs_in_wal_with_foreign_keys(workspace):
    with workspace.read() as session:
        assert session.execute(text("PRAGMA journal_mode")).scalar() == "wal"
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
        assert session.execute(text("PRAGMA busy_timeout")).scalar() >= 10_000


def test_a_newer_database_is_refused_and_left_alone(tmp_path):
    open_workspace(tmp_path).close()
    with sqlite3.connect(tmp_path / DATABASE_NAME) as raw:
        raw.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(NewerDatabase, match=r"9999.*newer version"):
        open_workspace(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as raw:
        assert raw.execute("SELECT version_num FROM alembic_version").fetchone() == ("9999",)


def test_a_failing_migration_changes_nothing(tmp_path, monkeypatch):
    def fail(config, revision):
        config.attributes["connection"].execute(text("CREATE TABLE half_done (id INTEGER)"))
        raise RuntimeError("broken migration")

    monkeypatch.setattr("alembic.command.upgrade", fail)
    with pytest.raises(RuntimeError, match="broken migration"):
        open_workspace(tmp_path)
    with sqlite3.connect(tmp_path / DATABASE_NAME) as raw:
        assert raw.execute("SELECT count(*) FROM sqlite_master").fetchone() == (0,)


def test_an_error_inside_write_keeps_nothing(workspace):
    with pytest.raises(ValueError, match="midway"), workspace.write() as session:
        session.add(Meta(key="half", value="done"))
        session.flush()
        raise ValueError("midway")
    with workspace.read() as session:
        assert get_meta(session, "half") is None


def _count_up(folder: Path, times: int) -> None:
    workspace = open_workspace(folder)
    for _ in range(times):
        with workspace.write() as session:
            set_meta(session, "count", str(int(get_meta(session, "count") or 0) + 1))
    workspace.close()


def test_writers_in_several_processes_lose_no_update(tmp_path):
    open_workspace(tmp_path).close()
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_count_up, args=(tmp_path, 40)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        assert process.exitcode == 0
    with open_workspace(tmp_path).read() as session:
        assert get_meta(session, "count") == "120"


@pytest.mark.parametrize("table", ["decisions", "builds", "build_items"])
@pytest.mark.parametrize("verb", ["UPDATE", "DELETE"])
def test_append_only_tables_have_their_triggers(workspace, table, verb):
    with workspace.read() as session:
        names = set(session.scalars(text("SELECT name FROM sqlite_master WHERE type = 'trigger'")))
    assert f"{table}_no_{verb.lower()}" in names


def test_a_decision_cannot_be_rewritten(workspace):
    with workspace.write() as session:
        session.execute(text("INSERT INTO classes VALUES (0, 'n01440764', 'tench')"))
        session.execute(
            text(
                "INSERT INTO source_images (id, name, split, root, path, sha256, bytes, width, height, class_index,"
                " imported_at) VALUES (1, 'a', 'val', '/', 'a', 'x', 1, 1, 1, 0, '2026-01-01')"
            )
        )
        session.execute(text("INSERT INTO recipes VALUES (1, 'h', '{}', '2026-01-01')"))
        session.execute(
            text("INSERT INTO users (id, name, role, created_at) VALUES (1, 'local', 'annotator', '2026-01-01')")
        )
        session.execute(
            text(
                "INSERT INTO candidates (id, source_id, recipe_id, kind, version, class_index, folder, result_sha256,"
                ' width, height, logit_source, logit_candidate, "drop", residual, rank, probability, top5, area,'
                " dilated_area, phash, boxes, timings, notes, variant, details, created_at)"
                " VALUES (1, 1, 1, 'background', 1, 0, 'f', 's', 1, 1, 1, 0, 1, 0, 5, 0.1, '[]', 0.2, 0.3, 'p', '[]',"
                " '{}', '{}', 0, '{}', '2026-01-01')"
            )
        )
        session.add(
            Decision(uuid="u1", candidate_id=1, user_id=1, verdict=Verdict.ACCEPT, reasons=[], result_sha256="s")
        )
    with pytest.raises(IntegrityError, match="append-only"), workspace.write() as session:
        session.execute(text("UPDATE decisions SET verdict = 'reject'"))
    with pytest.raises(IntegrityError, match="append-only"), workspace.write() as session:
        session.execute(text("DELETE FROM decisions"))
    with workspace.read() as session:
        assert session.execute(text("SELECT verdict FROM decisions")).all() == [("accept",)]


def test_a_timestamp_without_zone_is_refused(workspace):
    naive = dt.datetime(2026, 1, 1)
    with pytest.raises(StatementError, match="without a time zone"), workspace.write() as session:
        session.add(User(name="x", created_at=naive))
        session.flush()


def test_paths_out_of_the_workspace_are_refused(workspace):
    assert workspace.path("candidates/ab/c").is_relative_to(workspace.root)
    for escape in ("../outside", "/etc/passwd", "candidates/../../outside"):
        with pytest.raises(WorkspaceError, match="leads out"):
            workspace.path(escape)


def test_a_missing_workspace_names_the_remedy(tmp_path):
    with pytest.raises(WorkspaceError, match=r"launch\.py demo"):
        open_workspace(tmp_path / "nowhere", create=False)
    (tmp_path / "file").write_text("x")
    with pytest.raises(WorkspaceError, match="is a file"):
        open_workspace(tmp_path / "file")


def test_a_database_of_the_first_version_keeps_its_rows(tmp_path, monkeypatch):
    """0002 makes candidates anew; what points at them must still do so, and their triggers must still hold."""
    from tests.browser import synthetic_candidates

    new = open_workspace(tmp_path / "new")
    synthetic_candidates(new, 3)
    new.close()
    monkeypatch.setattr("db.migrate.HEAD", "0001")
    old = open_workspace(tmp_path / "old")
    old.close()
    with sqlite3.connect(tmp_path / "old" / DATABASE_NAME) as database:
        database.execute("ATTACH ? AS new", (str(tmp_path / "new" / DATABASE_NAME),))
        for table in ("classes", "source_images", "recipes", "candidates"):
            columns = ", ".join(f'"{row[1]}"' for row in database.execute(f"PRAGMA main.table_info({table})"))
            database.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
        database.execute("INSERT INTO users (id, name, role, created_at) VALUES (1, 'a', 'annotator', '2026-01-01')")
        database.execute(
            "INSERT INTO decisions (uuid, candidate_id, user_id, verdict, reasons, result_sha256, created_at) "
            "VALUES ('u', 1, 1, 'accept', '[]', 'x', '2026-01-01')"
        )
    monkeypatch.undo()
    opened = open_workspace(tmp_path / "old")
    with opened.read() as session:
        assert session.execute(text("SELECT count(*), min(variant), max(version) FROM candidates")).one() == (3, 0, 1)
        assert session.scalar(select(Decision)).candidate_id == 1
        assert session.scalar(select(User)).active
        assert session.execute(text("PRAGMA foreign_keys")).scalar() == 1
    with pytest.raises(IntegrityError, match="FOREIGN KEY"), opened.write() as session:
        session.execute(text("DELETE FROM candidates WHERE id = 1"))


def test_a_few_shot_set_refuses_val_sources(workspace):
    from tests.browser import synthetic_candidates

    synthetic_candidates(workspace, 1)
    with workspace.write() as session:
        session.add(FewShotSet(id=1, shots=1, seed=0, content_hash="x", summary={}))
    with pytest.raises(IntegrityError, match="train sources only"), workspace.write() as session:
        session.add(FewShotItem(set_id=1, source_id=1))
