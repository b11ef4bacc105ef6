"""For tests of bots and of storages: a Bot API server, the storage contract as tests, a TCP proxy.

Nothing is imported before it is asked for: the server needs aiohttp and the contract pytest, both
in `pip install "gramkeep[testing]"`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gramkeep.testing.conformance import (
        ClientConformance,
        LeaseConformance,
        StorageConformance,
    )
    from gramkeep.testing.proxy import TCPProxy
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
    "LeaseConformance",
    "Message",
    "Poll",
    "Query",
    "StorageConformance",
    "TCPProxy",
    "TelegramServer",
    "Topic",
    "Upload",
    "UsageError",
    "User",
    "WaitTimeout",
]

_MODULES = {
    "ClientConformance": "conformance",
    "LeaseConformance": "conformance",
    "StorageConformance": "conformance",
    "TCPProxy": "proxy",
}
_DRIVERS = {"aiohttp", "pytest", "pytest_asyncio"}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "telegram")
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
