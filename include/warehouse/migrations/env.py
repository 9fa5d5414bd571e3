"""Alembic's entry point: migrates the warehouse as its owner, all revisions of a run in one transaction."""

from alembic import context
from sqlalchemy import create_engine, text

from include.warehouse.connection import Role, sqlalchemy_url


def run() -> None:
    """Runs the migrations under an advisory lock, so that two starts at once do not race."""
    engine = create_engine(sqlalchemy_url(Role.OWNER, driver="psycopg"))
    with engine.connect() as connection:
        connection.execute(text("create schema if not exists ops"))
        connection.commit()
        context.configure(connection=connection, version_table="schema_version", version_table_schema="ops")
        with context.begin_transaction():
            connection.execute(text("select pg_advisory_xact_lock(hashtextextended('tidemark.migrate', 0))"))
            context.run_migrations()
    engine.dispose()


run()
