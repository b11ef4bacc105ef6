"""What a storage owes to a client or pool that its user made."""

# A test suite asserts:
# ruff: noqa: S101

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from gramkeep.storage import Storage
from gramkeep.testing.conformance.base import promptly, store, values


@pytest.mark.asyncio
class ClientConformance:
    """For storages that take a client or pool which the user made: they never close it.

    A subclass, beside the one of `StorageConformance`, provides:

    - a fixture ``client``, sync or async: an open client over no data, as a user would make it.
      The fixture closes it afterwards.
    - ``storage_over(client)``: a storage that uses it.
    - ``is_open(client)``, sync or async: whether the client itself still works, best found out by
      a call to the server.
    """

    def storage_over(self, client: Any) -> Storage:
        """Make a storage that uses the user's client."""
        pytest.fail(f"{type(self).__name__} must define storage_over(self, client), for {client!r}")

    def is_open(self, client: Any) -> bool | Awaitable[bool]:
        """Tell whether the client works."""
        pytest.fail(f"{type(self).__name__} must define is_open(self, client), for {client!r}")

    async def test_a_client_the_user_made_stays_open(self, client: Any) -> None:
        storage = self.storage_over(client)
        await store(storage, "key", b"1")
        assert await values(storage, "key") == [b"1"]
        async with promptly():
            await storage.aclose()
            await storage.aclose()
        assert await self._works(client), "aclose() closed the user's client"

    async def test_a_client_stays_open_when_nothing_was_stored(self, client: Any) -> None:
        await self.storage_over(client).aclose()
        assert await self._works(client), "aclose() closed the user's client"

    async def test_storages_over_one_client_share_its_data(self, client: Any) -> None:
        first, second = self.storage_over(client), self.storage_over(client)
        await store(first, "key", b"1")
        assert await values(second, "key") == [b"1"]
        await first.aclose()
        assert await values(second, "key") == [b"1"]
        await store(second, "key", b"2")
        await second.aclose()
        third = self.storage_over(client)
        assert await values(third, "key") == [b"2"]
        await third.aclose()

    async def _works(self, client: Any) -> bool:
        answer = self.is_open(client)
        return answer if isinstance(answer, bool) else await answer
