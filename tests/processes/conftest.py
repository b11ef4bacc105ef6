import fcntl
import multiprocessing
import os

import pytest

from .backends import STARTERS


@pytest.fixture(scope="session", autouse=True)
def no_other_worker(tmp_path_factory):
    """Fail where two workers of a test run are given tests that take the whole machine."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    with (folder / "processes.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@pytest.fixture(scope="session")
def processes():
    """Make processes from one that has the slow imports behind it, and threads of its own none."""
    context = multiprocessing.get_context("forkserver")
    drivers = ["sqlite", "redis", "postgres", "mysql", "mongodb"]
    context.set_forkserver_preload(
        ["gramkeep.integrations.aiogram", *(f"gramkeep.storages.{driver}" for driver in drivers)]
    )
    return context


@pytest.fixture(scope="session")
def backend(request):
    """One of `STARTERS`, by name, for all tests that follow with it."""
    with STARTERS[request.param]() as running:
        yield running
