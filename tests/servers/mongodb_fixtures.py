"""Fixtures over `servers.mongodb`: a server per test process, and a database per test."""

import itertools
import os

import pytest

from gramkeep.storages.mongodb.connection import DEFAULTS
from servers.mongodb import running_server, shared_server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def mongodb():
    with shared_server() as server:
        yield server


@pytest.fixture
def mongodb_patience(monkeypatch):
    """Have a storage that isn't told for how long wait for this slow server on a busy machine."""
    monkeypatch.setitem(DEFAULTS, "timeoutMS", 60_000)


@pytest.fixture
def mongodb_database(mongodb, mongodb_patience):
    """The URL of a database that holds nothing, and goes with the test."""
    name = f"gramkeep_test_{os.getpid()}_{next(_numbers)}"
    yield mongodb.url(name)
    mongodb.drop(name)


@pytest.fixture
def own_mongodb(mongodb_patience):
    """A server that the test may stop and kill."""
    with running_server() as server:
        yield server


@pytest.fixture
def small_pages(monkeypatch):
    """Have a scan of few keys need several pages, as this server is slow with many."""
    monkeypatch.setattr("gramkeep.storages.mongodb.documents.SCAN_PAGE", 100)
