"""For tests of bots and of storages: a local Bot API server, and the storage contract as tests.

Nothing is imported before it is asked for: the server needs aiohttp and the contract pytest, both
in `pip install "gramkeep[testing]"`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gramkeep.testing.conformance import ClientConformance, StorageConformance
    from gramkeep.testing.telegram import (
        Account,
        BusinessConnection,
        Button,
        Call,
        Chat,
        Fault,
        Faults,
        Message,
        Poll,
        Query,
        TelegramServer,
        Topic,
        Upload,
        UsageError,
        User,
        WaitTimeout,
    )

__all__ = [
    "Account",
    "BusinessConnection",
    "Button",
    "Call",
    "Chat",
    "ClientConformance",
    "Fault",
    "Faults",
    "Message",
    "Poll",
    "Query",
    "StorageConformance",
    "TelegramServer",
    "Topic",
    "Upload",
    "UsageError",
    "User",
    "WaitTimeout",
]

_DRIVERS = {"aiohttp", "pytest", "pytest_asyncio"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "conformance" if name.endswith("Conformance") else "telegram"
    try:
        return getattr(importlib.import_module(f"{__name__}.{module}"), name)
    except ModuleNotFoundError as error:
        if error.name not in _DRIVERS:
            raise
        raise ImportError(
            f'{name} needs {error.name}: pip install "gramkeep[testing]"', name=error.name
        ) from error


def __dir__() -> list[str]:
    return [*globals(), *__all__]
