"""Runs the migrations on the connection that `registry.migrate` hands over, inside its transaction."""

from alembic import context

from registry.base import Base
from registry.schema import VERSION_TABLE

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite changes a column or constraint only by rebuilding its table
)
with context.begin_transaction():
    context.run_migrations()
