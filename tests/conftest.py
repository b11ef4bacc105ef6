"""How the tests are spread over processes, and what event loop they run on."""

import os
import signal

from xdist.scheduler import LoadScopeScheduling

PROCESSES = "tests/processes/"

if os.environ.get("GRAMKEEP_TEST_LOOP") == "uvloop":
    import uvloop

    def pytest_asyncio_loop_factories():
        return {"uvloop": uvloop.new_event_loop}


if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # As in what a shell runs in the background. The programs that tests interrupt would inherit it.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_xdist_auto_num_workers() -> int:
    """Run more than there are processors: many tests wait, for servers or for time to pass."""
    return (os.cpu_count() or 1) + 2


class Scheduling(LoadScopeScheduling):
    """Hands out one test after the other, but those with processes of their own all to one worker.

    Each of them takes the whole machine. They are begun with, as all together take longest. The
    marks that pytest-xdist has for this do nothing with pytest 9.2:
    https://github.com/pytest-dev/pytest-xdist/issues/1386
    """

    def _split_scope(self, nodeid: str) -> str:
        return PROCESSES if nodeid.startswith(PROCESSES) else nodeid


def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)
