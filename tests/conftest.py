"""How the tests are spread over processes, and what event loop they run on."""

import os

if os.environ.get("GRAMKEEP_TEST_LOOP") == "uvloop":
    import uvloop

    def pytest_asyncio_loop_factories():
        return {"uvloop": uvloop.new_event_loop}


def pytest_xdist_auto_num_workers() -> int:
    """Run more than there are processors: many tests wait, for servers or for time to pass."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items):
    """Begin with the tests that one worker runs one after the other, and so take longest."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
