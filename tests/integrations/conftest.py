"""What tests of integrations use: a local Bot API server, and places for sessions."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from integrations.watched_storage import WatchedStorage

from gramkeep.testing import TelegramServer


@pytest.fixture
async def telegram() -> AsyncIterator[TelegramServer]:
    async with TelegramServer() as server:
        yield server


@pytest.fixture
def storage() -> WatchedStorage:
    return WatchedStorage()


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/bot.db"
