"""Fixtures over MariaDB, for modules that say ``pytest_plugins = ["servers.mariadb_fixtures"]``."""

import itertools
import secrets
from collections.abc import AsyncIterator, Iterator

import pytest

from gramkeep.storages.mysql import MySQLStorage

from .mariadb import GivenServer, MariaDB, query, running_server, shared_server

_RUN = secrets.token_hex(4)
_NUMBERS = itertools.count(1)


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB | GivenServer]:
    """Give the server that the tests of this worker share."""
    with shared_server() as server:
        yield server


@pytest.fixture
async def mariadb_database(
    mariadb: MariaDB | GivenServer, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """Give the URL of a new database, which is dropped afterwards.

    A storage that isn't told for how long waits for the server on a busy machine too.
    """
    monkeypatch.setitem(MySQLStorage.__init__.__kwdefaults__, "connect_timeout", 60.0)
    name = f"gramkeep_{_RUN}_{next(_NUMBERS)}"
    await query(mariadb.url(), f"CREATE DATABASE `{name}`")
    yield mariadb.url(name)
    # A test that failed may have left a transaction open, for which this would wait for a day.
    await query(mariadb.url(), "SET SESSION lock_wait_timeout = 30", f"DROP DATABASE `{name}`")


@pytest.fixture
def own_mariadb() -> Iterator[MariaDB]:
    """Give a server that the test may stop and kill."""
    with running_server() as server:
        yield server
