import multiprocessing

import pytest


@pytest.fixture(scope="session")
def processes():
    """Make processes from one that has the slow imports behind it, and threads of its own none."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["gramkeep.integrations.aiogram", "gramkeep.storages.sqlite"])
    return context


@pytest.fixture(params=["sqlite", "file"])
def url(request, tmp_path):
    """The URL of a storage that holds nothing."""
    return {"sqlite": f"sqlite:///{tmp_path}/bot.db", "file": f"file://{tmp_path}/sessions"}[
        request.param
    ]
