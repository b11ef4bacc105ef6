"""Fixtures for tests on PostgreSQL: one server per test run, emptied for every test.

A test module names this one as its ``pytest_plugins``.
"""

import asyncio

import asyncpg
import pytest

from gramkeep.storages.postgres import PostgresStorage

from .postgres import running_pgbouncer, running_postgres, shared_postgres

DATABASE = "gramkeep_tests"

EMPTY = "DROP SCHEMA public CASCADE; CREATE SCHEMA public"


@pytest.fixture(scope="session")
def postgres_server():
    with shared_postgres() as server:
        yield server


@pytest.fixture(scope="session")
def pgbouncer(postgres_server):
    """Hold a PgBouncer with two connections to the server, for any number of clients."""
    with running_pgbouncer(postgres_server) as bouncer:
        yield bouncer


@pytest.fixture(scope="session")
def _postgres_database(postgres_server):
    asyncio.run(_run(postgres_server.url(), f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)"))
    asyncio.run(_run(postgres_server.url(), f"CREATE DATABASE {DATABASE}"))
    return postgres_server.url(DATABASE)


@pytest.fixture
def postgres_patience(monkeypatch):
    """Have a storage that isn't told for how long wait for the server on a busy machine too."""
    monkeypatch.setitem(PostgresStorage.__init__.__kwdefaults__, "connect_timeout", 60.0)


@pytest.fixture
async def postgres_database(_postgres_database, postgres_patience):
    """Give the URL of a database that holds nothing."""
    await _run(_postgres_database, EMPTY)
    return _postgres_database


@pytest.fixture(scope="session")
def _english_database(postgres_server):
    name = f"{DATABASE}_english"
    asyncio.run(_run(postgres_server.url(), f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))
    make = f"CREATE DATABASE {name} TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en-US'"
    asyncio.run(_run(postgres_server.url(), make))
    return postgres_server.url(name)


@pytest.fixture
async def english_database(_english_database, postgres_patience):
    """Give the URL of a database that holds nothing, and sorts as dictionaries do."""
    await _run(_english_database, EMPTY)
    return _english_database


@pytest.fixture
async def pgbouncer_database(postgres_database, pgbouncer):
    """Give the URL of that database through PgBouncer."""
    return pgbouncer.url(DATABASE)


@pytest.fixture
def own_postgres():
    """Give a server that the test may stop and kill."""
    with running_postgres() as server:
        yield server


async def _run(url, script):
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(script)
    finally:
        await connection.close()
