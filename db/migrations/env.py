"""Run by Alembic. db.migrate hands over an open connection whose transaction wraps every migration."""

from alembic import context

context.configure(connection=context.config.attributes["connection"])
with context.begin_transaction():
    context.run_migrations()
