import time

import pytest


class Clock:
    """Stands in for the module ``time``; ``now`` is in milliseconds since the epoch."""

    now = 1_000_000

    def time(self):
        return self.now / 1000


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    clock.now = int(time.time() * 1000)
    monkeypatch.setattr("gramkeep.envelope.time", clock)
    monkeypatch.setattr("gramkeep.storages.memory.time", clock)
    return clock
