import multiprocessing

import pytest


@pytest.fixture(scope="session")
def processes():
    """Make processes from one that has the slow imports behind it, and threads of its own none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gramkeep.integrations.aiogram", "gramkeep.storages.sqlite"])
    return context
