"""How the tests are spread over processes."""

import os


def pytest_xdist_auto_num_workers() -> int:
    """Run more than there are processors: many tests wait, for servers or for time to pass."""
    return (os.cpu_count() or 1) + 2


def pytest_collection_modifyitems(items):
    """Begin with the tests that one worker runs one after the other, and so take longest."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)
